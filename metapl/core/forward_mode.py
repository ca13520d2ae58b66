"""Forward mode that stops where reverse mode does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from metapl.core import autodiff, torch_private, tree
from metapl.core.interception import Interception
from metapl.core.types import PyTree
from metapl.registry.errors import InputError


def jvp(fn: Callable[..., PyTree], at: Sequence[PyTree], along: Sequence[PyTree]) -> tuple[PyTree, PyTree]:
    """`torch.func.jvp` that stops where reverse mode does: the output at `at`, and its derivative along `along`.

    Forward mode of torch goes through `torch.no_grad`, which reverse mode does not, so that the two are derivatives of
    different functions; `detach` stops both. Here what is computed under `no_grad` is a constant to both.

    Raises:
        InputError: `fn` writes to `.data`, has an `autograd.Function`, whose backward may be another function's, or an
            operation without forward mode. Reverse mode takes it. Hooks on gradients are not seen here.
    """

    def stopped(*values: PyTree) -> PyTree:
        # Enabled, because what the caller is not going to differentiate may be around it.
        with torch.enable_grad(), Interception(_stop):
            return fn(*values)

    torch_private.load_forward_formulas()
    primals, tangents = tuple(at), tuple(along)
    try:
        found: Any = torch.func.jvp(stopped, primals, tangents)
    except (RuntimeError, NotImplementedError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"forward mode cannot take this function ({reason}): take exact(), or method='replay'"
        ) from error
    output, derivative = found
    return output, derivative


_DATA = Tensor.data.__get__  # type: ignore[attr-defined]
_REVERSE_ONLY = (Tensor.register_post_accumulate_grad_hook, Tensor.data.__set__)  # type: ignore[attr-defined]


def _stop(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Detach what goes into an operation under `torch.no_grad`, and so what comes out of it.

    What such an operation writes in place keeps its derivative, as it does in reverse mode.
    """
    if func is Tensor.register_hook:
        tensor, hook = args
        args = (tensor, autodiff.observing(hook))
    is_own = func is torch_private.custom_function_call and not torch_private.has_forward_mode(args[0])
    if func in _REVERSE_ONLY or (is_own and torch.is_grad_enabled()):
        raise NotImplementedError("it does not see writing to .data and autograd functions")
    if func == _DATA:  # made anew at every access, so that `is` would not do
        (tensor,) = args
        return tensor.detach()
    if torch.is_grad_enabled():
        return func(*args, **kwargs)
    inputs, structure = tree.flatten((args, kwargs))
    stopped = [leaf.detach() if isinstance(leaf, Tensor) else leaf for leaf in inputs]
    args, kwargs = tree.unflatten(stopped, structure)
    found = func(*args, **kwargs)
    given = dict(zip(map(id, stopped), inputs, strict=True))
    return tree.map(lambda leaf: given.get(id(leaf), leaf), found)
