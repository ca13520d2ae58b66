"""Any `nn.Module` as a pair of pure functions.

Examples:
    >>> import torch
    >>> from metapl.core import rng
    >>> from metapl.nn import functional
    >>> model = functional.from_module(lambda: torch.nn.Linear(3, 2))
    >>> params, buffers = model.init(rng.key(0))
    >>> logits, buffers = model.apply(params, buffers, torch.zeros(5, 3), train=True)
    >>> logits.shape
    torch.Size([5, 2])
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from metapl.core import rng, torch_private, tree
from metapl.core.types import Buffers, Key, Model, Params
from metapl.nn import batching, dropout, padding, weight_norm
from metapl.nn.admission import require_pure
from metapl.nn.skeleton import Skeleton
from metapl.registry.errors import InputError


def from_module(build: Callable[[], nn.Module]) -> Model:
    """A model from a function that builds a module with torch's usual random initialisation.

    `apply` never changes its inputs, and each pass runs on an instance of the module of its own (`metapl.nn.skeleton`).

    - Parameters are what the module trains. One that does not require a gradient is frozen: it is among the buffers,
      which nobody differentiates, decays or averages away, and comes back as it was.
    - Buffers go in and come back updated, such as BatchNorm's running statistics; a probe is a call whose buffers are
      dropped. Under `torch.vmap` over tasks or seeds each member gets statistics of its own.
    - With a `key`, dropout layers draw from it (`metapl.nn.dropout`), and what else draws finds torch's generator
      seeded with it; a module that draws nothing needs none. `rows` `[batch]` says which examples of a larger batch
      these are, for a caller that passes a batch in parts.
    - A tuple `x` is several positional inputs where forward requires several, a dict is inputs by name where they are
      forward's; anything else is the one input. Outputs have any structure.
    - A static method `from_class_means` of the module becomes `Model.start`.

    Args:
        build: called once for the structure, and once per `init` with the global generator seeded from the key. The
            module that it returns is left as it is, also if it is the same one every time.

    Returns:
        A `Model`. `apply` raises `RuntimeError` if `params` and `buffers` are not exactly the module's own, and
        `InputError` if forward cannot be a pure function of them: it writes on a parameter, changes a number or a
        tensor that the module has as a plain attribute, or draws without a key.

    Raises:
        InputError: `build` is a module or makes none, or one that cannot be a pure function: see `metapl.nn.admission`.
    """
    with rng.seeded(rng.key(0)):
        module = require_pure(build)
    skeleton = Skeleton(module, _replacement)
    frozen = [name for name, trained in skeleton.trained.items() if not trained]
    noisy = [place for place, kind in enumerate(skeleton.kinds) if kind is dropout.Dropout]
    clipped = _clipped(module)
    scales, coupled, spread = _scales(module), _coupled(module), _spread(module)
    statistics = batching.statistics(module)
    start = getattr(module, "from_class_means", None)
    del module  # its tensors are not needed

    def apply(
        params: Params, buffers: Buffers, x: Any, *, train: bool, key: Key | None = None, rows: Tensor | None = None
    ) -> tuple[Any, Buffers]:
        rng.require_one(key)
        rows = _whole(rows)
        # Cloned here, inside whatever transform is running: a transform refuses to mutate what it captured.
        carried = {
            name: value.detach() if name in skeleton.trained else value.detach().clone()
            for name, value in buffers.items()
        }
        if train and statistics:
            own = {name: value for name, value in carried.items() if name in statistics}
            carried |= batching.batched_as(own, (params, x))
        kept = {**params, **{name: carried[name] for name in frozen if name in carried}}
        state = {**params, **carried}
        if clipped and train:
            raise InputError(_CLIPS.format(name=clipped[0]))
        state |= {name: state[name].clone() for name in clipped if name in state}
        parts = skeleton.instance(state, train=train)
        positional, named = spread(x)
        noise = dropout.keyed_by([parts[place] for place in noisy], key, rows)
        with batching.explained(), _written(kept), _drawn(key, rows), noise:
            logits = parts[0](*positional, **named)
        _require_unchanged(skeleton, parts, {name: state[name] for name in kept})
        # Copies, as far as they may be written on: a part that is run again on the way back writes on its instance's.
        after = {name: skeleton.tensor(parts, name).detach() for name in buffers}
        return logits, {name: value if name in skeleton.trained else value.clone() for name, value in after.items()}

    return Model(partial(_initial, build, frozen), apply, scales, coupled, frozenset(frozen), start)


def _initial(build: Callable[[], nn.Module], frozen: Sequence[str], key: Key) -> tuple[Params, Buffers]:
    """Parameters and buffers of a new module; those of the frozen names are buffers."""
    with rng.seeded(key):
        fresh = build()
    named = {name: value.detach().clone() for name, value in fresh.named_parameters()}
    buffers = {name: value.detach().clone() for name, value in fresh.named_buffers()}
    buffers |= {name: named.pop(name) for name in frozen}
    return named, buffers


def _replacement(module: nn.Module) -> nn.Module:
    return padding.kept(weight_norm.written_out(dropout.keyed(module)))


_part: ContextVar[Tensor | None] = ContextVar("part", default=None)


@contextmanager
def part_of_batch(rows: Tensor) -> Iterator[None]:
    """Within the block every pass is of these examples `[part]` of a larger batch, and has the noise of that batch."""
    token = _part.set(rows)
    try:
        yield
    finally:
        _part.reset(token)


def _whole(rows: Tensor | None) -> Tensor | None:
    """The rows of a pass within the part of a batch that is passed at all."""
    part = None if torch.compiler.is_compiling() else _part.get()
    return rows if part is None else part if rows is None else part[rows]


@contextmanager
def _drawn(key: Key | None, rows: Tensor | None) -> Iterator[None]:
    """What draws from torch's generator finds it seeded with the key; without a key, and nothing may draw."""
    if key is not None:
        with rng.seeded(key if rows is None else rng.fold_in(key, rows[0])):
            yield
        return
    before = None if torch.compiler.is_compiling() else torch.default_generator.get_state()
    yield
    if before is not None and not torch.equal(before, torch.default_generator.get_state()):
        raise InputError("forward draws from torch's generator, which needs a key: call apply(…, key=key)")


