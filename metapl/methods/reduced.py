"""Reduced Meta Pseudo Labels: the teacher is fixed, and a small network that corrects what it says is trained.

    fixed teacher, once for every example of the training pool ─► log p          (and it is not needed again)
    log p ─► calibrator ─► logits, the lesson ─► the student's step ─► exam ─► feedback ─► the calibrator's step

Only the student is held in memory beside a small multi-layer perceptron. Source: Pham et al., *Meta Pseudo Labels*,
CVPR 2021, appendix E.
"""

from __future__ import annotations

import torch
from torch import Tensor

from metapl.core.types import Buffers, Key, Model, Params, Variables
from metapl.data.augment.base import Augment
from metapl.data.examples import Examples
from metapl.data.loader import Batch
from metapl.evaluation import metrics
from metapl.methods.mpl import TeacherInputs


def said(model: Model, teacher: Variables, x: Examples, augment: Augment) -> Tensor:
    """What a fixed teacher says of every example of the training pool: log-probabilities `[examples, classes]`.

    It sees the examples as evaluation does. Cost: 1 F an example, and 4 bytes a class and example.
    """
    return torch.log_softmax(metrics.predict(model, *teacher, x, augment.prepare), dim=-1)


def lookup(log_p: Tensor) -> TeacherInputs:
    """What takes the place of the teacher's views: `see(views, batch)`, the teacher's word on these examples."""

    def see(views: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        if batch.labelled is None or batch.unlabelled is None:
            raise ValueError("a fixed teacher is looked up by example: the batch needs its positions in the pool")
        found = {"labelled": batch.labelled, "strong": batch.unlabelled}
        return {name: log_p[found[name]] for name in views if name in found}

    return see


FIXED, CORRECTION = "fixed/", "calibrator/"


def composed(teacher: Model, calibrator: Model) -> Model:
    """The fixed teacher and its calibrator as one model; the names of their tensors say whose they are."""

    def _of(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    def init(key: Key) -> tuple[Params, Buffers]:
        raise NotImplementedError("the fixed teacher and its calibrator are trained one after the other")

    def apply(
        params: Params, buffers: Buffers, x: Tensor, *, train: bool, key: Key | None = None
    ) -> tuple[Tensor, Buffers]:
        del train, key  # both are fixed by now
        logits, _ = teacher.apply(_of(FIXED, params), _of(FIXED, buffers), x, train=False)
        told = torch.log_softmax(logits, dim=-1)
        corrected, _ = calibrator.apply(_of(CORRECTION, params), _of(CORRECTION, buffers), told, train=False)
        return corrected, buffers

    return Model(init, apply)


def composing(fixed: Variables, networks: dict[str, Variables]) -> dict[str, Variables]:
    """Networks of a run whose "teacher" is a calibrator, with the fixed teacher put before it, for `composed`."""
    parts = [(FIXED, fixed), (CORRECTION, networks["teacher"])]
    params = {prefix + name: value for prefix, part in parts for name, value in part.params.items()}
    buffers = {prefix + name: value for prefix, part in parts for name, value in part.buffers.items()}
    return {**networks, "teacher": Variables(params, buffers)}
