"""What a network does to its gradients that is not the derivative of what it computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from metapl.core import autodiff, torch_private
from metapl.core.interception import Interception
from metapl.core.types import Buffers, Params, Problem, PyTree
from metapl.registry.errors import InputError


def watching_hooks() -> Interception:
    """Within the block a hook on a tensor may look at a gradient, and is refused if it changes it."""
    return Interception(_watch)


def _watch(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if func is Tensor.register_hook:
        tensor, hook = args
        args = (tensor, autodiff.observing(hook))
    return func(*args, **kwargs)


class Watch:
    """Finds out, while a network is passed and autograd records, about its hooks and its autograd functions.

    The backward of an `autograd.Function` may be another function's derivative, which forward mode does not see.
    """

    def __init__(self) -> None:
        self.functions = False

    def watching(self, problem: Problem) -> Problem:
        """The same problem with its inner loss watched."""

        def inner(params: Params, buffers: Buffers, targets: PyTree, batch: PyTree) -> tuple[Tensor, Buffers]:
            with watching_hooks():
                losses, buffers = problem.inner(params, buffers, targets, batch)
            found = any(map(torch_private.is_function, autodiff.nodes([losses])))
            self.functions = self.functions or found
            return losses, buffers

        return problem._replace(inner=inner)

    def require_forward(self, what: str) -> None:
        """Refuse a network that only reverse mode is right for."""
        if self.functions:
            raise InputError(
                f"{what} goes by forward mode, which does not see what this network's autograd functions have for a "
                "backward: use exact()"
            )
