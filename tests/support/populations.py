"""Tiny configurations that can train together."""

from metapl.training.config import TrainConfig

TINY = {
    "method": "mpl",
    "guide": "none",
    "data": "moons:points=100",
    "model": "mlp:width=5,depth=1",
    "batch": 16,
    "labelled_batch": 6,
    "labels": 8,
    "validation": 20,
    "steps": 6,
    "finetune_steps": 3,
    "report_every": 4,
    "baselines": False,
    "smoothing": 0.05,
    "device": "cpu",
}
# The decay of the average is below its bound of the first steps, or it would not count.
NUMBERS = {
    "lr": 0.05,
    "teacher_lr": 0.2,
    "finetune_lr": 0.03,
    "feedback_weight": 0.3,
    "uda_weight": 0.4,
    "uda_temperature": 0.5,
    "uda_threshold": 0.9,
    "guide_weight": 0.5,
    "smoothing": 0.2,
    "ema": 0.3,
}
DIGITS = {"data": "digits", "labels": 10, "steps": 6, "finetune_steps": 0, "report_every": 3}


def config(**options):
    return TrainConfig(**{**TINY, **options})


def pair(**options):
    """Members that differ in the seed and in all numbers that are not zero."""
    others = {name: value for name, value in NUMBERS.items() if options.get(name) != 0}
    return [config(**options), config(**{**options, **others}, seed=5)]
