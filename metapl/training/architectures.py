"""The networks that a configuration names, built for data of a form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import Tensor, nn

from metapl import methods
from metapl import models as zoo
from metapl.core.collectives import ALONE, Processes
from metapl.core.types import Model
from metapl.data.form import Form
from metapl.methods.classical import model
from metapl.methods.spec import Models, NetworkSpec
from metapl.models import fitted, freezing
from metapl.models.adapters import ADAPTERS
from metapl.models.calibrator import affine, residual
from metapl.models.mlp import mlp
from metapl.nn import functional
from metapl.nn.layout import channels_last
from metapl.nn.microbatch import in_parts
from metapl.nn.precision import lowered
from metapl.nn.shared_out import shared_out
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


def architectures(config: TrainConfig, form: Form, processes: Processes = ALONE) -> Models:
    """The networks of a configuration for data of a form, with their training shared out among processes.

    Raises:
        InputError: a network that does not exist, or does not fit.
    """
    student = _in_parts(config, _model(config, "student", form), processes)
    teacher = _in_parts(config, _model(config, "teacher", form), processes)
    calibrator = functional.from_module(build_calibrator(config, form))
    return Models(student, teacher, calibrator, networks(config), model.model())


def networks(config: TrainConfig) -> dict[str, NetworkSpec]:
    """The networks that a run leaves, by name."""
    return {name: network for phase in methods.plan(config) for name, network in phase.networks.items()}


def build_calibrator(config: TrainConfig, form: Form) -> Callable[[], nn.Module]:
    """The constructor of the calibrator, whose inputs are logits."""
    classes = len(form.classes)
    return lambda: notation.build(config.calibrator, CALIBRATORS, "calibrator", (classes,), classes)


def partly_trained(config: TrainConfig, field: str) -> Callable[[nn.Module], nn.Module]:
    """What makes of the module that `text` names the one that is trained: some of it frozen, with adapters.

    Raises:
        InputError: adapters that do not exist, or for networks without anything frozen. What it returns raises those of
            `freeze` and of the adapters.
    """
    texts = {"student": config.freeze, "teacher": config.teacher_freeze or config.freeze}
    adapt = notation.build(config.adapt, ADAPTERS, "adapt")
    if config.adapt != freezing.NONE and set(texts.values()) == {freezing.NONE}:
        raise InputError(
            f"adapt = {config.adapt} is for frozen layers: give freeze too, such as '!head' for all but the layer head",
            *("adapt", "freeze"),
        )
    frozen = texts.get(field, freezing.NONE)
    if frozen == freezing.NONE:
        return lambda module: module
    return lambda module: adapt(freezing.freeze(module, frozen))


def _model(config: TrainConfig, field: str, form: Form) -> Model:
    finish = partly_trained(config, field)
    build = lambda: finish(zoo.build(text(config, field), form.shape, len(form.classes)))  # noqa: E731 - called twice
    model = functional.from_module(build)
    outside = text(config, field).partition(":")[0] in zoo.KINDS
    return lowered(model if outside else channels_last(model), config.precision)


def _in_parts(config: TrainConfig, model: Model, processes: Processes) -> Model:
    """The model as processes, `microbatch` and BatchNorm's groups divide its batches."""
    if model.coupled:
        _require_groups(config)
    group, groups = (config.batch_norm_batch, config.batch_norm_groups) if model.coupled else (0, 0)
    if processes.count > 1:
        return shared_out(model, processes, group=group, groups=groups, microbatch=config.microbatch)
    size = group or config.microbatch
    return in_parts(model, size, recompute=config.microbatch > 0, groups=groups) if size or groups else model


def _require_groups(config: TrainConfig) -> None:
    """Refuse groups of BatchNorm that are not one thing, or that do not fit into microbatches."""
    group = config.batch_norm_batch
    if config.batch_norm_groups and (group or config.microbatch):
        raise InputError(
            f"batch_norm_groups = {config.batch_norm_groups} says how many groups there are, of any size: leave out "
            f"{'batch_norm_batch' if group else 'microbatch, or give batch_norm_batch for their size'}",
            *("batch_norm_groups", "batch_norm_batch" if group else "microbatch"),
        )
    if config.microbatch and not 0 < group <= config.microbatch:
        raise InputError(
            f"microbatch = {config.microbatch}: BatchNorm shares statistics over "
            f"{group or 'the whole batch'}{' examples' if group else ''}: give batch_norm_batch = "
            f"{config.microbatch} too, or a model without it such as convnet:norm=group",
            *("microbatch", "batch_norm_batch"),
        )
