"""Hyperparameters that differ from parameter to parameter, for any rule."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec

from torch import Tensor

from metapl.core import tree
from metapl.core.types import Optimizer, PyTree
from metapl.registry.errors import InputError

P = ParamSpec("P")


def by_leaf(constructor: Callable[P, Optimizer]) -> Callable[P, Optimizer]:
    """The constructor of a rule that also takes dicts, shaped as the parameters, for any of its hyperparameters.

    `sgd({"weight": 0.1, "bias": 0.2})` steps each parameter by its own rate. Such an optimiser keeps a state for each
    parameter, in a tuple. The rule must treat parameters one by one, as all of metapl do; clipping by the norm of all
    belongs before it, in a `chain`.

    Raises:
        InputError: at the first use, a dict that is not shaped as the parameters are, or a tensor of several numbers
            for parameters that are no single tensor.
    """
    signature = inspect.signature(constructor)

    @functools.wraps(constructor)
    def made(*args: P.args, **kwargs: P.kwargs) -> Optimizer:
        options = signature.bind(*args, **kwargs).arguments
        _require_pairs(constructor, options)
        trees = {name: value for name, value in options.items() if isinstance(value, Mapping)}
        if trees:
            return _apart(constructor, options, trees)
        found = constructor(*args, **kwargs)
        wide = [name for name, value in options.items() if name != "betas" and isinstance(value, Tensor) and value.ndim]
        return found._replace(init=_alone(constructor, wide[0], found.init)) if wide else found

    return made


def _require_pairs(constructor: Callable[..., Optimizer], options: Mapping[str, Any]) -> None:
    """Refuse a pair of dicts where a dict of pairs is meant."""
    for name, value in options.items():
        if isinstance(value, tuple | list) and any(isinstance(one, Mapping) for one in value):
            raise InputError(
                f"{constructor.__name__}({name}=…) is a pair with a dict in it: give a dict with a pair for each "
                "parameter"
            )


def _alone(constructor: Callable[..., Optimizer], name: str, init: Callable[[PyTree], PyTree]) -> Any:
    """`init` of a rule with a hyperparameter of several numbers, which are not those of several parameters."""

    def checked(params: PyTree) -> PyTree:
        if isinstance(params, Tensor):
            return init(params)
        raise InputError(
            f"{constructor.__name__}({name}=…) has several numbers, which each parameter would have: give one "
            f"number, or a dict of them shaped as the parameters, {tree.sketch(params)}"
        )

    return checked


def _apart(constructor: Callable[..., Optimizer], options: Mapping[str, Any], trees: Mapping[str, PyTree]) -> Optimizer:
    def rules(structure: Any) -> list[Optimizer]:
        columns = {}
        for name, value in trees.items():
            try:
                columns[name] = structure.flatten_up_to(value)
            except ValueError as error:
                wanted = tree.sketch(tree.unflatten([0] * structure.num_leaves, structure))
                raise InputError(
                    f"{constructor.__name__}({name}=…) is {tree.sketch(value)}, the parameters are {wanted}: "
                    "give one value for each parameter"
                ) from error
        rows = ({name: column[i] for name, column in columns.items()} for i in range(structure.num_leaves))
        return [constructor(**{**options, **row}) for row in rows]

    def init(params: PyTree) -> tuple[PyTree, ...]:
        leaves, structure = tree.flatten(params)
        return tuple(rule.init(leaf) for rule, leaf in zip(rules(structure), leaves, strict=True))

    def update(grads: PyTree, state: tuple[PyTree, ...], params: PyTree) -> tuple[PyTree, tuple[PyTree, ...]]:
        leaves, structure = tree.flatten(params)
        columns = (rules(structure), structure.flatten_up_to(grads), state, leaves)
        found = [rule.update(grad, one, leaf) for rule, grad, one, leaf in zip(*columns, strict=True)]
        return tree.unflatten([step for step, _ in found], structure), tuple(after for _, after in found)

    return Optimizer(init, update)