@contextmanager
def _written(tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Refuse a pass that writes on these, in place or through `.data`."""
    before = {} if torch.compiler.is_compiling() else {name: _content(value) for name, value in tensors.items()}
    yield
    for name, content in before.items():
        if _content(tensors[name]) != content:
            raise InputError(_WRITES.format(name=name))


def _require_unchanged(skeleton: Skeleton, parts: Sequence[nn.Module], tensors: Mapping[str, Tensor]) -> None:
    """Refuse a pass that has put others in the place of these tensors, or changed a plain attribute."""
    replaced = next((name for name, value in tensors.items() if skeleton.tensor(parts, name) is not value), None)
    if replaced:
        raise InputError(_WRITES.format(name=replaced))
    changed = skeleton.changed(parts)
    if changed:
        raise InputError(
            f"forward changes the attribute {changed} of the module, which a pure function forgets: "
            "make it a buffer (self.register_buffer)"
        )


_WRITES = (
    "forward writes on the parameter {name}, in place or by replacing it, which a pure function cannot: "
    "compute a new tensor, or make it a buffer"
)


def _content(tensor: Tensor) -> tuple[int, int | None]:
    """Which memory a tensor has, and how often it was written on, under the wrappers of any transform."""
    bare = torch_private.unwrap(tensor)
    return bare.untyped_storage().data_ptr(), None if bare.is_inference() else bare._version


Spread = Callable[[Any], tuple[tuple[Any, ...], dict[str, Any]]]
"""From the input of a pass to the arguments of the module."""


def _spread(module: nn.Module) -> Spread:
    """How the input of `apply` becomes the arguments of forward."""
    try:
        parameters = tuple(inspect.signature(module.forward).parameters.values())
    except ValueError:  # a forward that is not written in Python
        parameters = ()
    places = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    several = sum(one.default is one.empty for one in places) > 1
    names = {one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}

    def spread(x: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if isinstance(x, tuple) and several:
            return x, {}
        if isinstance(x, dict) and x and names.issuperset(x):
            return (), x
        return (x,), {}

    return spread


_CLIPS = (
    "{name} is changed by every pass (max_norm), which a pure function cannot train: leave max_norm out and clip the "
    "rows that it returns"
)


def _clipped(module: nn.Module) -> list[str]:
    """The weights of embeddings with a largest norm: torch scales their rows in place whenever they are looked up."""
    return [
        f"{prefix}.weight" if prefix else "weight"
        for prefix, part in module.named_modules()
        if isinstance(part, nn.Embedding | nn.EmbeddingBag) and part.max_norm is not None
    ]


NORMALISATION = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
"""The layers whose weights are scales."""


def _scales(module: nn.Module) -> frozenset[str]:
    return frozenset(
        f"{prefix}.{name}" if prefix else name
        for prefix, part in module.named_modules()
        if isinstance(part, NORMALISATION)
        for name, _ in part.named_parameters(recurse=False)
    )


def _coupled(module: nn.Module) -> bool:
    return any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules())


def cast(model: Model, dtype: torch.dtype) -> Model:
    """The same model with its parameters and buffers initialised in another floating-point dtype."""

    def init(key: Key) -> tuple[Params, Buffers]:
        return tree.to(model.init(key), dtype)

    return model._replace(init=init)
