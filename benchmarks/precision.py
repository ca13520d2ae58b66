"""The feedback with passes in bfloat16 beside the same feedback in float32, at points of a training in float32.

    python benchmarks/precision.py
    python benchmarks/precision.py --model wrn:depth=16,width=2 --data cifar10 --steps 0 100

A row for each point: cosine and ratio of norms of the feedback on a batch, mean and range over batches. The teacher's
logits and the student's weights are those of float32 in both; what differs are the student's passes.
"""

from __future__ import annotations

import argparse
import statistics

import torch

from metapl.core import tree
from metapl.nn.precision import lowered
from metapl.studies import snapshot
from metapl.training.config import TrainConfig
from metapl.training.experiment import prepare


def feedback(stage: snapshot.Stage) -> torch.Tensor:
    """The exact feedback on the next batch, flat, float64."""
    instance = snapshot.assign(stage, "soft", torch.float32)
    found, _ = stage.experiment.estimator.estimate(instance, stage.experiment.estimator.init())
    return torch.cat([leaf.flatten() for leaf in tree.leaves(tuple(found.grads))]).double()


def compared(stage: snapshot.Stage) -> tuple[float, float]:
    """Cosine, and norm in bfloat16 over that in float32."""
    models = stage.experiment.models
    low = models._replace(student=lowered(models.student, "bf16"))
    ours = feedback(stage._replace(experiment=stage.experiment._replace(models=low)))
    theirs = feedback(stage)
    return float(torch.cosine_similarity(ours, theirs, dim=0)), float(ours.norm() / theirs.norm())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--model", default="mlp")
    parser.add_argument("--steps", type=int, nargs="+", default=[0, 300, 1200])
    parser.add_argument("--batches", type=int, default=16)
    parser.add_argument("--batch", type=int, default=128)
    given = parser.parse_args()
    config = TrainConfig(
        data=given.data, model=given.model, grad="exact", guide="none", batch=given.batch, baselines=False
    )
    print("| steps | cosine | lowest | norm over that of float32 | range |\n| --- | --- | --- | --- | --- |")
    for steps in given.steps:
        stage = snapshot.trained(prepare(config), steps, lambda _: None)
        pairs = [compared(stage._replace(step=stage.step + batch)) for batch in range(given.batches)]
        cosines, norms = ([pair[at] for pair in pairs] for at in (0, 1))
        values = (statistics.fmean(cosines), min(cosines), statistics.fmean(norms))
        print(f"| {steps} | {' | '.join(f'{value:.5f}' for value in values)} | {min(norms):.3f} to {max(norms):.3f} |")


if __name__ == "__main__":
    main()
