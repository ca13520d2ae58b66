"""A port of Meta Pseudo Labels weights the teacher's cross entropy with the new exam loss minus the old one.

That is minus the gradient: the teacher unlearns the labels that helped. What runs here is the formula and not the
program, on drawn labels, whose expectation is a sum of three terms. The program takes the most probable label.
"""

from __future__ import annotations

from typing import Any

import torch
from common import LESSON, STUDENT, difference, examined, metapl_feedback, row, show, taught
from torch.nn.functional import cross_entropy

ONE_HOT = torch.eye(3, dtype=torch.float64)


def expected_exam(shift: float) -> float:
    """The mean over the labels of the exam after a step on each, with the teacher's first logit shifted."""
    probabilities = torch.softmax(LESSON + shift * ONE_HOT[0], dim=0)
    return sum((p * examined(taught(label))).item() for p, label in zip(probabilities, ONE_HOT, strict=True))


def port(label: torch.Tensor) -> float:
    """What the port's term adds to the gradient of the first logit when this label was drawn."""
    theta = LESSON.clone().requires_grad_()
    new_minus_old = examined(taught(label)) - examined(STUDENT)
    return torch.autograd.grad(new_minus_old * cross_entropy(theta, label), theta)[0][0].item()


def measure() -> dict[str, Any]:
    """The derivative of the expected exam with respect to the teacher's first logit."""
    probabilities = torch.softmax(LESSON, dim=0).tolist()
    return row(
        "kekmodel/MPL-pytorch",
        "loss difference with its sign reversed",
        "feedback on a logit",
        found=sum(p * port(label) for p, label in zip(probabilities, ONE_HOT, strict=True)),
        expected=difference(expected_exam, 0.0),
        metapl=metapl_feedback(),
        of="d21326a, formula",
    )


if __name__ == "__main__":
    show(measure())
