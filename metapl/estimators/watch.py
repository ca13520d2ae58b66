"""What a network does to its gradients that is not the derivative of what it computes."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.overrides import TorchFunctionMode

from metapl import gradients
from metapl.errors import InputError
from metapl.types import Buffers, Params, Problem, PyTree


class Watch(TorchFunctionMode):
    """Finds out, while a network is passed and autograd records, about its hooks and its autograd functions.

    A hook, on a tensor or of a module, and the backward of an `autograd.Function` may be another function's derivative,
    which forward mode does not see. A hook runs again whenever something goes back through where it is, so that second
    derivatives in the parameters are wrong.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hooked = self.functions = False

    @property
    def reverse_only(self) -> bool:
        """Whether only reverse mode sees what the network does."""
        return self.hooked or self.functions

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        self.hooked = self.hooked or func is Tensor.register_hook
        return func(*args, **(kwargs or {}))

    def watching(self, problem: Problem) -> Problem:
        """The same problem with its inner loss watched."""

        def inner(params: Params, buffers: Buffers, targets: PyTree, batch: PyTree) -> tuple[Tensor, Buffers]:
            with self:
                losses, buffers = problem.inner(params, buffers, targets, batch)
            kinds = {type(node) for node in gradients.nodes([losses]) if isinstance(node, BackwardCFunction)}
            self.functions = self.functions or bool(kinds)
            # A full hook of a module is made of one.
            self.hooked = self.hooked or any(kind.__name__ == "BackwardHookFunctionBackward" for kind in kinds)
            return losses, buffers

        return problem._replace(inner=inner)

    def require_forward(self, what: str) -> None:
        """Refuse a network that only reverse mode is right for."""
        if self.reverse_only:
            raise InputError(
                f"{what} goes by forward mode, which does not see this network's hooks or autograd functions: "
                "use exact()"
            )

    def require_unhooked(self) -> None:
        """Refuse a network with hooks, where second derivatives in its parameters are wanted."""
        if self.hooked:
            raise InputError(
                "the network has hooks on its gradients, which run again on the way back through its steps: "
                "take one step, or an estimator without second derivatives, difference() or first_order()"
            )
