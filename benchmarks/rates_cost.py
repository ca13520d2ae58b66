"""Memory and CPU time of a hypergradient in per-layer rates and decays, through K steps of a 64-256-10 network.

    MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=17179869184 python benchmarks/rates_cost.py

The problem is that of `examples/learning_rates.py`. Memory is the most that is alive at once beyond what was there
before, counted tensor by tensor, beside that of the K steps alone. CPU times are interleaved, and given as ratios to
"reverse", which keeps everything.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from functools import partial
from pathlib import Path

import torch
from torch import nn

import metapl as mp
from metapl.evaluation import cost

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import learning_rates

WAYS = {
    "replay": {},
    "replay, checkpoints": {"checkpoints": True},
    "mixed, checkpoints": {"method": "mixed", "checkpoints": True},
    "reverse": {"method": "reverse"},
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    train, held_out, _ = learning_rates.data()
    model = mp.from_module(lambda: nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10)))
    params, inputs = model.init(mp.key(0))[0], learning_rates.batches(train, args.steps, args.batch)
    theta = learning_rates.everywhere(params, lr=-2.3, decay=-7.0)
    run = partial(learning_rates.hypergradient, model, theta, params, inputs, held_out)

    def forward() -> None:
        rule = mp.sgd(0.1, weight_decay=0.001)
        after, state = params, rule.init(params)
        for x, y in zip(*inputs, strict=True):
            loss = lambda params, x=x, y=y: mp.cross_entropy(model.apply(params, {}, x, train=True)[0], y).mean()  # noqa: E731
            with torch.no_grad():
                updates, state = rule.update(mp.grad_inside(loss, after)[0], state, after)
                after = mp.tree.add(after, updates)

    peaks = {name: cost.peak_memory(partial(run, **how), torch.device("cpu")) for name, how in WAYS.items()}
    alone = cost.peak_memory(forward, torch.device("cpu"))
    truth, seconds = run(method="reverse").grads, {name: [] for name in WAYS}
    for _ in range(args.rounds):
        for name, how in WAYS.items():
            before = time.process_time()
            run(**how)
            seconds[name].append(time.process_time() - before)
    print(f"K = {args.steps}, batches of {args.batch}; the steps alone take {alone / 2**20:.1f} MiB")
    for name, how in WAYS.items():
        ratios = [mine / all_kept for mine, all_kept in zip(seconds[name], seconds["reverse"], strict=True)]
        low, middle, high = cost.quartiles(ratios)
        error = float(mp.tree.norm(mp.tree.sub(run(**how).grads, truth)) / mp.tree.norm(truth))
        print(
            f"{name:20} {peaks[name] / 2**20:7.1f} MiB {statistics.median(seconds[name]):6.2f} s of CPU, "
            f"{middle:.2f} [{low:.2f}, {high:.2f}] of reverse, off by {error:.0e}"
        )


if __name__ == "__main__":
    main()
