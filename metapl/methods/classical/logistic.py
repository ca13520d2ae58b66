"""Logistic regression on the labelled examples."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from metapl.methods.classical import choice, linear, scaling
from metapl.methods.seen import Fitted, Seen
from metapl.methods.spec import MethodSpec, NetworkSpec, PhaseSpec

PENALTIES = (100.0, 10.0, 1.0)
"""C to choose from, the preferred one first; the inputs have the mean squared length 1."""


class Chosen(NamedTuple):
    """The settings of a logistic regression."""

    scaling: str
    c: float
    how: str
    """Why these."""


def choose(seen: Seen) -> Chosen:
    """The scaling and the penalty, as `metapl.methods.classical.choice` has it."""
    trial = choice.trial(seen)
    settings = list(itertools.product(scaling.preferred(seen.form), PENALTIES))
    if not trial.rounds:
        return Chosen(*settings[0], trial.name)
    inputs = {name: scaling.fit(name, seen.x, seen.form)(seen.x[: len(seen.y)]) for name in scaling.SCALINGS}
    hits = [choice.hits(trial, seen.y, _answering(inputs[name], seen, c)) for name, c in settings]
    return Chosen(*settings[choice.best(hits)], trial.name)


def _answering(z: Tensor, seen: Seen, c: float) -> Callable[[choice.Round], Tensor]:
    def answer(one: choice.Round) -> Tensor:
        weight, bias = linear.fit(z[one.shown], seen.y[one.shown], c, seen.classes)
        return (z[one.asked] @ weight.T + bias).argmax(1)

    return answer


def fit(seen: Seen) -> Fitted:
    """The classifier of a run."""
    chosen = choose(seen)
    scaled, z = scaling.apart(seen, chosen.scaling)
    found = linear.fit(z[: seen.labelled], seen.y[: seen.labelled], chosen.c, seen.classes)
    return Fitted({"logistic": linear.network(scaled, *found)}, f"{chosen.scaling}, C = {chosen.c:g}; {chosen.how}")


METHOD = MethodSpec(
    title="logistic regression",
    summary="A logistic regression {learnt}.",
    source="logistic regression (scikit-learn)",
    phases=(
        PhaseSpec(
            name="logistic",
            fit=fit,
            networks={
                "logistic": NetworkSpec(
                    title="logistic regression",
                    role="a logistic regression on the labelled examples (scikit-learn)",
                    row=1,
                    preference=1,
                    built_from={"": "classical"},
                    colour="grey",
                    dash=(1, 2),
                )
            },
        ),
    ),
    models={},
    unlabelled=False,
)
"""The method `logistic`."""
