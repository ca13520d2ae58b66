"""The losses of the first steps of every method, as they are now; run it to store them.

    PYTHONPATH=tests/support python tests/support/loss_curves.py

Store them again only where a change is meant to change them, and say in the commit why they did.
"""

import hashlib
import json
from pathlib import Path

import torch
from torch.nn import functional

from metapl import methods
from metapl.core import torch_private
from metapl.training import loop, phases
from metapl.training.config import TrainConfig
from metapl.training.experiment import prepare

STORED = Path(__file__).parents[1] / "training" / "loss_curves.json"
STEPS = 50
TRAINED = [name for name in methods.METHODS if name not in methods.guides()]
"""The methods that take steps."""
ALIKE = {
    "model": "mlp:width=16,depth=2",
    "labels": 20,
    "validation": 30,
    "batch": 32,
    "labelled_batch": 16,
    "uda_threshold": 0.15,  # so that there is a consistency loss from the first step on
    "steps": STEPS,
    "finetune_steps": 0,
    "baselines": False,
    "report_every": 1,
    "device": "cpu",
}


def made_with():
    """What the last digits depend on: the version of torch, and how its kernels round on this processor.

    Two processors of one capability round differently where the kernels look at more of them than that.
    """
    return {"torch": torch.__version__, "rounding": rounding()}


def rounding():
    """A checksum of what plain torch makes of a perceptron of the same sizes in a few steps."""
    generator = torch.Generator().manual_seed(0)
    sizes = (64, 16, 16, 10)
    weights = [torch.randn(shape, generator=generator) / 4 for shape in zip(sizes[1:], sizes, strict=False)]
    weights = [weight.requires_grad_() for weight in weights]
    digest = hashlib.sha256()
    for rows in (16, 30, 32, 48, 80, 1437):
        x = torch.rand(rows, 64, generator=generator)
        hidden = x
        for weight in weights[:-1]:
            hidden = functional.linear(hidden, weight).relu()
        logits = functional.linear(hidden, weights[-1])
        loss = functional.cross_entropy(logits, logits.detach().roll(1, 0).softmax(-1))
        grads = torch.autograd.grad(loss, weights)
        for tensor in (logits, loss, *grads):
            digest.update(tensor.detach().numpy().tobytes())
        weights = [
            (weight - grad / (grad.square().mean().sqrt() + 1e-8) / 10).detach().requires_grad_()
            for weight, grad in zip(weights, grads, strict=True)
        ]
    return digest.hexdigest()


def curves(method):
    """The losses at every step, by phase and name."""
    found = {}
    for event in phases.run(prepare(TrainConfig(**ALIKE, method=method))):
        if isinstance(event, loop.Reported):
            for name, value in event.metrics.items():
                found.setdefault(f"{event.phase}/{name}", []).append(value)
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)  # as in tests: sums of several threads have other last digits
    torch_private.load_forward_formulas()
    value = {"made_with": made_with(), "curves": {method: curves(method) for method in TRAINED}}
    STORED.write_text(json.dumps(value, indent=1) + "\n")
