"""Gradients that nobody differentiates again.

`torch.func.grad` always records a graph for a second derivative: 1.3 times the time and 1.7 times the memory of
a plain backward pass on a wide ResNet. Where the result is data, these helpers use `torch.autograd` on detached
leaves instead, and return detached values. They are pure: the leaves are fresh, no `.grad` is written.

`torch.autograd` does not work inside a `torch.func` transform, such as `torch.vmap` over draws or seeds. There the
helpers go by `torch.func.vjp`, and return the same.

`jvp` is forward mode that stops where reverse mode does: see there.
"""

from __future__ import annotations

import functools
import importlib
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._functorch.autograd_function import custom_function_call
from torch.overrides import TorchFunctionMode

from metapl.core import tree
from metapl.core.types import PyTree
from metapl.registry.errors import InputError


def transforming() -> bool:
    """Whether a `torch.func` transform is running. Torch itself needs to know and has no public way to say it."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def across_vmap(tensors: Sequence[Any]) -> bool:
    """Whether a `torch.vmap` is running inside of something that is differentiated.

    That is a transform, or autograd through one of the tensors. The gradient of a weight of BatchNorm, LayerNorm or
    InstanceNorm that is taken inside of such a vmap has a wrong derivative, without an error (torch 2.13); taken the
    other way round it is right.
    """
    stack = torch._C._functorch.get_interpreter_stack() or []
    kinds = [level.key() for level in stack]
    if _KIND.Vmap not in kinds:
        return False
    innermost = len(kinds) - 1 - kinds[::-1].index(_KIND.Vmap)
    if any(kind in (_KIND.Grad, _KIND.Jvp) for kind in kinds[:innermost]):
        return True
    return torch.is_grad_enabled() and any(bare(tensor).requires_grad for tensor in tensors)


_KIND = torch._C._functorch.TransformType


def bare(tensor: Tensor) -> Tensor:
    """A tensor without the wrappers of any transform."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor


def alive(tensors: Sequence[Any]) -> list[Any]:
    """The tensors without the wrappers of transforms that have ended.

    The way back of `torch.func.vjp`, and so of `jacrev`, runs after its transform: what an `autograd.Function` saved
    there is still wrapped, and `torch.autograd` finds no derivative in it.
    """
    found = []
    for tensor in tensors:
        inside, bare = None, tensor
        while isinstance(bare, Tensor) and bare is not inside:
            inside, bare = bare, torch._C._functorch.unwrap_if_dead(bare)
        found.append(bare)
    return found


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_(tree.differentiable(tensor))


def _detach(value: PyTree) -> PyTree:
    return tree.map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, value)


def vjp(
    fn: Callable[[PyTree], tuple[PyTree, PyTree]], at: PyTree, *, keep: bool = False
) -> tuple[PyTree, PyTree, Callable]:
    """Evaluate `fn(at) -> (output, aux)` and keep the way back.

    Returns:
        The output and aux, detached, and `pull(cotangent)`, which returns the gradient of ⟨output, cotangent⟩ with
        respect to `at` (zeros where `fn` does not depend on it). `pull` can be called once: it frees the graph, unless
        that is to be kept.
    """
    return (_transformed if transforming() else _recorded)(fn, at, keep)


def _recorded(fn: Callable[[PyTree], tuple[PyTree, PyTree]], at: PyTree, keep: bool) -> tuple[PyTree, PyTree, Callable]:
    with torch.enable_grad():
        leaves = tree.map(_leaf, at)
        output, aux = fn(leaves)

    def pull(cotangent: PyTree) -> PyTree:
        inputs, structure = tree.flatten(leaves)
        wanted = [leaf for leaf in inputs if leaf.requires_grad]
        all_outputs, form = tree.flatten(output)
        outputs = [leaf for leaf in all_outputs if leaf.requires_grad]
        arriving = form.flatten_up_to(cotangent)  # by name, whatever the order of a dict
        cotangents = [c for c, leaf in zip(arriving, all_outputs, strict=True) if leaf.requires_grad]
        if outputs:
            asked: Any = {"retain_graph": keep, "allow_unused": True, "materialize_grads": True}
            found = iter(torch.autograd.grad(outputs, wanted, cotangents, **asked))
        else:
            found = iter(torch.zeros_like(leaf) for leaf in wanted)
        grads = [next(found) if leaf.requires_grad else torch.zeros_like(leaf) for leaf in inputs]
        return tree.unflatten(grads, structure)

    return _detach(output), _detach(aux), pull


