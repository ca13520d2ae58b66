"""The released code of Meta Pseudo Labels weights the cross entropy of the teacher's logits with their own softmax.

The target is held constant, so the gradient is softmax − softmax = 0, whatever the weight is. What runs here is the
formula and not the program, which needs TensorFlow 1; without its moving average, which changes the weight only.
"""

from __future__ import annotations

from typing import Any

import torch
from common import LESSON, STUDENT, difference, examined, metapl_feedback, row, show, taught
from torch.nn.functional import cross_entropy

FIRST = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)


def measure() -> dict[str, Any]:
    """The derivative of the exam after a step on soft labels with respect to the teacher's first logit."""
    theta = LESSON.clone().requires_grad_()
    target = torch.softmax(theta, dim=0).detach()
    term = (examined(taught(target)) - examined(STUDENT)) * cross_entropy(theta, target)
    return row(
        "google-research/meta_pseudo_labels",
        "no feedback from soft labels",
        "feedback on a logit",
        found=torch.autograd.grad(term, theta)[0][0].item(),
        expected=difference(lambda shift: examined(taught(torch.softmax(LESSON + shift * FIRST, dim=0))).item(), 0.0),
        metapl=metapl_feedback(),
        of="35a5be2, formula",
    )


if __name__ == "__main__":
    show(measure())
