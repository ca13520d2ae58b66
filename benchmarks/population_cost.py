"""What a population of runs costs, against one run: the same steps, batches and views included, taking turns.

    python benchmarks/population_cost.py --members 32 --rounds 15 --model mlp
    python benchmarks/population_cost.py --members 8 --rounds 5 --model convnet:width=16

A ratio of S would be as dear as S runs one after another. Every round times some steps of one run and as many of the
population; the table has the median and the quartiles of their ratio.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

import torch

from metapl import methods
from metapl.core import rng
from metapl.evaluation import cost
from metapl.training import machine, phases, population
from metapl.training.config import TrainConfig
from metapl.training.experiment import Experiment


def stepping(experiments: list[Experiment], steps: int, alone: bool) -> Callable[[], None]:
    """A call that takes some steps: of the first run alone, or of all together."""
    spec = methods.plan(experiments[0].config)[0]
    if alone:
        phase = phases.prepare_phase(experiments[0], spec, {})
        method, batches, key = phase.method, phase.batches, phase.key
    else:
        method = population.together(experiments, spec, {})
        batches = population.batches(experiments, spec, method)
        key = torch.stack([one.keys.of(spec.name) for one in experiments])
    init_key, step_key = rng.split(key, 2)
    at = {"state": method.init(init_key), "step": 0}

    def call() -> None:
        for _ in range(steps):
            at["state"], _ = method.step(at["state"], batches(at["step"]), rng.fold_in(step_key, at["step"]))
            at["step"] += 1

    return call


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=10, help="of each in a round")
    parser.add_argument("--model", default="mlp")
    parser.add_argument("--method", default="mpl")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--augment", default="auto")
    args = parser.parse_args()
    given = {"data": args.data, "augment": args.augment, "model": args.model, "method": args.method, "baselines": False}
    given |= {"guide": "none", "alignment": "none"}
    experiments = population.members([TrainConfig(**given, seed=seed) for seed in range(args.members)])
    names = {"one run": True, f"{args.members} together": False}
    calls = {name: stepping(experiments, args.steps, alone) for name, alone in names.items()}
    times = cost.interleave(calls, args.rounds, experiments[0].device)
    one, several = times.values()
    low, middle, high = cost.quartiles([b / a for a, b in zip(one, several, strict=True)])
    print(json.dumps(machine.environment()))
    for name, seconds in times.items():
        print(f"{name:16} {1e3 * cost.quartiles(seconds)[1] / args.steps:8.2f} ms a step")
    print(f"ratio            {middle:8.2f} [{low:.2f}, {high:.2f}]")


if __name__ == "__main__":
    main()
