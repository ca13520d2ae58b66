"""Points of training to measure estimators at, and draws one after another."""

import torch

from metapl.core import rng
from metapl.studies import snapshot
from metapl.training.config import TrainConfig
from metapl.training.experiment import prepare

TINY = {
    "method": "mpl",
    "guide": "none",
    "alignment": "none",
    "model": "mlp:width=8,depth=1",
    "batch": 16,
    "validation": 0,
    "device": "cpu",
}


def build(**options):
    steps = options.pop("steps", 2)
    return snapshot.trained(prepare(TrainConfig(**{**TINY, **options})), steps, lambda progress: None)


def loop(estimator, instance, count):
    memory, drawn = estimator.init(), []
    for index in range(count):
        feedback, memory = estimator.estimate(instance._replace(key=rng.fold_in(instance.key, index)), memory)
        drawn.append(torch.cat([one.flatten() for one in feedback.grads]))
    return torch.stack(drawn)
