"""Runs that differ in the seed and in some numbers, as one program: every step is vectorised over the members.

All state is a pytree and every draw a function of a key, so a population is a stack: `torch.vmap` goes over
parameters, optimiser states, batches, keys and the numbers that differ. A member is what its own run would be, up to
the rounding of batched matrix products.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor

from metapl.core import tree
from metapl.core.types import Key, Model, PyTree
from metapl.data import loader
from metapl.data.loader import Batch
from metapl.methods.mpl import Method
from metapl.registry.errors import InputError
from metapl.training import experiment, loop, phases
from metapl.training.config import VARYING, TrainConfig
from metapl.training.experiment import Experiment
from metapl.training.phases import Networks, Part, Result

Report = Callable[[int, loop.Progress], None]
"""`report(index, progress)` of a member."""

Tick = Callable[[int, str, int, int], None]
"""`tick(index, phase, step, steps)`; −1 for all members together."""

Say = Callable[[str], None]
"""Told a line of text."""


def alike(config: TrainConfig) -> tuple[tuple[str, Any], ...]:
    """What the members of a population have in common: configurations that agree in it can be one.

    Everything but the seed and the `VARYING` numbers; of those, whether they are zero, which is another program.
    """
    shared = {name: value for name, value in asdict(config).items() if name not in ("seed", *VARYING)}
    return (*shared.items(), *((name, getattr(config, name) == 0) for name in VARYING))


def members(configs: Sequence[TrainConfig]) -> list[Experiment]:
    """The settings of configurations that are `alike`, on the same data.

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
    if first.config.method == "reduced":
        return "what a fixed teacher said is looked up, which is not vectorised"
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
    return any(param.ndim > 2 for param in model.init(experiment.keys.mpl)[0].values())


def train_all(
    experiments: Sequence[Experiment], report: Report, tick: Tick, say: Say, skip: Collection[int] = ()
) -> Iterator[tuple[int, Result]]:
    """Train all members, together where that is possible and else one after another.

    A member whose loss is no longer finite goes on with what it has, and the others with it.

    Args:
        settings: of `members`.
        report: `report(index, progress)`, called every `report_every` steps of a phase, and after its last.
        tick: `tick(index, phase, step, steps)`, called after every step; −1 for all together.
        say: told why members train one after another.
        skip: members that need not be trained; they are where all train together.

    Yields:
        The index of a member and its result, as soon as it is there.
    """
    why = refuses(experiments) if len(experiments) > 1 else ""
    if len(experiments) > 1 and not why:
        try:
            found = run(experiments, report, partial(tick, -1))
        except InputError:
            raise
        except Exception as error:  # what torch.vmap cannot do stops in a way of its own each time
            why = (str(error) or repr(error)).splitlines()[0].split(". ")[0][:120]
        else:
            yield from enumerate(found)
            return
    if why:
        say(why)
    for index, one in enumerate(experiments):
        if index not in skip:
            yield index, phases.run(one, partial(report, index), partial(tick, index), strict=False)


def run(experiments: Sequence[Experiment], report: Report, tick: loop.Tick = loop.no_tick) -> list[Result]:
    """Train all members together: what `experiment.run` gives for each of them.

    Args:
        settings: of `members`.
        report: `report(index, progress)`, called every `report_every` steps of a phase, and after its last.
        tick: called after every step of all.
    """
    networks: Networks = {}
    for part in phases.plan(experiments[0].config):
        method = together(experiments, part, networks)
        keys = torch.stack([part.key(one) for one in experiments])
        phase = loop.Phase(part.name, method, batches(experiments, part, method), part.steps, keys)

        def told(progress: loop.Progress) -> None:
            for index in range(len(experiments)):
                report(index, _of(progress, index))

        state = loop.fit(phase, told, experiments[0].config.report_every, tick, strict=False)
        networks.update(part.keep(method.networks(state)))
    return [phases.judge(one, member(networks, index)) for index, one in enumerate(experiments)]


def together(experiments: Sequence[Experiment], part: Part, networks: Networks) -> Method:
    """A phase of all members as one method, whose state, batches and keys have the members along their first axis."""
    varied = _varied([one.config for one in experiments], experiments[0].device)

    def method(varied: dict[str, Tensor], networks: Networks) -> Method:
        return part.method(experiments[0]._replace(varied=varied), networks)

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


def _varied(configs: Sequence[TrainConfig], device: torch.device) -> dict[str, Tensor]:
    """The numbers that are not the same in all, `[members]` each; the others stay numbers, as in a run of its own."""
    columns = {name: [getattr(config, name) for config in configs] for name in VARYING}
    return {
        name: torch.tensor(values, dtype=torch.float64, device=device)
        for name, values in columns.items()
        if len(set(values)) > 1
    }


def batches(experiments: Sequence[Experiment], part: Part, method: Method) -> Callable[[int], Batch]:
    """The batches of a phase, of all members along the first axis."""
    data, sizes = experiments[0].data, part.sizes(experiments[0].config, method)
    each = [loader.positions(one.split, sizes, one.keys.batches, part.unroll) for one in experiments]

    def at(step: int) -> Batch:
        labelled, unlabelled = zip(*(of(step) for of in each), strict=True)
        return loader.gather(data.x, data.y, (torch.stack(labelled), torch.stack(unlabelled)))

    return at


def _of(progress: loop.Progress, index: int) -> loop.Progress:
    own = {name: values[index] for name, values in progress.metrics.items()}
    return progress._replace(metrics=own, networks=member(progress.networks, index))
