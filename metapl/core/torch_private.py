"""The names of torch that are not public, and that metapl cannot do without. No other file uses one.

Torch says nowhere in public whether a transform runs, what a tensor is wrapped in, or which node of a graph belongs to
an `autograd.Function`. `NAMES` lists what is used, and a test says which of them a new version of torch has moved.
"""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._functorch.autograd_function import custom_function_call
from torch.autograd.function import BackwardCFunction
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import TensorWeakRef

__all__ = [
    "NAMES",
    "TensorWeakRef",
    "TorchDispatchMode",
    "across_vmap",
    "compiler",
    "compiler_errors",
    "custom_function_call",
    "has_forward_mode",
    "inside_forward_mode",
    "inside_transform",
    "inside_vmap",
    "is_batched",
    "is_function",
    "is_once_differentiable",
    "is_wrapped",
    "load_forward_formulas",
    "pytree",
    "saved_by_hooks",
    "unwrap",
    "unwrap_dead",
    "why_compiled_again",
]

NAMES = (
    "torch._C._autograd._top_saved_tensors_default_hooks",
    "torch._C._functorch.TransformType.Vmap",
    "torch._C._functorch.TransformType.Grad",
    "torch._C._functorch.TransformType.Jvp",
    "torch._C._functorch.get_interpreter_stack",
    "torch._C._functorch.get_unwrapped",
    "torch._C._functorch.is_batchedtensor",
    "torch._C._functorch.is_functorch_wrapped_tensor",
    "torch._C._functorch.peek_interpreter_stack",
    "torch._C._functorch.unwrap_if_dead",
    "torch._decomp.decompositions_for_jvp",
    "torch._dynamo.exc.FailOnRecompileLimitHit",
    "torch._dynamo.exc.TorchDynamoException",
    "torch._dynamo.lookup_backend",
    "torch._dynamo.utils.get_compilation_metrics",
    "torch._functorch.autograd_function.custom_function_call",
    "torch.autograd.function.BackwardCFunction",
    "torch.utils._python_dispatch.TorchDispatchMode",
    "torch.utils._pytree.keystr",
    "torch.utils._pytree.tree_flatten",
    "torch.utils._pytree.tree_flatten_with_path",
    "torch.utils._pytree.tree_leaves",
    "torch.utils._pytree.tree_map",
    "torch.utils._pytree.tree_unflatten",
    "torch.utils.weak.TensorWeakRef",
)
"""All of them, from where they are imported."""

_functorch: Any = torch._C._functorch


def inside_transform() -> bool:
    """Whether a `torch.func` transform is running; or `torch.compile`, which traces these and not `torch.autograd`."""
    if torch.compiler.is_compiling():
        return True
    return _functorch.peek_interpreter_stack() is not None


def inside_vmap() -> bool:
    """Whether a `torch.vmap` is among the transforms that are running; `torch.compile` does not say."""
    if torch.compiler.is_compiling():
        return False
    levels = _functorch.get_interpreter_stack() or []
    return any(level.key() == _functorch.TransformType.Vmap for level in levels)


def inside_forward_mode() -> bool:
    """Whether forward mode is among the transforms that are running; `torch.compile` does not say."""
    if torch.compiler.is_compiling():
        return False
    levels = _functorch.get_interpreter_stack() or []
    return any(level.key() == _functorch.TransformType.Jvp for level in levels)


def is_wrapped(tensor: Tensor) -> bool:
    """Whether a tensor belongs to a transform: one that differentiates it, or that batches it."""
    return bool(_functorch.is_functorch_wrapped_tensor(tensor))


def unwrap(tensor: Tensor) -> Tensor:
    """A tensor without the wrappers of any transform."""
    while is_wrapped(tensor):
        tensor = _functorch.get_unwrapped(tensor)
    return tensor


def is_batched(tensor: Tensor) -> bool:
    """Whether `torch.vmap` goes over a tensor, by itself or inside of others; `torch.compile` does not say."""
    if torch.compiler.is_compiling():
        return False
    while is_wrapped(tensor):
        if _functorch.is_batchedtensor(tensor):
            return True
        tensor = _functorch.get_unwrapped(tensor)
    return False


def unwrap_dead(tensors: Sequence[Any]) -> list[Any]:
    """The tensors without the wrappers of transforms that have ended.

    The way back of `torch.func.vjp`, and so of `jacrev`, runs after its transform: what an `autograd.Function` saved
    there is still wrapped, and `torch.autograd` finds no derivative in it.
    """
    found = []
    for tensor in tensors:
        inside, bare = None, tensor
        while isinstance(bare, Tensor) and bare is not inside:
            inside, bare = bare, _functorch.unwrap_if_dead(bare)
        found.append(bare)
    return found


def across_vmap(tensors: Sequence[Any]) -> bool:
    """Whether a `torch.vmap` is running inside of something that is differentiated.

    That is a transform, or autograd through one of the tensors. The gradient of a weight of BatchNorm, LayerNorm or
    InstanceNorm that is taken inside of such a vmap has a wrong derivative, without an error (torch 2.13); taken the
    other way round it is right. `torch.compile` does not say.
    """
    if torch.compiler.is_compiling():
        return False
    kinds = [level.key() for level in _functorch.get_interpreter_stack() or []]
    kind = _functorch.TransformType
    if kind.Vmap not in kinds:
        return False
    innermost = kinds[::-1].index(kind.Vmap)  # counted from the end, where the inner ones are
    if any(outer in (kind.Grad, kind.Jvp) for outer in kinds[: len(kinds) - innermost]):
        return True
    return torch.is_grad_enabled() and any(unwrap(tensor).requires_grad for tensor in tensors)


def is_function(node: Any) -> bool:
    """Whether a node of a graph is the backward of an `autograd.Function`, but for those that forward mode sees too."""
    return isinstance(node, BackwardCFunction) and not has_forward_mode(getattr(node, "_forward_cls", None))


def has_forward_mode(function: Any) -> bool:
    """Whether an `autograd.Function` has the derivative of its forward in its `jvp`, and says so by an attribute."""
    return bool(getattr(function, "differentiable_forward", False))


def is_once_differentiable(node: Any) -> bool:
    """Whether a node is the error that `once_differentiable` leaves for a second derivative."""
    return type(node).__name__ == "Error"


def saved_by_hooks() -> bool:
    """Whether what autograd saves is given to hooks, as `torch.utils.checkpoint` has it, which saves nothing."""
    return torch._C._autograd._top_saved_tensors_default_hooks(True) is not None


@functools.cache
def load_forward_formulas() -> None:
    """Load torch's formulas of forward mode, which it would do at the first use, warning of what it calls there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("torch._decomp.decompositions_for_jvp")


def compiler(name: str) -> Callable[..., Any]:
    """What makes code of a graph for `torch.compile(backend=…)`, by name, for whoever counts the graphs."""
    found: Callable[..., Any] = importlib.import_module("torch._dynamo").lookup_backend(name)
    return found


def compiler_errors() -> tuple[type[Exception], ...]:
    """What `torch.compile` raises where it cannot make a graph or code of it, or has made too many."""
    errors = importlib.import_module("torch._dynamo.exc")
    return errors.TorchDynamoException, errors.FailOnRecompileLimitHit


def why_compiled_again() -> str:
    """The guard that has failed when something was last compiled, in torch's words; empty if it does not say."""
    found = importlib.import_module("torch._dynamo.utils").get_compilation_metrics()
    return (found[-1].recompile_reason or "") if found else ""
