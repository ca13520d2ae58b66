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
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count, flop_registry

from metapl.core import tree
from metapl.core.torch_private import TorchDispatchMode

T = TypeVar("T")

Call = Callable[[], Any]
"""What is measured: a function without arguments."""


def flops(call: Call) -> int:
    """Floating-point operations of the matrix products, convolutions and attention in a call.

    Counted below autograd and `torch.func`, so forward mode and `vmap` are in it. Elementwise operations and
    reductions are not.
    """
    with FlopCounterMode(display=False, custom_mapping={_BACKWARD: _convolved_back}) as counter:
        call()
    return counter.get_total_flops()


def _convolved_back(
    grad_shape: Sequence[int], x_shape: Sequence[int], weight_shape: Sequence[int], *how: Any, **_out: Any
) -> int:
    """Of the way back through a convolution: as many as forward for each of the two gradients that are asked for.

    torch's own formula forgets the groups for the gradient of the weight: 32 times too many for 32 channels apart.
    """
    *_, transposed, _, _, asked = how
    one = conv_flop_count(list(x_shape), list(weight_shape), list(grad_shape), transposed=transposed)
    return sum(asked[:2]) * int(one)


_BACKWARD = torch.ops.aten.convolution_backward


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
    with Meter() as meter:
        call()
    return meter.peak


class Meter(TorchDispatchMode):
    """Counts within a `with` block, below autograd: operations, and the bytes of the tensors that they make and read.

    It adds up the storages that are alive, so that it works on the meta device too, where nothing is computed. The
    profiler would know them as well, but it writes to standard error. What a kernel holds while it runs is not counted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        """Bytes made since the beginning and held now."""
        self.peak = 0
        """The most of them at once, since the last `restart`."""
        self.moved = 0
        """Bytes read and written since then: of each operation its arguments and results once, of views none."""
        self.calls = 0
        """Calls of operations since then."""
        self.flops = 0
        """As of `flops`, since then. torch's own counter would keep alive what a checkpoint computes anew."""
        self._known: dict[int, int] = {}

    def restart(self) -> None:
        """Begin anew with all but what is held."""
        self.peak, self.moved, self.calls, self.flops = self.live, 0, 0, 0

    def _meet(self, values: Any, new: bool) -> dict[int, int]:
        """Take note of tensors; their bytes by storage."""
        met: dict[int, int] = {}
        for tensor in tree.leaves(values):
            if not isinstance(tensor, Tensor):
                continue
            storage = tensor.untyped_storage()
            met[storage._cdata] = tensor.numel() * tensor.element_size()
            if storage._cdata not in self._known:
                self._known[storage._cdata] = size = storage.nbytes() if new else 0
                self.live += size
                weakref.finalize(storage, self._forget, storage._cdata)
        self.peak = max(self.peak, self.live)
        return met

    def _forget(self, address: int) -> None:
        self.live -= self._known.pop(address)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        read = self._meet((args, kwargs), new=False)  # seen for the first time as an argument: it was there before
        result = func(*args, **(kwargs or {}))
        written = self._meet(result, new=True)
        self.calls += 1
        self.flops += _operations(func._overloadpacket, args, kwargs or {}, result)
        if func._schema.is_mutable or not written.keys() <= read.keys():
            self.moved += sum(read.values()) + sum(written.values())
        return result


class Pass(NamedTuple):
    """What one pass costs."""

    flops: int = 0
    """Operations of products, convolutions and attention."""
    moved: int = 0
    """Bytes read and written, each operand of each operation once."""
    calls: int = 0
    """Operations of torch, below autograd."""
    peak: int = 0
    """The most bytes that it holds at once, beyond what was there before it."""
    kept: int = 0
    """Bytes that it leaves."""


class Counter:
    """Takes calls one after another and counts each."""

    def __init__(self) -> None:
        self._meter = Meter()

    def __call__(self, call: Callable[[], T]) -> tuple[Pass, T]:
        """What a call costs, and what it returns; what is kept is what that holds."""
        meter = self._meter
        meter.restart()
        before = meter.live
        with meter:
            result = call()
        return Pass(meter.flops, meter.moved, meter.calls, meter.peak - before, meter.live - before), result


def _operations(packet: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> int:
    """Of one call, as `flops` counts them."""
    if packet is _BACKWARD:
        return _convolved_back(*(one.shape for one in args[:3]), *args[3:])
    count = flop_registry.get(packet)
    return int(count(*args, **kwargs, out_val=result)) if count else 0


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
