"""Reduced Meta Pseudo Labels: the teacher is fixed, and a small network that corrects what it says is trained.

    fixed teacher, once for every example of the training pool ─► log p          (and it is not needed again)
    log p ─► calibrator ─► logits ─► the student's step ─► exam ─► feedback ─► the calibrator's step

Only the student is held in memory beside a small multi-layer perceptron. Source: Pham et al., *Meta Pseudo Labels*,
CVPR 2021, appendix E.
"""

from __future__ import annotations

import torch
from torch import Tensor

from metapl.core.types import Buffers, Key, Model, Params, Variables
from metapl.data.augment.base import Augment
from metapl.data.examples import Examples
from metapl.data.loader import Batch, in_order
from metapl.evaluation import metrics
from metapl.methods.base import Method, Networks
from metapl.methods.finetune import finetuning
from metapl.methods.mpl import STUDENTS, TEACHER, meta_pseudo_labels, trained_student
from metapl.methods.spec import Given, MethodSpec, NetworkSpec, PhaseSpec
from metapl.methods.supervised import supervised
from metapl.methods.teacher_pass import TeacherInputs


def said(model: Model, teacher: Variables, x: Examples, augment: Augment) -> Tensor:
    """What a fixed teacher says of every example of the training pool: log-probabilities `[examples, classes]`.

    It sees the examples as evaluation does. Cost: 1 F an example, and 4 bytes a class and example.
    """
    device = next(iter(teacher.params.values())).device
    return torch.log_softmax(metrics.predict(model, *teacher, in_order(x, device, augment.prepare)), dim=-1)


def lookup(log_p: Tensor) -> TeacherInputs:
    """What takes the place of the teacher's views: the fixed teacher's log-probabilities of these examples."""

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
        log_p = torch.log_softmax(logits, dim=-1)
        corrected, _ = calibrator.apply(_of(CORRECTION, params), _of(CORRECTION, buffers), log_p, train=False)
        return corrected, buffers

    return Model(init, apply)


def composing(fixed: Variables, networks: dict[str, Variables]) -> dict[str, Variables]:
    """Networks of a run whose "teacher" is a calibrator, with the fixed teacher put before it, for `composed`."""
    parts = [(FIXED, fixed), (CORRECTION, networks["teacher"])]
    params = {prefix + name: value for prefix, part in parts for name, value in part.params.items()}
    buffers = {prefix + name: value for prefix, part in parts for name, value in part.buffers.items()}
    return {**networks, "teacher": Variables(params, buffers)}


def build_fixed(given: Given, networks: Networks) -> Method:
    """The phase that trains the teacher, by UDA."""
    del networks  # it needs none
    method = supervised(given.trainable(given.models.teacher, "lr"), given.augment, given.recipe)
    # By its own name, since "model" and "ema" are networks of the student's kind.
    return method._replace(networks=lambda state: {"fixed": method.networks(state)["ema"]})


def build(given: Given, networks: Networks) -> Method:
    """The phase that trains the calibrator and the student."""
    calibrator, fixed = given.trainable(given.models.calibrator, "teacher_lr"), networks["fixed"]
    inputs = lookup(said(given.models.teacher, fixed, given.x, given.augment))
    recipe = given.recipe._replace(uda_weight=0.0)  # log-probabilities have no other view to be consistent with
    student = trained_student(given)
    method = meta_pseudo_labels(calibrator, student, given.estimator, given.targets, given.augment, recipe, inputs)
    return method._replace(networks=lambda state: composing(fixed, method.networks(state)))


METHOD = MethodSpec(
    title="Reduced Meta Pseudo Labels",
    summary="A student {model} {learnt} with a fixed teacher {teacher}, corrected by the calibrator {calibrator}, "
    "{labels} pseudo labels, and feedback by {grad} (claim: {claim}).",
    guided=True,
    source="Reduced Meta Pseudo Labels ([Pham et al., CVPR 2021](https://arxiv.org/abs/2003.10580), appendix E)",
    phases=(
        PhaseSpec(
            name="fixed",
            build=build_fixed,
            networks={
                "fixed": NetworkSpec(
                    title="fixed teacher",
                    role="the fixed teacher, without its calibrator",
                    row=40,
                    reference=True,
                    built_from={"": "teacher"},
                    colour="ink",
                    dash=(1, 2),
                )
            },
            method="uda",
        ),
        PhaseSpec(
            name="reduced",
            build=build,
            networks={
                "teacher": TEACHER._replace(built_from={FIXED: "teacher", CORRECTION: "calibrator"}, compose=composed),
                **STUDENTS,
            },
            unrolled=True,
        ),
        finetuning("ema"),
    ),
    baselines=("supervised", "pseudo-labels", "uda"),
    models={"teacher": "teacher", "calibrator": "calibrator", "student": "student"},
    paired=True,
    alone="the fixed teacher's log-probabilities are looked up, which is not vectorised",
)
"""The method `reduced`."""
