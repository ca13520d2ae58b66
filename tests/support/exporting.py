"""Runs of a few steps to be exported, and what the run itself says."""

import json

from metapl.cli.train import train
from metapl.evaluation import metrics
from metapl.training import run_folder

TINY = {"method": "mpl", "guide": "none", "steps": 4, "finetune_steps": 2, "baselines": False, "device": "cpu"}


CONVNET = "convnet:width=4,depth=2"
"""With BatchNorm, whose running statistics are buffers."""


def run_of(folder, **flags):
    train(out=folder, **{**TINY, **flags})
    return folder


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


def calibrated(run, x, network=""):
    """As `metapl predict` has them, from the run itself: for what a network sees."""
    serving = run_folder.serve(run, network, "cpu", trust_code=True)
    return metrics.predict(serving.model, *serving.network, [x]) / serving.temperature
