"""A pass of a network written down, so that a derivative along a direction needs no second pass.

Forward mode computes a function anew beside its derivative. A step has just computed it: every operation, with what
went in and what came out. A `Tape` notes them, and `along` walks over the notes with the tangents alone: two
convolutions for each, where forward mode takes three. Batch norm and activations have fused rules
(`metapl.estimators.tangents`); every other operation goes by torch's own forward mode, one by one.

What depends on the targets is computed anew, as part of a graph, so that the derivative can be differentiated in them.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from metapl.core import torch_private, tree
from metapl.core.interception import Interception
from metapl.core.torch_private import TensorWeakRef
from metapl.core.types import Buffers, Params, Problem, PyTree
from metapl.estimators.tangents import RULES, Rule
from metapl.registry.errors import InputError


class _Note(NamedTuple):
    """One operation. Tensors have numbers, since most need not be kept."""

    operation: Any
    rule: Rule | None
    """Its own, or None where torch's forward mode goes over it."""
    arguments: tuple[tuple[Any, ...], dict[str, Any]]
    given: list[int | None]
    """The numbers of their leaves; None for what depends neither on the parameters nor on the targets."""
    versions: list[int]
    """Of the tensors that are kept, to see whether somebody has written on them."""
    results: list[Any]
    """The leaves of what came out."""
    made: list[int | None]
    """Their numbers; None for what is no tensor."""


