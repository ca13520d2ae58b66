"""Handwritten digits, some of whose labels are wrong, with a few that somebody has checked."""

from __future__ import annotations

from typing import NamedTuple

import torch
from sklearn.datasets import load_digits
from torch import Tensor


class Digits(NamedTuple):
    """The parts of the 1,797 digits of scikit-learn; nobody is told which labels `y` are wrong."""

    x: Tensor
    y: Tensor
    wrong: Tensor
    clean_x: Tensor
    clean_y: Tensor
    test_x: Tensor
    test_y: Tensor


def digits(seed: int, *, flipped: float = 0.4, labelled: int = 1000, clean: int = 50) -> Digits:
    """A share `flipped` of the labels is drawn anew among the nine other classes."""
    generator = torch.Generator().manual_seed(seed)
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images / 16.0, dtype=torch.float32), torch.tensor(labels, dtype=torch.long)
    order = torch.randperm(len(x), generator=generator)
    first, second, rest = order[:labelled], order[labelled : labelled + clean], order[labelled + clean :]
    wrong = torch.rand(labelled, generator=generator) < flipped
    noise = torch.where(wrong, torch.randint(1, 10, (labelled,), generator=generator), 0)
    return Digits(x[first], (y[first] + noise) % 10, wrong, x[second], y[second], x[rest], y[rest])
