"""A point of training: the state after some steps, what the next step asks of an estimator, and draws of its answer."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from metapl.core import rng, tree
from metapl.core.targets import TARGETS
from metapl.core.types import Estimator, Instance, PyTree, TrainState, Variables
from metapl.methods import mpl
from metapl.methods.base import Trainable
from metapl.methods.teacher_pass import teacher_passes
from metapl.registry.errors import InputError
from metapl.training import compiling, loop, phases
from metapl.training.experiment import Experiment


class Stage(NamedTuple):
    """A point of training."""

    experiment: Experiment
    state: mpl.State
    step: int
    """The steps taken, which is the number of the batch that comes next."""


def _trainables(experiment: Experiment) -> tuple[Trainable, Trainable]:
    """Teacher and student with constant learning rates: at the end of a cosine every feedback would be zero."""
    config, models = experiment.config, experiment.models
    return (
        Trainable(models.teacher, experiment.optimizer(config.teacher_lr, models.teacher)),
        Trainable(models.student, experiment.optimizer(config.lr, models.student)),
    )


def trained(experiment: Experiment, steps: int, report: Callable[[loop.Reported], None]) -> Stage:
    """Train with the experiment's estimator first, at constant learning rates; 0 steps for fresh weights.

    Raises:
        InputError: a loss that is no longer finite.
    """
    augment, numbers, place = experiment.data.augment, experiment.recipe, experiment.device
    teacher, student = _trainables(experiment)
    kind = TARGETS[experiment.labels]
    method = mpl.meta_pseudo_labels(teacher, student, experiment.estimator, kind, augment, numbers)
    placed = method._replace(init=lambda key: tree.to(method.init(key), place))
    given = phases.batches(experiment, experiment.config.unroll)
    taken, _ = compiling.taken(experiment.config, placed, "mpl")
    phase = loop.Phase("mpl", taken, given, steps, experiment.keys.of("mpl"))
    at = loop.start(phase)
    for event in loop.steps(phase, at):
        if isinstance(event, loop.Reported):
            report(event)
        elif isinstance(event, loop.Stepped):
            at = event
    return Stage(experiment, at.state, steps)


def restored(experiment: Experiment, networks: Mapping[str, Variables]) -> Stage:
    """The end of a run, with fresh states of its optimisers: a run folder keeps none.

    Raises:
        InputError: a run without teacher and student.
    """
    if not {"teacher", "student", "ema"} <= set(networks):
        raise InputError(f"the run holds {', '.join(networks)}, no teacher and student: name a run of --method mpl")
    teacher, student = (
        TrainState(*networks[name], trainable.optimizer.init(networks[name].params))
        for name, trainable in zip(("teacher", "student"), _trainables(experiment), strict=True)
    )
    steps = experiment.config.steps
    count = torch.tensor(steps, device=experiment.device)
    remembered = experiment.recipe.consistency.init(next(iter(teacher.params.values())))
    state = mpl.State(teacher, student, networks["ema"], experiment.estimator.init(), count, remembered)
    return Stage(experiment, state, steps)


def assign(stage: Stage, kind: str, dtype: torch.dtype) -> Instance:
    """What the next step asks of an estimator, with labels of a kind, in a floating-point dtype."""
    experiment, state, step = stage
    augment = experiment.data.augment
    finer = augment._replace(prepare=lambda x: augment.prepare(x).to(dtype))
    teacher_pass = teacher_passes(*_trainables(experiment), TARGETS[kind], finer, experiment.recipe)
    batch = phases.batches(experiment, experiment.config.unroll)(step)
    key = rng.fold_in(rng.split(experiment.keys.of("mpl"), 2)[1], step)  # as `loop.steps` has it
    state, batch = tree.to(state, dtype), tree.to(batch, dtype)
    return teacher_pass(state.teacher, state.student, batch, key).instance


def draw(estimator: Estimator, instance: Instance, count: int, together: int, drawn: bool) -> Tensor:
    """Estimates with the keys `fold_in(key, 0 … count − 1)`, memory threaded through them in order.

    Vectorised where the first two draws leave the memory as it was, and `torch.vmap` goes through the estimator and
    gives the same two; else one by one.

    Args:
        estimator: what to draw from.
        instance: what it is given, and the key.
        count: how many draws, at least two.
        together: how many at once, 1 for a loop.
        drawn: whether the labels are drawn. If not, an estimator whose first two draws agree has no randomness.

    Returns:
        `[draws, numbers]`, one draw where there is no randomness.
    """
    keys = rng.fold_in(instance.key, torch.arange(count, device=instance.key.device))

    def one(key: Tensor, memory: PyTree) -> tuple[Tensor, PyTree]:
        feedback, memory = estimator.estimate(instance._replace(key=key), memory)
        return torch.cat([leaf.flatten() for leaf in tree.leaves(tuple(feedback.grads))]), memory

    start = estimator.init()
    found, memory = [], start
    for index in (0, 1):
        value, memory = one(keys[index], memory)
        found.append(value)
    first, unmoved = torch.stack(found), _same(memory, start)
    if not drawn and unmoved and torch.equal(*first):
        return first[:1]
    if together > 1 and unmoved:
        several = _vectorised(lambda key: one(key, start)[0], keys, together)
        if several is not None and torch.allclose(several[:2], first, rtol=1e-6, atol=1e-9 * float(first.norm())):
            return several
    for each in keys[2:]:
        value, memory = one(each, memory)
        found.append(value)
    return torch.stack(found)


def _same(a: PyTree, b: PyTree) -> bool:
    return all(torch.equal(x, y) for x, y in zip(tree.leaves(a), tree.leaves(b), strict=True))


def _vectorised(fn: Callable[[Tensor], Tensor], keys: Tensor, together: int) -> Tensor | None:
    try:
        with warnings.catch_warnings(action="ignore"):  # torch names every operation that it has to loop over
            return torch.vmap(fn, chunk_size=together)(keys)
    except Exception:  # BatchNorm, dropout, a plugin that looks at its data: each stops in a way of its own
        return None
