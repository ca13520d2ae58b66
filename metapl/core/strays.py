"""Tensors that a step depends on and that nobody has found in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from metapl.core import tree
from metapl.core.autodiff import nodes
from metapl.core.interception import Interception
from metapl.registry.errors import InputError


def require_all_found(outputs: Sequence[Tensor], again: Callable[[], object], known: Sequence[Tensor]) -> None:
    """Refuse a step that depends on a tensor which requires a gradient and is none of the known ones.

    Leaves of the graph that a step has made itself, to take a gradient, are told apart by their storage or, if they
    have one of their own, by running the step once more and watching what it makes.
    """
    places = {leaf.untyped_storage().data_ptr() for leaf in known if isinstance(leaf, Tensor)}
    strange = [leaf for leaf in _leaves(outputs) if leaf.untyped_storage().data_ptr() not in places]
    if not strange:
        return
    made: list[Tensor] = []
    with Interception(partial(_keep, made)):
        fresh: Any = again()
    for leaf in _leaves(fresh):
        if leaf.untyped_storage().data_ptr() not in places and not any(leaf is one for one in made):
            raise InputError(
                f"unroll(): step uses a tensor of shape {list(leaf.shape)} that requires a gradient and that unroll "
                "cannot find in it, such as a parameter of an nn.Module: put it into the carry or the inputs"
            )


def _leaves(outputs: Sequence[Tensor]) -> list[Tensor]:
    """Where the graph of the outputs begins."""
    return [node.variable for node in nodes(outputs) if hasattr(node, "variable")]


def _keep(made: list[Tensor], func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call, and keep every leaf of a graph that comes back."""
    found = func(*args, **kwargs)
    made += [leaf for leaf in tree.leaves(found) if isinstance(leaf, Tensor) and leaf.is_leaf]
    return found
