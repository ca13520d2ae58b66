"""What a call costs: operations, memory, time.

Examples:
    >>> import torch
    >>> from metapl.evaluation import cost
    >>> a, b = torch.zeros(8, 20), torch.zeros(20, 30)
    >>> cost.flops(lambda: a @ b) == 2 * 8 * 20 * 30
    True
    >>> cost.peak_memory(lambda: a @ b, a.device) == 4 * 8 * 30
    True
"""

from __future__ import annotations

import statistics
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from metapl.core import tree
from metapl.core.torch_private import TorchDispatchMode

Call = Callable[[], Any]
"""What is measured: a function without arguments."""


def flops(call: Call) -> int:
    """Floating-point operations of the matrix products, convolutions and attention in a call.

    Counted below autograd and `torch.func`, so forward mode and `vmap` are in it. Elementwise operations and
    reductions are not.
    """
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def peak_memory(call: Call, device: torch.device) -> int:
    """The most bytes that a call holds at once beyond what was there before it.

    On CUDA by the allocator. Elsewhere by following every tensor that an operation returns until it is freed, which
    does not depend on the machine; what a kernel holds while it runs is not in it.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    with _Following() as following:
        call()
    return following.peak


class _Following(TorchDispatchMode):
    """Adds up the storages that are alive. The profiler would know them too, but it writes to standard error."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: dict[int, int] = {}

    def _meet(self, values: Any, new: bool) -> None:
        for tensor in tree.leaves(values):
            if not isinstance(tensor, Tensor):
                continue
            storage = tensor.untyped_storage()
            if storage._cdata not in self._known:
                self._known[storage._cdata] = size = storage.nbytes() if new else 0
                self.live += size
                weakref.finalize(storage, self._forget, storage._cdata)
        self.peak = max(self.peak, self.live)

    def _forget(self, address: int) -> None:
        self.live -= self._known.pop(address)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._meet((args, kwargs), new=False)  # seen for the first time as an argument: it was there before the call
        result = func(*args, **(kwargs or {}))
        self._meet(result, new=True)
        return result


def interleave(
    calls: Mapping[str, Call], rounds: int, device: torch.device, *, processor: bool = False
) -> dict[str, list[float]]:
    """Seconds of every call, one call after another in each round, after a round of warm-up.

    With `processor` they are the processor's, of all threads together: other programs on the machine take nothing from
    them, and neither do threads that work side by side.
    """
    clock = time.process_time if processor else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in calls}
    for index in range(rounds + 1):
        for name, call in calls.items():
            start = _now(device, clock)
            call()
            if index:
                times[name].append(_now(device, clock) - start)
    return times


def _now(device: torch.device, clock: Callable[[], float]) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock()


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The lower quartile, the median and the upper quartile."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return low, middle, high
