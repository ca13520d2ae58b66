"""The networks that a configuration names, built for data of a form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import Tensor, nn

from metapl import methods
from metapl import models as zoo
from metapl.core.types import Model
from metapl.data.form import Form
from metapl.methods.classical import model
from metapl.methods.spec import Models, NetworkSpec
from metapl.models import fitted
from metapl.models.calibrator import affine, residual
from metapl.models.mlp import mlp
from metapl.nn import functional
from metapl.nn.microbatch import in_parts
from metapl.registry import notation
from metapl.registry.errors import InputError
from metapl.training.config import TrainConfig

CALIBRATORS = {"residual": residual, "affine": affine, "mlp": mlp}
"""What may correct a fixed teacher."""


def text(config: TrainConfig, field: str, tensors: Mapping[str, Tensor] = MappingProxyType({})) -> str:
    """The text that names a field of `Models`: of the configuration, and of a fitted one by its tensors."""
    if field == "classical":
        return fitted.text(tensors)
    texts = {"student": config.model, "teacher": config.teacher_model or config.model, "calibrator": config.calibrator}
    return texts[field]


def architectures(config: TrainConfig, form: Form) -> Models:
    """The networks of a configuration for data of a form.

    Raises:
        InputError: a network that does not exist, or does not fit.
    """
    student = _in_parts(config, _model(text(config, "student"), form))
    teacher = _in_parts(config, _model(text(config, "teacher"), form))
    calibrator = functional.from_module(build_calibrator(config, form))
    return Models(student, teacher, calibrator, networks(config), model.model())


def networks(config: TrainConfig) -> dict[str, NetworkSpec]:
    """The networks that a run leaves, by name."""
    return {name: network for phase in methods.plan(config) for name, network in phase.networks.items()}


def build_calibrator(config: TrainConfig, form: Form) -> Callable[[], nn.Module]:
    """The constructor of the calibrator, whose inputs are logits."""
    classes = len(form.classes)
    return lambda: notation.build(config.calibrator, CALIBRATORS, "calibrator", (classes,), classes)


def _model(text: str, form: Form) -> Model:
    return functional.from_module(lambda: zoo.build(text, form.shape, len(form.classes)))


def _in_parts(config: TrainConfig, model: Model) -> Model:
    """The model as `microbatch` and `batch_norm_batch` divide its batches."""
    if not model.coupled:
        return in_parts(model, config.microbatch) if config.microbatch else model
    group = config.batch_norm_batch
    if config.microbatch and not 0 < group <= config.microbatch:
        raise InputError(
            f"microbatch = {config.microbatch}: BatchNorm shares statistics over "
            f"{group or 'the whole batch'}{' examples' if group else ''}: give batch_norm_batch = "
            f"{config.microbatch} too, or a model without it such as convnet:norm=group",
            *("microbatch", "batch_norm_batch"),
        )
    return in_parts(model, group, recompute=config.microbatch > 0) if group else model
