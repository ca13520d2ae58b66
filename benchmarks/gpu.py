"""All that is to be known of metapl on a GPU, in one command of at most eight minutes.

    python benchmarks/gpu.py --out DIR --data-dir cifar-10-batches-py
    python benchmarks/gpu.py --out DIR --device cpu --model mlp --batch 16 --minutes 2   # that it runs at all

In this order, each written to DIR/gpu.json as soon as it is known, so that nothing is lost where the time is over:

1. the tests marked `gpu`, against the CPU in double precision;
2. the peak of matrix products, measured: float32, TF32, bfloat16;
3. steps with and without exact feedback, eager and compiled, float32 and bfloat16: examples a second, memory, and the
   share of that peak;
4. how often a step makes the host wait, by torch's debug mode;
5. the preset `cifar10-4k` for the rest of the time, half of it with exact feedback and half of it with none, on random
   images where there is no `--data-dir`: steps, examples a second, and what the networks had reached.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from metapl import methods
from metapl.evaluation import cost
from metapl.files import storage
from metapl.nn.precision import lowered
from metapl.studies import bench
from metapl.training import loop, machine, phases
from metapl.training.config import resolve
from metapl.training.experiment import pick_device, prepare

ROOT = Path(__file__).parents[1]
GRADS = ("none", "first-order", "exact", "exact:route=difference")
SHARE = {"tests": 0.3, "rates": 0.6}
"""Of all the time, by when these are over."""


class Report:
    """What is known so far, on the disk at any moment."""

    def __init__(self, out: Path, minutes: float) -> None:
        self.path, self.start, self.seconds = out / "gpu.json", time.monotonic(), 60.0 * minutes
        self.found: dict[str, Any] = {"environment": machine.environment()}

    def left(self, share: float = 1.0) -> float:
        """Seconds until this share of the time is over."""
        return self.start + share * self.seconds - time.monotonic()

    def add(self, name: str, value: Any) -> None:
        """Write it down, and print it."""
        self.found[name] = value
        storage.write_json(self.path, self.found)
        print(f"{self.seconds - self.left():5.0f} s  {name}: {value}", flush=True)


def tests(device: torch.device, seconds: float) -> str:
    """The last line of pytest."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "gpu", "tests/gpu", "-p", "no:cacheprovider"]
    environment = {**os.environ, "METAPL_GPU": str(device)}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return f"not through in {seconds:.0f} s"
    return (done.stdout.strip().splitlines() or ["nothing"])[-1]


def peak(device: torch.device, dtype: torch.dtype, tf32: bool, size: int) -> float:
    """Operations a second of the product of two square matrices; the best of five."""
    torch.backends.cuda.matmul.allow_tf32 = tf32
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    taken = cost.interleave({"product": lambda: a @ b}, 5, device)["product"]
    torch.backends.cuda.matmul.allow_tf32 = False
    return 2.0 * size**3 / min(taken)


def rates(scene: bench.Scene, report: Report, peaks: dict[str, float], rounds: int) -> None:
    """The steps of each estimator, in each precision, eager and compiled."""
    for precision in ("float32", "bf16"):
        for name, estimator in bench.choose(GRADS).items():
            if report.left(SHARE["rates"]) < 0:
                report.add("rates left out", f"from {name} in {precision} on: no time")
                return
            change = partial(lowered, name=precision)
            step = bench.running(scene, estimator, change)
            compiled = bench.running(scene, estimator, change, partial(torch.compile, fullgraph=True))
            flops = cost.flops(step)
            for how, call in {"eager": step, "compiled": compiled}.items():
                report.add(f"{precision}, {name}, {how}", _rate(scene, call, flops, peaks[precision], rounds))


