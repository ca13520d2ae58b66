"""A step of Meta Pseudo Labels as one writes it in plain torch, and with libraries that may be installed.

These are what `metapl.studies.bench` holds metapl's own steps against, so each does all that a step does: the teacher
on three views, supervised loss and UDA, the student's step, the exam, both optimisers, the moving average.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from metapl.core import rng
from metapl.data.loader import Batch
from metapl.methods.base import Recipe

Build = Callable[[], nn.Module]
"""Makes a network."""

Step = Callable[[], object]
"""Takes the next step of a training that it holds."""

RULE: dict[str, Any] = {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
"""What both networks are trained with, by torch.optim.SGD and by whatever stands in for it."""


class _Pair:
    """Teacher, student and its average, as modules."""

    def __init__(self, build: Build, batch: Batch, recipe: Recipe) -> None:
        with rng.seeded(rng.key(0)):
            self.teacher, self.student = (build().to(batch.x_labelled.device) for _ in range(2))
        self.average = copy.deepcopy(self.student)
        self.batch, self.recipe = batch, recipe
        self.teacher_rule = torch.optim.SGD(self.teacher.parameters(), **RULE)

    def taught(self) -> tuple[Tensor, Tensor]:
        """The teacher's own loss, a scalar, and its logits `[unlabelled, classes]` of the strong view."""
        batch, recipe = self.batch, self.recipe
        views = [batch.x_labelled, batch.x_unlabelled, batch.x_unlabelled]
        labelled, weak, strong = self.teacher(torch.cat(views)).split([len(view) for view in views])
        target = torch.softmax(weak.detach() / recipe.uda_temperature, dim=-1)
        sure = target.amax(dim=-1) >= recipe.uda_threshold
        consistency = (F.cross_entropy(strong, target, reduction="none") * sure).mean()
        return F.cross_entropy(labelled, batch.y_labelled) + recipe.uda_weight * consistency, strong

    def move_teacher(self, loss: Tensor) -> None:
        """A step of the teacher, and of the average."""
        self.teacher_rule.zero_grad()
        loss.backward()
        self.teacher_rule.step()
        with torch.no_grad():
            for kept, new in zip(self.average.state_dict().values(), self.student.state_dict().values(), strict=True):
                kept.lerp_(new, 1.0 - self.recipe.ema) if kept.is_floating_point() else kept.copy_(new)


def port(build: Build, batch: Batch, recipe: Recipe) -> Step:
    """The step of the common port (kekmodel/MPL-pytorch): two labelled passes, and the difference of their losses.

    The student passes labelled and unlabelled examples together and learns the most probable labels; after its step it
    passes the labelled ones again. New loss minus old is the weight of the teacher's cross entropy with those labels.
    No gradient of the exam is taken, so it is cheaper than the paper's formula by one backward pass of the labelled
    batch.
    """
    pair = _Pair(build, batch, recipe)
    rule = torch.optim.SGD(pair.student.parameters(), **RULE)

    def step() -> None:
        own, strong = pair.taught()
        chosen = strong.detach().argmax(dim=-1)
        together = torch.cat([batch.x_labelled, batch.x_unlabelled])
        labelled, unlabelled = pair.student(together).split([len(batch.x_labelled), len(batch.x_unlabelled)])
        old = F.cross_entropy(labelled.detach(), batch.y_labelled)
        rule.zero_grad()
        F.cross_entropy(unlabelled, chosen).backward()
        rule.step()
        with torch.no_grad():
            new = F.cross_entropy(pair.student(batch.x_labelled), batch.y_labelled)
        pair.move_teacher(own + (new - old) * F.cross_entropy(strong, chosen))

    return step


def torchopt(build: Build, batch: Batch, recipe: Recipe) -> Step:
    """The step with exact feedback by TorchOpt's differentiable SGD: the graph of the student's update, and back.

    Raises:
        ImportError: TorchOpt is not installed.
    """
    import torchopt as library  # noqa: PLC0415 - no dependency of metapl

    pair = _Pair(build, batch, recipe)
    rule = library.MetaSGD(pair.student, **RULE)

    def step() -> None:
        own, strong = pair.taught()
        rule.step(F.cross_entropy(pair.student(batch.x_unlabelled), torch.softmax(strong, dim=-1)))
        exam = F.cross_entropy(pair.student(batch.x_labelled), batch.y_labelled)
        pair.move_teacher(own + exam)
        library.stop_gradient(pair.student)
        library.stop_gradient(rule)

    return step


PEERS: dict[str, Callable[[Build, Batch, Recipe], Step]] = {"port, by hand": port, "TorchOpt": torchopt}
"""The steps by name."""
