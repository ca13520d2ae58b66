"""A whole run: what a method asks for phase by phase, and the evaluation of the final weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from metapl import methods
from metapl.core import tree
from metapl.core.collectives import require_same
from metapl.core.types import Variables
from metapl.data import loader
from metapl.data.examples import Examples, subset
from metapl.evaluation import metrics, temperature
from metapl.methods.base import Method, Networks
from metapl.methods.seen import Fitted
from metapl.methods.spec import PhaseSpec
from metapl.nn.shared_out import evaluated_by
from metapl.training import compiling, loop, lowering, nonfinite, own_rows, seen, stored
from metapl.training.config import TrainConfig
from metapl.training.experiment import GUIDE, SHARES, Experiment
from metapl.training.sharing import require_shareable
from metapl.training.stored import Stored

Rows = dict[str, dict[str, float]]
"""Metrics by network."""


class Result(NamedTuple):
    """What a run leaves: the networks, their metrics, and the counts of right and wrong on the test set."""

    networks: dict[str, Variables]
    validation: Rows
    test: Rows
    confusion: dict[str, Tensor]
    """`[classes, classes]` by network, on the test set: row the class, column what was predicted."""
    chosen: Mapping[str, str] = MappingProxyType({})
    """How the networks that were fitted at once were set."""
    calibrated: Mapping[str, Mapping[str, float]] = MappingProxyType({})
    """By network, see `metapl.evaluation.temperature.calibrated`; none without a validation part."""
    compiled: Mapping[str, float] = MappingProxyType({})
    """Seconds that the first step of each phase took, where this process compiled it."""


class Chosen(NamedTuple):
    """A phase was fitted at once."""

    phase: str
    fitted: Fitted


class Began(NamedTuple):
    """A phase begins, or goes on where it was stopped."""

    phase: str
    networks: dict[str, Variables]
    """Of the phases before that were trained."""


class Finished(NamedTuple):
    """A run is over."""

    result: Result


Event: TypeAlias = Began | lowering.Lowered | loop.Event | Chosen | Finished
"""What a run yields."""


def run(experiment: Experiment, strict: bool = True, since: Stored | None = None) -> Iterator[Event]:
    """Train what the configuration asks for, and evaluate every network at the end, on the final weights.

    Args:
        experiment: what to train.
        strict: whether a loss that is no longer finite is an error, rather than a bad result.
        since: where an earlier process stopped; the events are those that would have come next.

    Yields:
        `Began` and the events of `loop.steps`, phase by phase, or `Chosen` where it is fitted at once; `Finished` at
        the end. What was fitted at once by an earlier process is fitted again. `Lowered` follows `Began` where passes
        are not computed in float32.

    Raises:
        InputError: a loss that is no longer finite, where `strict`; a stored state that is not of this run; a network
            that several processes cannot train, or processes that are no longer of one mind.
    """
    require_shareable(experiment)
    networks: dict[str, Variables] = tree.to(since.networks, experiment.device) if since else {}
    fits: dict[str, Fitted] = {}
    compiled: dict[str, float] = {}
    fit = seen.fitting(experiment)
    for spec in stored.remaining(methods.plan(experiment.config), since):
        if spec.fit:
            fits[spec.name] = fit(spec.name, spec.fit)
            networks.update(fits[spec.name].networks)
            experiment = guided(experiment, spec, networks)
            yield Chosen(spec.name, fits[spec.name])
            continue
        phase = prepare_phase(experiment, spec, networks)
        fitted = {name for found in fits.values() for name in found.networks}
        yield Began(spec.name, {name: one for name, one in networks.items() if name not in fitted})
        at = stored.enter(loop.start(phase), since)
        prepared = partial(prepare_phase, spec=spec, networks=networks)
        if not at.step and (found := lowering.compared(experiment, prepared)):
            yield found
        for event in loop.steps(phase, at, experiment.config.report_every, strict):
            compiled |= compiling.seconds(event)
            if isinstance(event, loop.Reported):
                last = event.networks
                require_same(experiment.processes, f"state at step {event.step} of {spec.name}", last)
            yield event
        networks.update(spec.keep(last))
    yield Finished(judge(experiment, networks, fits.values())._replace(compiled=compiled))


def guided(experiment: Experiment, spec: PhaseSpec, networks: Networks) -> Experiment:
    """The experiment with the answers of its guide, once the phase that fits the guide is over.

    Cost: one pass over the training pool.
    """
    if spec.name != methods.guide_of(experiment.config):
        return experiment
    said = torch.log_softmax(predict(experiment, spec.name, networks[spec.name], "pool"), dim=-1)
    return experiment._replace(varied={**experiment.varied, GUIDE: said, SHARES: said.double().exp().mean(dim=0)})


def finish(events: Iterator[Event]) -> Result:
    """Go through the events of a run to its end.

    Returns:
        The result, which the last event holds.

    Raises:
        ValueError: the run does not finish.
    """
    for event in events:
        if isinstance(event, Finished):
            return event.result
    raise ValueError("the events end before the run is finished")


def prepare_phase(experiment: Experiment, spec: PhaseSpec, networks: Networks) -> loop.Phase:
    """A phase of a run, given the networks of the phases before."""
    config = experiment.config
    own = own_rows.views(experiment, spec.name)
    given = experiment.given if own is None else experiment.given._replace(augment=own)
    method, news = compiling.taken(config, guarded(config, spec.build(given, networks)), spec.name)
    at = batches(experiment, unroll(config, spec), sizes(config, spec, method), own is not None)
    return loop.Phase(spec.name, method, at, getattr(config, spec.steps), experiment.keys.of(spec.name), news=news)


def guarded(config: TrainConfig, method: Method) -> Method:
    """The method, with what the configuration wants of steps that are not finite."""
    return nonfinite.POLICIES[config.on_nonfinite](method, config.report_every)


def unroll(config: TrainConfig, spec: PhaseSpec) -> int:
    """Unlabelled batches in each step of a phase."""
    return config.unroll if spec.unrolled else 1


def sizes(config: TrainConfig, spec: PhaseSpec, method: Method) -> tuple[int, int]:
    """Labelled and unlabelled examples a batch; none, so that none are read, of those that `method` never sees."""
    wanted = {
        "x_labelled": getattr(config, spec.labelled_batch) or config.labelled_batch,
        "x_unlabelled": config.batch,
    }
    labelled, unlabelled = (size if field in method.sees else 0 for field, size in wanted.items())
    return labelled, unlabelled


def judge(experiment: Experiment, trained: Networks, fitted: Iterable[Fitted] = ()) -> Result:
    """Evaluate networks: those that were fitted at once and those that were trained."""
    several = [*fitted]
    networks = {name: one for found in several for name, one in found.networks.items()} | dict(trained)
    logits = {name: predict(experiment, name, network, "test") for name, network in networks.items()}
    y, held_out = experiment.data.y_test, _held_out(experiment)
    asked = networks.items() if len(held_out) else ()
    validation = {name: predict(experiment, name, network, "validation") for name, network in asked}
    return Result(
        networks,
        {name: metrics.evaluate(found, held_out) for name, found in validation.items()},
        {name: metrics.evaluate(found, y) for name, found in logits.items()},
        {name: metrics.confusion(found, y).cpu() for name, found in logits.items()},
        {name: found.chosen for found in several for name in found.networks},
        {name: temperature.calibrated((found, held_out), (logits[name], y)) for name, found in validation.items()},
    )


def batches(
    experiment: Experiment, unroll: int = 1, sizes: tuple[int, int] | None = None, own: bool = False
) -> Callable[[int], loader.Batch]:
    """The batches of an experiment, with `unroll` unlabelled ones in each, of other `sizes` where they are given.

    With `own` they have the rows of this process alone, see `metapl.training.own_rows`.
    """
    data = experiment.data
    wanted = sizes or (experiment.config.labelled_batch, experiment.config.batch)
    drawn = loader.positions(experiment.split, wanted, experiment.keys.batches, unroll)
    at: Callable[[int], loader.Batch] = lambda step: loader.gather(data.x, data.y, drawn(step))  # noqa: E731
    if own and not data.skip_bad:  # all processes must pass over the same unreadable files
        at = own_rows.batches(data.x, data.y, drawn, experiment.processes)
    if isinstance(data.x, Tensor):
        return at
    return loader.ahead(loader.passing(at) if data.skip_bad else at)


def predict(experiment: Experiment, name: str, network: Variables, part: str) -> Tensor:
    """Logits `[examples, classes]` of a network on the "validation" part, the "test" set or the training "pool"."""
    data = experiment.data
    parts = {"test": data.x_test, "pool": data.x}
    x = parts[part] if part in parts else subset(data.x, experiment.split.validation)
    model = evaluated_by(experiment.models.of(name), experiment.processes)
    return metrics.predict(model, *network, ready(experiment, x, network))


def ready(experiment: Experiment, x: Examples, network: Variables) -> Iterator[Tensor]:
    """All of some stored examples, as a network sees them."""
    device, size = next(iter(network.params.values())).device, experiment.config.microbatch or experiment.config.batch
    return loader.in_order(x, device, experiment.data.augment.prepare, size)


def evaluate(experiment: Experiment, networks: Networks, part: str) -> Rows:
    """Metrics of every network on the "validation" part or the "test" set; none where the part is empty."""
    y = experiment.data.y_test if part == "test" else _held_out(experiment)
    asked = networks.items() if len(y) else ()
    return {name: metrics.evaluate(predict(experiment, name, network, part), y) for name, network in asked}


def _held_out(experiment: Experiment) -> Tensor:
    return experiment.data.y[experiment.split.validation.to(experiment.device)]
