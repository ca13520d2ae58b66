"""Values that count as constants: written down in one run of a module, and handed out in another."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree

STOPS = (Tensor.detach, torch.detach, Tensor.detach_, Tensor.data.__get__)
NUMBERS = (Tensor.item, Tensor.__float__, Tensor.tolist)


class Held(TorchFunctionMode):
    """Writes down what is computed without a gradient, or hands out what another run wrote down."""

    def __init__(self, written: list[Any], *, replay: bool) -> None:
        super().__init__()
        self.written, self.replay, self.place = written, replay, 0

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        stopped = not torch.is_grad_enabled() or func in STOPS
        out = func(*args, **kwargs)
        if func in NUMBERS:
            return self._same(out)
        if not stopped:
            return out
        if func is Tensor.__setitem__:
            self._write(args[0])
            return out
        name = getattr(func, "__name__", "")
        written_to = "out" in kwargs or (name.endswith("_") and not name.endswith("__")) or name.startswith("__i")
        inputs = [leaf for leaf in _pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]

        def held(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            # What is a part of a tensor without a gradient may be written to next: it has to stay that part.
            carried = any(leaf is one or _shares(leaf, one) for one in inputs if not one.requires_grad)
            return self._write(leaf) if written_to or carried else self._same(leaf)

        return _pytree.tree_map(held, out)

    def _next(self, value: Any) -> Any:
        if not self.replay:
            self.written.append(value.detach().clone() if isinstance(value, Tensor) else value)
        self.place += 1
        return self.written[self.place - 1]

    def _same(self, value: Any) -> Any:
        with torch._C.DisableTorchFunction():
            kept = self._next(value)
            return value if not self.replay else kept.clone() if isinstance(kept, Tensor) else kept

    def _write(self, value: Tensor) -> Tensor:
        with torch._C.DisableTorchFunction(), torch.no_grad():
            kept = self._next(value)
            # Not where nothing differs: autograd may have kept the tensor, and minds the writing.
            return value if not self.replay or torch.equal(value, kept) else value.copy_(kept)


def _shares(a: Tensor, b: Tensor) -> bool:
    return a.layout == b.layout == torch.strided and a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()
