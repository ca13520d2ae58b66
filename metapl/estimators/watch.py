"""What a network does to its gradients that is not the derivative of what it computes."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.overrides import TorchFunctionMode

from metapl.core import autodiff
from metapl.core.types import Buffers, Params, Problem, PyTree
from metapl.registry.errors import InputError


class Watch(TorchFunctionMode):
    """Finds out, while a network is passed and autograd records, about its hooks and its autograd functions.

    A hook on a tensor may look at a gradient, and is refused if it changes it. The backward of an `autograd.Function`
    may be another function's derivative too, which forward mode does not see.
    """

    def __init__(self) -> None:
        super().__init__()
        self.functions = False

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is Tensor.register_hook:
            tensor, hook = args
            args = (tensor, autodiff.observing(hook))
        return func(*args, **(kwargs or {}))

    def watching(self, problem: Problem) -> Problem:
        """The same problem with its inner loss watched."""

        def inner(params: Params, buffers: Buffers, targets: PyTree, batch: PyTree) -> tuple[Tensor, Buffers]:
            with self:
                losses, buffers = problem.inner(params, buffers, targets, batch)
            found = any(isinstance(node, BackwardCFunction) for node in autodiff.nodes([losses]))
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