def _rate(scene: bench.Scene, call: Callable[[], object], flops: int, peak: float, rounds: int) -> dict[str, Any]:
    start = time.perf_counter()
    try:
        call()
    except Exception as error:  # a step that a compiler does not take must not cost the rest
        return {"failed": str(error).splitlines()[0]}
    first = time.perf_counter() - start
    _, seconds, _ = cost.quartiles(cost.interleave({"step": call}, rounds, scene.device)["step"])
    found = {
        "first call, s": round(first, 2),
        "ms": round(1e3 * seconds, 2),
        "examples a second": round(scene.examples / seconds),
        "share of the peak": round(flops / seconds / peak, 3),
    }
    if scene.device.type == "cuda":  # elsewhere it is counted by what a compiled step does not take
        found["MiB"] = round(cost.peak_memory(call, scene.device) / 2**20)
    return found


def waits(call: Callable[[], object]) -> int | str:
    """How often a step makes the host wait for the GPU."""
    if not torch.cuda.is_available():
        return "no GPU"
    call()
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        call()
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(one.message) for one in caught)


def training(report: Report, grad: str, seconds: float, data: dict[str, Any], device: torch.device) -> None:
    """The preset for so many seconds."""
    given: dict[str, Any] = {"grad": grad, "device": str(device), "warmup": 50, **data}
    if device.type == "cpu":  # that it runs at all
        given |= {"batch": 14, "labelled_batch": 2, "model": "wrn:depth=10,width=1", "teacher_model": ""}
    experiment = prepare(resolve(given, preset="cifar10-4k"))
    spec = methods.plan(experiment.config)[0]
    phase = phases.prepare_phase(experiment, spec, {})
    at, start = loop.start(phase), time.monotonic()
    for event in loop.steps(phase, at, strict=False):
        at = event if isinstance(event, loop.Stepped) else at
        if time.monotonic() - start > seconds:
            break
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    taken = time.monotonic() - start
    examples = at.step * (experiment.config.batch + experiment.config.labelled_batch)
    test = phases.evaluate(experiment, phase.method.networks(at.state), "test")
    top1 = {name: round(100 * row["top1"], 2) for name, row in test.items()}
    report.add(f"cifar10-4k, {grad}", {"steps": at.step, "examples a second": round(examples / taken), "top-1 %": top1})


def synthetic(out: Path) -> Path:
    """Random images of the size of CIFAR-10's, as an array file."""
    import numpy as np  # noqa: PLC0415 - where there is no data

    draw = np.random.default_rng(0)
    x, y = draw.integers(0, 256, (20_000, 32, 32, 3), dtype=np.uint8), draw.integers(0, 10, 20_000)
    path = out / "random.npz"
    np.savez(path, x=x, y=y, x_test=x[:1000], y_test=y[:1000])
    return path


def main() -> None:
    """Find out all that there is time for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--data-dir", default="", help="CIFAR-10; random images without it")
    parser.add_argument("--model", default="wrn", help="of the steps")
    parser.add_argument(
        "--batch", type=int, default=64, help="labelled examples of a step; unlabelled ones are 7 times as many"
    )
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--size", type=int, default=8192, help="of the matrices")
    given = parser.parse_args()
    given.out = given.out.absolute()
    device, report = pick_device(given.device), Report(given.out, given.minutes)
    given.out.mkdir(parents=True, exist_ok=True)
    report.add("tests", tests(device, report.left(SHARE["tests"])))
    kinds = {"float32": (torch.float32, False), "tf32": (torch.float32, True), "bf16": (torch.bfloat16, False)}
    peaks = {name: peak(device, *kind, given.size) for name, kind in kinds.items()}
    report.add("peak, TFLOP a second", {name: round(value / 1e12, 2) for name, value in peaks.items()})
    shape = (1, 8, 8) if given.model.startswith("mlp") else (3, 32, 32)
    scene = bench.Scene(given.model, shape, given.batch, 7, device)
    rates(scene, report, peaks, given.rounds)
    for name, estimator in bench.choose(GRADS).items():
        report.add(f"waits of the host in a step, {name}", waits(bench.running(scene, estimator)))
    data = {"data_dir": given.data_dir} if given.data_dir else {"data": str(synthetic(given.out))}
    for index, grad in enumerate(("exact", "none")):
        training(report, grad, max(report.left() - 15.0, 5.0) / (2 - index), data, device)


if __name__ == "__main__":
    main()
