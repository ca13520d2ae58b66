"""The step of a phase as one compiled graph: `--compile`.

A step is a pure function of tensors, so `torch.compile(fullgraph=True)` takes all of it: views, passes, feedback,
optimisers, averages. It is compiled when it is first called, and the graph serves all steps that follow. What saves
time is that a small network's hundreds of calls become few; the sums are rounded in another order.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
import warnings
from collections.abc import Callable
from types import FunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metapl.core import torch_private, tree
from metapl.core.collectives import Processes
from metapl.core.types import Key, PyTree
from metapl.data.loader import Batch
from metapl.methods.base import Method
from metapl.registry.errors import InputError
from metapl.training.config import TrainConfig

LOG = logging.getLogger("metapl")
"""Where it is said that a step was compiled again."""

BACKEND = "inductor"
"""What makes code of a graph, by torch's name."""

COMPILERS = ("g++", "clang++", "cl")
"""One of them makes programs of the code for a CPU, unless the environment's CXX names another."""

OURS, PLACES = re.compile(r'raise InputError\(f?"(.*)"\)'), re.compile(r"\b(metapl/\w+/\w+\.py)")
"""Our own messages and files, in the source that torch quotes in its own."""

Step = Callable[[PyTree, Batch, Key], tuple[PyTree, dict[str, Tensor]]]
"""`step(state, batch, key)` of a `Method`."""


class Compiled(NamedTuple):
    """The step of a phase was compiled."""

    phase: str
    seconds: float
    """That the first step took, which is compiled in it."""


def seconds(event: object) -> dict[str, float]:
    """What an event says of the time that compiling took, by phase; nothing if it is of something else."""
    return {event.phase: event.seconds} if isinstance(event, Compiled) else {}


class CannotCompileError(InputError):
    """A step that `torch.compile` does not take."""


def require(config: TrainConfig, device: torch.device, processes: Processes) -> None:
    """Refuse to compile where that is known to fail.

    Raises:
        InputError: several processes train one run, whose sums no graph can hold; or no compiler is found.
    """
    if not config.compile:
        return
    if processes.count > 1:
        raise InputError(
            f"compile = true: a step of {processes.count} processes waits for the others in the middle, which is not "
            "compiled: leave it out, or share out seeds instead",
            "compile",
        )
    named = os.environ.get("CXX", "")
    if BACKEND == "inductor" and device.type == "cpu" and not any(map(shutil.which, [named] if named else COMPILERS)):
        found = f"CXX={named}, which is not there" if named else "none is found"
        raise InputError(
            f"compile = true needs a C++ compiler, and {found}: install g++ or clang, name one by CXX, or leave it out",
            "compile",
        )


def taken(config: TrainConfig, method: Method, phase: str) -> tuple[Method, Callable[[], Compiled | None]]:
    """The method, with its step compiled if the configuration wants that, and what there is to say of it."""
    if not config.compile:
        return method, lambda: None
    compilation = Compilation(method.step, phase)
    return method._replace(step=compilation.step), compilation.news


class Compilation:
    """A step, compiled when it is first called.

    Args:
        step: of a method; a pure function.
        phase: its name, for messages.
        backend: what makes code of the graph; `BACKEND` unless another is given.
    """

    def __init__(self, step: Step, phase: str, backend: str = "") -> None:
        self._phase = phase
        self._make = torch_private.compiler(backend or BACKEND)
        # `dynamic` would take the sizes of another phase's batches for a reason to leave those of this one open.
        self._fast = torch.compile(_apart(step, phase), fullgraph=True, dynamic=False, backend=self._made)
        self._told = self._warned = False
        self.graphs = 0
        """That were made so far: one, if all is well."""
        self.seconds = 0.0
        """That the first step took."""

    def step(self, state: PyTree, batch: Batch, key: Key) -> tuple[PyTree, dict[str, Tensor]]:
        """The step.

        Raises:
            CannotCompileError: the step cannot be compiled.
            InputError: it draws from torch's generator, which in a graph is not seeded by the key.
        """
        given = _unshared((state, batch, key))
        if not self.graphs:
            return self._first(*given)
        before = self.graphs
        found = self._called(*given)
        if self.graphs > before > 0 and not self._warned:
            self._warned = True
            LOG.warning(
                "%s: the step is compiled again, which takes as long as the first time: %s",
                *(self._phase, torch_private.why_compiled_again() or "torch does not say why"),
            )
        return found

    def news(self) -> Compiled | None:
        """That the step was compiled, once; None before, and when it was said already."""
        if self._told or not self.graphs:
            return None
        self._told = True
        return Compiled(self._phase, self.seconds)

    def _made(self, graph: Any, inputs: Any) -> Any:
        made = self._make(graph, inputs)
        self.graphs += 1
        return made

    def _first(self, state: PyTree, batch: Batch, key: Key) -> tuple[PyTree, dict[str, Tensor]]:
        began, before = time.perf_counter(), torch.get_rng_state()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch's, of its own doing
            found = self._called(state, batch, key)
        self.seconds = time.perf_counter() - began
        if not torch.equal(before, torch.get_rng_state()):
            raise InputError(
                f"compile = true: {self._phase}: the network draws from torch's generator, which nothing seeds in a "
                "compiled step: use torch.nn.Dropout, or leave it out",
                "compile",
            )
        return found

    def _called(self, state: PyTree, batch: Batch, key: Key) -> tuple[PyTree, dict[str, Tensor]]:
        try:
            found: tuple[PyTree, dict[str, Tensor]] = self._fast(state, batch, key)
        except Exception as error:  # before there is code, whatever is raised is of the compiler
            if self.graphs and not isinstance(error, torch_private.compiler_errors()):
                raise
            raise CannotCompileError(
                f"compile = true: no graph can be made of a step of {self._phase} ({_reason(error)}): leave it out",
                "compile",
            ) from error
        return found


def _apart(step: Step, name: str) -> Step:
    """The same function with a code object of its own, which is where torch keeps what it has compiled.

    Phases share the code of their steps; so the graphs of one phase are no recompilations of another's.
    """

    def one(state: PyTree, batch: Batch, key: Key) -> tuple[PyTree, dict[str, Tensor]]:
        return step(state, batch, key)

    return FunctionType(one.__code__.replace(co_name=f"step_of_{name}"), globals(), name, None, one.__closure__)


def _unshared(given: PyTree) -> PyTree:
    """The same values with no tensor twice among them: for tensors that are one a compiler makes another graph."""
    seen: set[int] = set()

    def own(leaf: Any) -> Any:
        if isinstance(leaf, Tensor) and id(leaf) in seen:
            return leaf.clone()
        seen.add(id(leaf))
        return leaf

    return tree.map(own, given)


def _reason(error: Exception) -> str:
    """The first sentence of what torch says and where, or the message of ours that its compiler came upon."""
    said = str(error)
    if own := OURS.findall(said):
        return str(own[-1])
    first = said.strip().partition("\n")[0].rstrip(".") or type(error).__name__
    places = PLACES.findall(said)
    return f"{first}, in {places[-1]}" if places else first
