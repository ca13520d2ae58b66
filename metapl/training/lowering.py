"""How near training in a lower precision is to training in float32, found on its first steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from metapl.core import tree
from metapl.core.types import PyTree
from metapl.nn.precision import PRECISIONS
from metapl.training import loop
from metapl.training.architectures import architectures
from metapl.training.experiment import Experiment

STEPS = 3
"""That are taken in both precisions."""

NEAR = 0.99
"""The least cosine that is called near."""


class Lowered(NamedTuple):
    """How the first steps of a phase compare with the same ones in float32."""

    phase: str
    precision: str
    cosine: float
    """Between the changes of all parameters of all networks."""
    length: float
    """Of the change, over that in float32."""

    @property
    def near(self) -> bool:
        """Whether it is nearly the direction of float32."""
        return self.cosine >= NEAR


def compared(experiment: Experiment, prepared: Callable[[Experiment], loop.Phase]) -> Lowered | None:
    """The first steps of a phase in the precision of an experiment and in float32; None where that is its own.

    Args:
        experiment: in any precision.
        prepared: makes the phase of an experiment.

    Cost: `STEPS` steps in each precision.
    """
    if experiment.config.precision == PRECISIONS[0]:
        return None
    config = replace(experiment.config, precision=PRECISIONS[0], compile=False)  # for so few steps it is not worth it
    full = experiment._replace(config=config, models=architectures(config, experiment.data.form, experiment.processes))
    phase = prepared(experiment._replace(config=replace(experiment.config, compile=False)))
    low, high = _change(phase), _change(prepared(full))
    lengths = [float(tree.norm(one)) for one in (low, high)]
    cosine = float(tree.dot(low, high)) / max(lengths[0] * lengths[1], 1e-30)
    return Lowered(phase.name, experiment.config.precision, cosine, lengths[0] / max(lengths[1], 1e-30))


def _change(phase: loop.Phase) -> PyTree:
    """Of the parameters, by network, in the first steps."""
    start = loop.start(phase)
    before = {name: network.params for name, network in phase.method.networks(start.state).items()}
    events = (event for event in loop.steps(phase, start, phase.steps + 1) if isinstance(event, loop.Stepped))
    *_, last = islice(events, STEPS)
    after = {name: network.params for name, network in phase.method.networks(last.state).items()}
    return tree.sub(after, before)
