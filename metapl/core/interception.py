"""A function around every operation of torch, within a block: to watch what is called, or to change it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.overrides import TorchFunctionMode

Around = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""`around(func, args, kwargs)`: what the call of `func` returns in its place."""


class Interception(TorchFunctionMode):
    """Within `with Interception(around):` each call of a torch function on tensors goes through `around`."""

    def __init__(self, around: Around) -> None:
        super().__init__()
        self.around = around

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return self.around(func, args, kwargs or {})
