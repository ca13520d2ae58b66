"""Check that the weights in a file belong to the network that the file names, before it takes memory or time.

A few words can name a network of any size. So the network is first built without storage, and no further than the
number of weights allows. Then its tensors are compared with the weights by name, shape and type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from metapl import methods, models
from metapl.core import rng
from metapl.core.types import Variables
from metapl.data.form import Form
from metapl.registry import notation
from metapl.registry.errors import InputError
from metapl.training import architectures
from metapl.training.config import TrainConfig

LARGEST = 10_000
"""The value that an option may always have, even if there are fewer weights."""

REMADE = 4
"""How often a network may register a parameter anew, which parametrisations do."""


def require_network(name: str, network: Variables, config: TrainConfig, form: Form, where: str) -> None:
    """As `require`, for a network of a run by its name, with the configuration of the run.

    Raises:
        InputError: as `require`.
    """
    tensors = {key: value for kind in network._asdict().values() for key, value in kind.items()}
    known = {**methods.networks(), **architectures.networks(config)}[name]
    for prefix, field in reversed([*known.built_from.items()]):  # the calibrator first: it is the cheaper one to refuse
        own = _below(prefix, tensors)
        text = architectures.text(config, field, own)
        if field == "calibrator":
            require_built(architectures.build_calibrator(config, form), own, f"{where}: calibrator {text!r}", "meta")
        else:
            require(text, form, own, where, finish=architectures.partly_trained(config, field))


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def require(
    text: str,
    form: Form,
    tensors: Mapping[str, Tensor],
    where: str,
    persistent: bool = False,
    finish: Callable[[nn.Module], nn.Module] = lambda module: module,
) -> None:
    """Compare the network that `models.build` makes of a text with its weights.

    Networks from other packages are built with storage: their code is trusted, or they would not be imported.

    Args:
        text: the network's.
        form: of its inputs.
        tensors: the weights.
        where: they are from.
        persistent: whether they are a `state_dict`, with every name of a tied weight, and not all tensors, each once.
        finish: what is made of the module before it is compared.

    Raises:
        InputError: it is another one.
    """
    numbers = sum(value.numel() for value in tensors.values())
    outside = text.partition(":")[0] in models.KINDS
    if not outside:
        _, options = notation.parse(text, models.KNOWN, "model")
        for name, value in options.items():
            if isinstance(value, int | float) and abs(value) > max(LARGEST, numbers):
                raise InputError(f"{where}: model {text!r} cannot be that of its weights: {name} is beyond their size")

    def build() -> nn.Module:
        return finish(models.build(text, form.shape, len(form.classes)))

    require_built(build, tensors, f"{where}: model {text!r}", "cpu" if outside else "meta", persistent)


def require_built(
    build: Callable[[], nn.Module], tensors: Mapping[str, Tensor], what: str, device: str, persistent: bool = False
) -> None:
    """As `require`, for any way to build it.

    Raises:
        InputError: it is another one, or cannot be built.
    """
    try:
        with _at_most(REMADE * (len(tensors) + 1), what), rng.seeded(rng.key(0)), torch.device(device):
            module = build()
    except InputError:
        raise
    except (RuntimeError, ValueError, TypeError, OverflowError, MemoryError) as error:  # such as sizes beyond 64 bits
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{what} cannot be built ({reason}): is the run damaged?") from None
    named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    built: dict[str, Tensor] = module.state_dict() if persistent else named
    wrong = [name for name in {**tensors, **built} if not _alike(tensors.get(name), built.get(name))]
    if wrong:
        raise InputError(f"{what} has other tensors than its weights, such as {wrong[0]!r}: is the run damaged?")


def _alike(one: Tensor | None, other: Tensor | None) -> bool:
    return one is not None and other is not None and (one.shape, one.dtype) == (other.shape, other.dtype)


@contextmanager
def _at_most(parameters: int, what: str) -> Iterator[None]:
    """Raise an error as soon as more parameters than this are registered."""
    made = 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        del module, name, parameter
        nonlocal made
        made += 1
        if made > parameters:
            raise InputError(f"{what} has far more parameters than its weights: is the run damaged?")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()
