"""How near `exact:route=difference` is to the exact feedback, in single precision.

    python benchmarks/difference_error.py --model wrn --batch 8 --steps 0 5

On random images, before training and after some steps of it, with the same state for both.
"""

from __future__ import annotations

import argparse

import torch

from metapl import estimators, models, optim
from metapl.core import rng
from metapl.core.targets import SOFT
from metapl.data.augment.base import Augment, identity
from metapl.data.loader import Batch
from metapl.methods.base import Recipe, Trainable
from metapl.methods.mpl import meta_pseudo_labels
from metapl.methods.teacher_pass import teacher_passes
from metapl.nn import functional
from metapl.studies import bench


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mlp")
    parser.add_argument("--shape", type=int, nargs="+", default=[3, 32, 32])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, nargs="+", default=[0, 5])
    args = parser.parse_args()
    model = functional.from_module(lambda: models.build(args.model, tuple(args.shape), bench.CLASSES))
    trainable, augment = Trainable(model, optim.sgd(0.05, momentum=0.9, nesterov=True)), Augment(identity, identity)
    x, unlabelled = (rng.normal(rng.key(seed), (count * args.batch, *args.shape)) for seed, count in ((2, 1), (4, 7)))
    batch = Batch(x, rng.randint(rng.key(3), (args.batch,), bench.CLASSES), unlabelled)
    method = meta_pseudo_labels(trainable, trainable, estimators.exact(), SOFT, augment, Recipe())
    passes, state = teacher_passes(trainable, trainable, SOFT, augment, Recipe()), method.init(rng.key(0))
    for step in range(max(args.steps) + 1):
        key = rng.fold_in(rng.key(1), step)
        if step in args.steps:
            instance = passes(state.teacher, state.student, batch, key).instance
            exact, near = (
                estimators.exact(route=route).estimate(instance, ())[0].grads[0].double()
                for route in ("auto", "difference")
            )
            cosine = float(torch.nn.functional.cosine_similarity(exact.flatten(), near.flatten(), dim=0))
            ratio = float(near.norm() / exact.norm())
            print(f"{args.model}, after {step} steps: cosine {cosine:.6f}, length {ratio:.4f}", flush=True)
        state, _ = method.step(state, batch, key)


if __name__ == "__main__":
    main()
