"""Operations and memory of a whole step of Meta Pseudo Labels, as they are now; run it to store them.

    PYTHONPATH=tests/support python tests/support/step_costs.py

Store them again only where a change is meant to change them, and say in the commit why they did.
"""

import json
from pathlib import Path

import torch

from metapl.evaluation import cost
from metapl.studies import bench

STORED = Path(__file__).parents[1] / "studies" / "step_costs.json"
SCENES = {
    "mlp": (1, 8, 8),
    "wrn:depth=10,width=1": (3, 8, 8),
    "resnet18:width=4": (3, 8, 8),
    "vit:depth=1,width=16,heads=2": (3, 8, 8),
}
GRADS = ("none", "exact", *bench.ROUTES, "difference", "unroll", "higher", "score", "taylor")


def made_with():
    """What the bytes of intermediate results depend on."""
    return {"torch": torch.__version__}


def costs(model):
    """FLOPs and bytes of each step by name, on 2 labelled and 14 unlabelled examples."""
    scene = bench.Scene(model, SCENES[model], 2)
    calls, _ = bench.steps(scene, bench.choose(GRADS))
    calls.pop("TorchOpt", None)
    return {name: [cost.flops(call), cost.peak_memory(call, scene.device)] for name, call in calls.items()}


if __name__ == "__main__":
    value = {"made_with": made_with(), "costs": {model: costs(model) for model in SCENES}}
    STORED.write_text(json.dumps(value, indent=1) + "\n")
