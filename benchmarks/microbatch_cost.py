"""What microbatches save and cost: one step of Meta Pseudo Labels with 16 labelled and 112 unlabelled images.

    python benchmarks/microbatch_cost.py

For each size of microbatch: the relative difference of the update to that of the whole batch, teacher's and student's
together; the most memory held beyond the state; and the floating-point operations. All are counted, not timed. How far
float32 itself is from float64, for the whole batch, stands above each table.
"""

from __future__ import annotations

import platform

import torch

from metapl import estimators, optim
from metapl.core import rng, targets, tree
from metapl.core.types import TrainState
from metapl.data.augment.base import Augment, noise
from metapl.data.loader import Batch
from metapl.evaluation import cost
from metapl.methods import base, mpl
from metapl.models import build
from metapl.nn import functional
from metapl.nn.microbatch import in_parts
from metapl.registry import notation

SHAPE, CLASSES, LABELLED, UNLABELLED = (3, 32, 32), 10, 16, 112
NETWORK = "convnet:width=32,norm=group"
SIZES = (0, 64, 16, 4, 1)


def step(size: int, grad: str, dtype: torch.dtype) -> cost.Call:
    """A step from fresh weights, in microbatches of a size; 0 for the whole batch."""
    model = functional.cast(functional.from_module(lambda: build(NETWORK, SHAPE, CLASSES)), dtype)
    rule = optim.sgd(0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    trainable = base.Trainable(
        in_parts(model, size) if size else model, optim.chain(optim.clip_by_global_norm(5.0), rule)
    )
    estimator = notation.build(grad, estimators.ESTIMATORS, "estimator")
    kind, views = targets.TARGETS[estimator.targets[0]], Augment(noise(0.1), noise(0.5))
    method = mpl.meta_pseudo_labels(trainable, trainable, estimator, kind, views, base.Recipe(uda_threshold=0.1))
    x = rng.normal(rng.key(0), (LABELLED + UNLABELLED, *SHAPE), dtype)
    batch, state = Batch(x[:LABELLED], torch.arange(LABELLED) % CLASSES, x[LABELLED:]), method.init(rng.key(1))
    return lambda: method.step(state, batch, rng.key(2))


def update(call: cost.Call) -> torch.Tensor:
    """The momentum that the step leaves, which is the clipped gradient."""
    state = call()[0]
    states: tuple[TrainState, ...] = (state.teacher, state.student)
    return torch.cat([leaf.flatten() for one in states for leaf in tree.leaves(one.opt_state[-1].momentum)])


def main() -> None:
    """Measure and print the table."""
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, Python {platform.python_version()}, {NETWORK}, {LABELLED} + {UNLABELLED} images")
    print(f"{'estimator':12} {'microbatch':>10} {'float32':>9} {'float64':>9} {'MiB':>8} {'GFLOP':>8}")
    for grad in ("exact", "first-order"):
        whole = {dtype: update(step(0, grad, dtype)) for dtype in (torch.float32, torch.float64)}
        rounding = float((whole[torch.float32] - whole[torch.float64]).norm() / whole[torch.float64].norm())
        print(f"{grad}: the whole batch in float32 differs from float64 by {rounding:.1e}")
        for size in SIZES:
            differences = []
            for dtype, expected in whole.items():
                found = update(step(size, grad, dtype))
                differences.append(float((found - expected).norm() / expected.norm()))
            call = step(size, grad, torch.float32)
            memory = cost.peak_memory(call, torch.device("cpu")) / 2**20
            flops = cost.flops(call) / 1e9
            numbers = f"{differences[0]:9.1e} {differences[1]:9.1e} {memory:8.1f} {flops:8.1f}"
            print(f"{grad:12} {size or 'whole':>10} {numbers}")


if __name__ == "__main__":
    main()