class Tape(torch_private.TorchDispatchMode):
    """Notes what a pass does, from the parameters to the losses. It can be walked over once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.refused = "no pass was noted"
        """Why the notes are of no use; empty if they are."""
        self._notes: list[_Note] = []
        self._numbers: dict[int, tuple[TensorWeakRef, int]] = {}
        self._count = 0
        self._starts: dict[str, int] = {}
        self._targets: list[int] = []
        self._of_targets: set[int] = set()
        self._losses = -1

    def noting(self, problem: Problem) -> Problem:
        """The same problem, whose next inner loss is noted."""

        def inner(params: Params, buffers: Buffers, targets: PyTree, batch: PyTree) -> tuple[Tensor, Buffers]:
            self.refused = ""
            self._starts = {name: self._number(param) for name, param in params.items()}
            self._targets = [self._number(leaf) for leaf in tree.leaves(targets)]
            self._of_targets = set(self._targets)
            with self, Interception(self._look):
                losses, after = problem.inner(params, buffers, targets, batch)
            self._losses = self._known(losses) or -1
            return losses, after

        return problem._replace(inner=inner)

    def _look(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func in _DATA:
            self._refuse("it reaches for .data")
        return func(*args, **kwargs)

    def _refuse(self, why: str) -> None:
        self.refused = self.refused or why
        self._notes.clear()

    def _number(self, tensor: Tensor) -> int:
        """A new number for a tensor."""
        self._count += 1
        self._numbers[id(tensor)] = (TensorWeakRef(tensor), self._count)
        return self._count

    def _known(self, tensor: Tensor) -> int | None:
        """The number of a tensor. Another one may have lived in the same place."""
        held, number = self._numbers.get(id(tensor), (None, None))
        return number if held is not None and held() is tensor else None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        found = func(*args, **kwargs)
        if not self.refused and torch.is_grad_enabled():
            self._note(func, (args, kwargs), found)
        return found

    def _note(self, func: Any, arguments: tuple[tuple[Any, ...], dict[str, Any]], found: Any) -> None:
        leaves = list(_leaves(arguments))
        numbers = [self._known(leaf) if isinstance(leaf, Tensor) else None for leaf in leaves]
        # Whether something depends on the parameters is autograd's to say: it knows what was detached.
        moving = [isinstance(leaf, Tensor) and leaf.requires_grad for leaf in leaves]
        taught = [number in self._of_targets for number in numbers]
        if not any(moving) and not any(taught):
            return
        strange = any(moves and number is None for moves, number in zip(moving, numbers, strict=True))
        why = _objection(func, leaves, strange)
        if why:
            self._refuse(f"{func} {why}")
            return
        given = [number if moves or said else None for number, moves, said in zip(numbers, moving, taught, strict=True)]
        results = tree.leaves(found)
        made = [self._number(result) if isinstance(result, Tensor) else None for result in results]
        if any(taught):
            self._of_targets.update(number for number in made if number is not None)
        rule = None if any(taught) or arguments[1] else RULES.get(func)
        if rule is not None and not rule.arguments:
            arguments, leaves = tree.map(_shape, arguments), []
        versions = [leaf._version for leaf in leaves if isinstance(leaf, Tensor)]
        kept = () if rule is None else rule.results
        results = [one if place in kept else _shape(one) for place, one in enumerate(results)]
        self._notes.append(_Note(func, rule, arguments, given, versions, results, made))

    def along(self, u: Params, targets: PyTree) -> Tensor:
        """D_u of the noted losses `[batch]` at other targets of the same shapes; differentiable in the targets.

        Cost: 2 F. Notes and tangents are let go on the way.

        Raises:
            InputError: the pass cannot be noted, or has an operation without forward mode.
        """
        if self.refused:
            raise InputError(f"the pass cannot be linearised ({self.refused}): use another route")
        torch_private.load_forward_formulas()
        uses = Counter(number for note in self._notes for number in note.given)
        uses[self._losses] += 1
        walk = _Walk({number: u[name] for name, number in self._starts.items()}, uses)
        walk.fresh = dict(zip(self._targets, tree.leaves(targets), strict=True))
        self.refused = "it has been walked over"
        self._notes.reverse()
        try:
            while self._notes:
                walk.over(self._notes.pop())
        except (RuntimeError, NotImplementedError) as error:
            raise InputError(f"the pass cannot be linearised ({error}): use another route") from error
        finally:
            self._notes.clear()
        if self._losses not in walk.tangents:
            raise InputError("the pass cannot be linearised (its losses come from nowhere): use another route")
        return walk.tangents[self._losses]


_DATA = (Tensor.data.__get__, Tensor.data.__set__)  # type: ignore[attr-defined]


def _objection(func: Any, leaves: list[Any], strange: bool) -> str:
    """Why this operation cannot be noted; empty if it can."""
    if strange:
        return "takes what came from nowhere"
    if any(isinstance(leaf, Tensor) and leaf.is_complex() for leaf in leaves):
        return "is of complex numbers"  # conjugated below autograd, where identities get lost
    return _never(func) or ("keeps no activations" if torch_private.saved_by_hooks() else "")


@functools.cache
def _never(func: Any) -> str:
    """Why an operation can never be noted; empty if it can."""
    if func._schema.is_mutable:
        return "writes on what it is given"
    return "draws" if torch.Tag.nondeterministic_seeded in func.tags else ""


def _leaves(arguments: Any) -> Iterator[Any]:
    """The leaves of arguments in the order of `tree.leaves`, several times as fast."""
    for one in arguments.values() if isinstance(arguments, dict) else arguments:
        if isinstance(one, list | tuple | dict):
            yield from _leaves(one)
        else:
            yield one


class _Shape:
    """What is left of a tensor that nobody needs the numbers of."""

    def __init__(self, tensor: Tensor) -> None:
        self.shape, self.dtype = tensor.shape, tensor.dtype


def _shape(leaf: Any) -> Any:
    return _Shape(leaf) if isinstance(leaf, Tensor) else leaf


class _Walk:
    """Tangents, and what is computed anew, by number."""

    def __init__(self, tangents: dict[int, Tensor], uses: Counter[int | None]) -> None:
        self.tangents, self.uses = tangents, uses
        self.fresh: dict[int, Tensor] = {}

    def over(self, note: _Note) -> None:
        """Add what an operation made, and let go what nobody needs any more."""
        leaves = list(_leaves(note.arguments))
        if [leaf._version for leaf in leaves if isinstance(leaf, Tensor)] != note.versions:
            raise RuntimeError("something was written on in place")
        moving = [None if number is None else self.tangents.get(number) for number in note.given]
        renewed = any(number in self.fresh for number in note.given)
        if renewed or any(along is not None for along in moving):
            with torch.set_grad_enabled(renewed):
                found = note.rule.tangent(note.arguments[0], moving, note.results) if note.rule else NotImplemented
                if found is NotImplemented:
                    self._by_torch(note, moving, renewed)
                elif found is not None and note.made[0] is not None:
                    self.tangents[note.made[0]] = found
        self._let_go(note.given)

    def _let_go(self, given: list[int | None]) -> None:
        for number in given:
            self.uses[number] -= 1
            if number is not None and not self.uses[number]:
                self.tangents.pop(number, None)
                self.fresh.pop(number, None)

    def _by_torch(self, note: _Note, moving: list[Tensor | None], renewed: bool) -> None:
        leaves, structure = tree.flatten(note.arguments)
        given = [
            self.fresh.get(number or 0, leaf.detach()) if isinstance(leaf, Tensor) else leaf
            for number, leaf in zip(note.given, leaves, strict=True)
        ]
        with forward_ad.dual_level():
            duals = [
                leaf if along is None else forward_ad.make_dual(leaf, along)
                for leaf, along in zip(given, moving, strict=True)
            ]
            args, kwargs = tree.unflatten(duals, structure)
            for number, made in zip(note.made, tree.leaves(note.operation(*args, **kwargs)), strict=True):
                if number is None or not tree.differentiable(made):
                    continue
                primal, along = forward_ad.unpack_dual(made)
                if along is not None:
                    self.tangents[number] = along
                if renewed:
                    self.fresh[number] = primal