def _transformed(
    fn: Callable[[PyTree], tuple[PyTree, PyTree]], at: PyTree, _keep: bool
) -> tuple[PyTree, PyTree, Callable]:
    inputs, structure = tree.flatten(at)
    moving = [index for index, leaf in enumerate(inputs) if tree.differentiable(leaf)]

    form: list[Any] = []  # the structure, and what torch.func takes no derivative of: integers, strings

    def moved(*leaves: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        full = list(inputs)
        for index, leaf in zip(moving, leaves, strict=True):
            full[index] = leaf
        output, aux = fn(tree.unflatten(full, structure))
        out, told = tree.flatten(output), tree.flatten(aux)
        form[:] = [out, told]
        return (
            tuple(leaf for leaf in out[0] if tree.differentiable(leaf)),
            tuple(leaf for leaf in (*out[0], *told[0]) if isinstance(leaf, Tensor)),
        )

    result: Any = torch.func.vjp(moved, *(inputs[index].detach() for index in moving), has_aux=True)
    back, bare = result[1], iter(result[2])
    (out, out_structure), (told, aux_structure) = form
    smooth = [tree.differentiable(leaf) for leaf in out]
    output = tree.unflatten([next(bare) for _ in out], out_structure)
    aux = tree.unflatten([next(bare) if isinstance(leaf, Tensor) else leaf for leaf in told], aux_structure)

    def pull(cotangent: PyTree) -> PyTree:
        grads = [torch.zeros_like(leaf) for leaf in inputs]
        arriving = zip(out_structure.flatten_up_to(cotangent), smooth, strict=True)
        for index, grad in zip(moving, back(tuple(c for c, is_smooth in arriving if is_smooth)), strict=True):
            grads[index] = grad.detach()
        return tree.unflatten(grads, structure)

    return _detach(output), _detach(aux), pull


def value_and_grad(fn: Callable[[PyTree], tuple[Tensor, PyTree]], at: PyTree) -> tuple[Tensor, PyTree, PyTree]:
    """The value, aux and gradient at `at` of `fn(at) -> (scalar, aux)`, all detached."""
    value, aux, pull = vjp(fn, at)
    return value, aux, pull(torch.ones_like(value))


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
        with torch.enable_grad(), _Stopped():
            return fn(*values)

    _load_formulas()
    primals, tangents = tuple(at), tuple(along)
    try:
        found: Any = torch.func.jvp(stopped, primals, tangents)
    except (RuntimeError, NotImplementedError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"forward mode cannot take this function ({reason}): take exact(), or method='replay'"
        ) from error
    return found


_LACKING = re.compile(r"(?:the )?derivative for '?([\w:]+)'? is not implemented")
_REMEDIES = {
    "saved tensor hooks": "torch.utils.checkpoint does not work inside of torch.func: take exact() or unroll()",
    "must override the setup_context": "an autograd function without setup_context does not work inside of torch.func: "
    "take exact() or unroll()",
    "use_reentrant=True": "torch.utils.checkpoint(use_reentrant=True) is for .backward() alone: use_reentrant=False",
}


@contextmanager
def explained() -> Iterator[None]:
    """Say in one line what to do where torch cannot take a derivative, such as the second one of flash attention."""
    try:
        yield
    except (RuntimeError, NotImplementedError) as error:
        text = str(error)
        lacking = _LACKING.search(text)
        remedy = next((remedy for mark, remedy in _REMEDIES.items() if mark in text), None)
        if lacking:
            attention = "scaled_dot_product" in lacking[1]
            kernel = "; or attention within torch.nn.attention.sdpa_kernel(SDPBackend.MATH)" if attention else ""
            remedy = (
                f"torch lacks the second derivative of {lacking[1]}: take an estimator that needs none, difference() "
                f"or first_order(){kernel}"
            )
        if remedy is None:
            raise
        raise InputError(remedy) from error


def require_twice(grads: Iterable[Tensor]) -> None:
    """Refuse gradients that are cut off from what they depend on by an `autograd.Function` of one derivative.

    `once_differentiable` leaves an error for who differentiates again, on a branch that the way back to other
    arguments never meets: their derivative would be wrong without it.
    """
    if any(type(node).__name__ == "Error" for node in nodes(grads)):  # torch has no public name for it
        raise InputError(
            "the network has an autograd function that is once_differentiable: take an estimator that needs no second "
            "derivative, difference() or first_order()"
        )


@functools.cache
def _load_formulas() -> None:
    """Load torch's formulas of forward mode, which it would do at the first use, warning of what it calls there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("torch._decomp.decompositions_for_jvp")


def observing(hook: Callable[[Tensor], Tensor | None]) -> Callable[[Tensor], None]:
    """A hook on a gradient that may look at it, and raises an `InputError` if it changes it.

    What it makes of a gradient is no derivative, and it would run again whenever something goes back through its place.
    """

    def checked(grad: Tensor) -> None:
        if hook(grad) is not None:
            raise InputError("a hook of the network changes a gradient, which is no derivative then: remove the hook")

    return checked


class _Stopped(TorchFunctionMode):
    """Detaches what goes into an operation under `torch.no_grad`, and so what comes out of it.

    What such an operation writes in place keeps its derivative, as it does in reverse mode.
    """

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is Tensor.register_hook:
            args = (args[0], observing(args[1]))
        if func in _REVERSE_ONLY or (func is custom_function_call and torch.is_grad_enabled()):
            raise NotImplementedError("it does not see writing to .data and autograd functions")
        if func == _DATA:  # made anew at every access, so that `is` would not do
            return args[0].detach()
        if torch.is_grad_enabled():
            return func(*args, **(kwargs or {}))
        inputs, structure = tree.flatten((args, kwargs or {}))
        stopped = [leaf.detach() if isinstance(leaf, Tensor) else leaf for leaf in inputs]
        args, kwargs = tree.unflatten(stopped, structure)
        found = func(*args, **kwargs)
        given = {id(new): old for new, old in zip(stopped, inputs, strict=True) if isinstance(new, Tensor)}
        return tree.map(lambda leaf: given.get(id(leaf), leaf), found)


_DATA = Tensor.data.__get__  # type: ignore[attr-defined]
_REVERSE_ONLY = (Tensor.register_post_accumulate_grad_hook, Tensor.data.__set__)  # type: ignore[attr-defined]


def nodes(outputs: Iterable[Tensor]) -> list[Any]:
    """The nodes of the graph that autograd has recorded for these tensors."""
    waiting: list[Any] = [output.grad_fn for output in outputs if output.grad_fn is not None]
    seen = set(waiting)
    found = []
    while waiting:
        node = waiting.pop()
        found.append(node)
        fresh = {after for after, _ in node.next_functions if after is not None} - seen
        seen |= fresh
        waiting += fresh
    return found
