"""Runs that differ in the seed and in some numbers, as one program: every step is vectorised over the members.

All state is a pytree and every draw a function of a key, so a population is a stack: `torch.vmap` goes over
parameters, optimiser states, batches, keys and the numbers that differ. A member is what its own run would be, up to
the rounding of batched matrix products.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from metapl import methods
from metapl.core import tree
from metapl.core.types import Key, Model, PyTree, Variables
from metapl.data import loader
from metapl.data.loader import Batch
from metapl.methods.base import Method, Networks
from metapl.methods.seen import Fitted
from metapl.methods.spec import PhaseSpec
from metapl.registry.errors import InputError
from metapl.training import compiling, experiment, loop, phases, seen, stored
from metapl.training.config import VARYING, TrainConfig
from metapl.training.experiment import COUNTS, GUIDE, MEANS, SHARES, Experiment
from metapl.training.stored import Stored


class Apart(NamedTuple):
    """Members train one after another."""

    why: str


Event: TypeAlias = tuple[int | None, phases.Event | Apart]
"""The index of a member, and what happened to it; None for all members together."""


def alike(config: TrainConfig) -> tuple[tuple[str, Any], ...]:
    """What the members of a population have in common: configurations that agree in it can be one.

    Everything but the seed and the `VARYING` numbers; of those, whether they are zero, which is another program.
    """
    shared = {name: value for name, value in asdict(config).items() if name not in ("seed", *VARYING)}
    return (*shared.items(), *((name, getattr(config, name) == 0) for name in VARYING))


def members(configs: Sequence[TrainConfig]) -> list[Experiment]:
    """The experiments of configurations that are `alike`, on the same data.

    Raises:
        ValueError: none, or such that are not alike.
        InputError: anything that is wrong in them.
    """
    if len({alike(config) for config in configs}) != 1:
        raise ValueError("the members of a population differ in the seed and in numbers of config.VARYING alone")
    first = experiment.prepare(configs[0])
    return [first, *(experiment.member(first, config) for config in configs[1:])]


def refuses(experiments: Sequence[Experiment]) -> str:
    """Why these members had better train one after another; empty if they may be a population."""
    first = experiments[0]
    if why := methods.find(first.config.method).alone:
        return why
    if not isinstance(first.data.x, Tensor):
        return "the examples are read from files"
    if first.config.augment.startswith(("small", "large")):
        return "RandAugment sorts images by what is done to them, which torch.vmap refuses"
    large = math.prod(first.data.form.shape[1:]) > SMALL
    if first.device.type == "cpu" and large and any(_convolves(model, first) for model in first.models[:2]):
        return "on a CPU, convolutions of many networks at once are slower"
    return ""


SMALL = 64
"""Pixels. On two CPU cores 8 networks of 8×8 images take 5 times as long as one, and 4 of 28×28 images 6 to 8 times."""


def _convolves(model: Model, experiment: Experiment) -> bool:
    return any(param.ndim > 2 for param in model.init(experiment.keys.root)[0].values())


def train_all(
    experiments: Sequence[Experiment],
    skip: Collection[int] = (),
    since: Mapping[int | None, Stored] = MappingProxyType({}),
    strict: bool = False,
) -> Iterator[Event]:
    """Train all members, together where that is possible and else one after another.

    Together, a member whose loss is no longer finite goes on with what it has, and the others with it.

    Args:
        experiments: of `members`.
        skip: members that need not be trained; they are where all train together.
        since: where earlier processes stopped, by the index of the member; of None for all together.
        strict: whether a loss that is no longer finite is an error, in members that train one after another.

    Yields:
        The events of `run`, or of `phases.run` for each member. `Apart` comes before members that train one after
        another although there are several; what was reported of them before no longer holds.
    """
    why = refuses(experiments) if len(experiments) > 1 else ""
    if len(experiments) > 1 and not why:
        try:
            yield from run(experiments, since.get(None))
        except compiling.CannotCompileError as error:
            why = f"together: {str(error)[:200]}"
        except InputError:
            raise
        except Exception as error:  # what torch.vmap cannot do stops in a way of its own each time
            why = (str(error) or repr(error)).splitlines()[0].split(". ")[0][:120]
        else:
            return
    if why:
        yield None, Apart(why)
    for index, one in enumerate(experiments):
        if index not in skip:
            yield from ((index, event) for event in phases.run(one, strict, since.get(index)))


def run(experiments: Sequence[Experiment], since: Stored | None = None) -> Iterator[Event]:
    """Train all members together: what `phases.run` gives for each of them.

    Args:
        experiments: of `members`.
        since: where an earlier process stopped, for all of them.

    Yields:
        `Began` and `Stepped` for all members together; `Reported`, `Chosen` and `Finished` for each of them. What is
        fitted at once is fitted for one member after another, since members may choose networks of different sizes.

    Raises:
        InputError: a stored state that is not of this population.
    """
    networks: dict[str, Variables] = tree.to(since.networks, experiments[0].device) if since else {}
    experiments = [*experiments]
    fits = [seen.fitting(one) for one in experiments]
    fitted: list[dict[str, Fitted]] = [{} for _ in experiments]
    compiled: dict[str, float] = {}
    for spec in stored.remaining(methods.plan(experiments[0].config), since):
        if spec.fit:
            for index, fit in enumerate(fits):
                found = fitted[index][spec.name] = fit(spec.name, spec.fit)
                experiments[index] = phases.guided(experiments[index], spec, found.networks)
                yield index, phases.Chosen(spec.name, found)
            continue
        method, news = compiling.taken(experiments[0].config, together(experiments, spec, networks), spec.name)
        keys = torch.stack([one.keys.of(spec.name) for one in experiments])
        steps = getattr(experiments[0].config, spec.steps)
        phase = loop.Phase(spec.name, method, batches(experiments, spec, method), steps, keys, _count, news)
        yield None, phases.Began(spec.name, {**networks})
        at = stored.enter(loop.start(phase), since)
        for event in loop.steps(phase, at, experiments[0].config.report_every, strict=False):
            if isinstance(event, loop.Reported):
                last = event.networks
                yield from ((index, _of(event, index)) for index in range(len(experiments)))
                continue
            compiled |= compiling.seconds(event)
            yield None, event
        networks.update(spec.keep(last))
    for index, one in enumerate(experiments):
        result = phases.judge(one, member(networks, index), fitted[index].values())
        yield index, phases.Finished(result._replace(compiled=compiled))


def _count(x: Tensor) -> int:
    """The examples of all members in a tensor `[members, examples, ...]`."""
    return x.shape[:2].numel()


def together(experiments: Sequence[Experiment], spec: PhaseSpec, networks: Networks) -> Method:
    """A phase of all members as one method, whose state, batches and keys have the members along their first axis."""
    varied = _varied(experiments)

    def method(varied: dict[str, Tensor], networks: Networks) -> Method:
        built = spec.build(experiments[0]._replace(varied=varied).given, networks)
        return phases.guarded(experiments[0].config, built)

    def init(key: Key) -> PyTree:
        states = [method(*member((varied, networks), index)).init(one) for index, one in enumerate(key)]
        return tree.map(lambda *leaves: torch.stack(leaves), *states)

    def step(state: PyTree, batch: Batch, key: Key) -> tuple[PyTree, dict[str, Tensor]]:
        def one(own: PyTree, state: PyTree, batch: Batch, key: Key) -> tuple[PyTree, dict[str, Tensor]]:
            return method(*own).step(state, batch, key)

        return torch.vmap(one)((varied, networks), state, batch, key)

    return Method(init, step, *method(varied, networks)[2:])


def member(stack: PyTree, index: int) -> PyTree:
    """One member of a stacked pytree."""
    return tree.map(lambda leaf: leaf[index], stack)


def _varied(experiments: Sequence[Experiment]) -> dict[str, Tensor]:
    """What is not the same in all, the members along the first axis; the others stay numbers, as in a run of its own.

    These are numbers of the configuration, the classes and the means of the labelled examples, which are in the splits,
    and what the guides say.
    """
    device = experiments[0].device
    columns = {name: [getattr(one.config, name) for one in experiments] for name in VARYING}
    found = {
        name: torch.tensor(values, dtype=torch.float64, device=device)
        for name, values in columns.items()
        if len(set(values)) > 1
    }
    for name in (GUIDE, SHARES):
        if name in experiments[0].varied:
            found[name] = torch.stack([one.varied[name] for one in experiments])
    if any(model.start for model in experiments[0].models[:2]):
        found[MEANS] = torch.stack([one.means for one in experiments])
    counts = torch.stack([one.counts for one in experiments])
    return found if bool((counts == counts[0]).all()) else {**found, COUNTS: counts}


def batches(experiments: Sequence[Experiment], spec: PhaseSpec, method: Method) -> Callable[[int], Batch]:
    """The batches of a phase, of all members along the first axis."""
    data, config = experiments[0].data, experiments[0].config
    sizes, unroll = phases.sizes(config, spec, method), phases.unroll(config, spec)
    each = [loader.positions(one.split, sizes, one.keys.batches, unroll) for one in experiments]

    def at(step: int) -> Batch:
        labelled, unlabelled = zip(*(of(step) for of in each), strict=True)
        return loader.gather(data.x, data.y, (torch.stack(labelled), torch.stack(unlabelled)))

    return at


def _of(event: loop.Reported, index: int) -> loop.Reported:
    own = {name: values[index] for name, values in event.metrics.items()}
    return event._replace(metrics=own, networks=member(event.networks, index))
