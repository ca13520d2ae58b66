"""The consensus of a logistic regression and a graph: what guides the consistency loss of a network, see `guide`.

    labelled examples ─► logistic regression ─► p of every example ─┐
                                                                    ├─► √(p · q), normalised ─► shifted to the prior
    all examples ─► graph of neighbours ─► Poisson learning ─► q ───┘

The two err in different places: the regression sees directions and few labels, the graph sees clusters and all
examples. Nothing is chosen on labels, so that it works with one label a class.
"""

from __future__ import annotations

import torch
from torch import Tensor

from metapl.methods.classical import linear, poisson, scaling, spreading
from metapl.methods.seen import Fitted, Seen
from metapl.methods.spec import MethodSpec, NetworkSpec, PhaseSpec

NEAREST = 10
"""Neighbours of each example, in the graph and in the votes."""

SMALLEST = 1e-9
"""The least probability whose logarithm is taken."""


def pooled(p: Tensor, q: Tensor, prior: Tensor | None = None) -> Tensor:
    """√(p · q), normalised, and shifted so that the mean is the prior, if there is one.

    Args:
        p: distributions `[examples, classes]`.
        q: others.
        prior: `[classes]`.
    """
    logits = (p.clamp(min=SMALLEST).log() + q.clamp(min=SMALLEST).log()) / 2.0
    return torch.softmax(logits, dim=1) if prior is None else poisson.balanced(logits, prior)


def answers(z: Tensor, y: Tensor, classes: int, prior: Tensor | None) -> Tensor:
    """The consensus on all examples: distributions `[examples, classes]`, float32.

    The regression's C is the number of labels a class, so that one label a class counts for little beside the graph.

    Args:
        z: scaled inputs `[examples, components]`.
        y: classes, int64; −1 where the class is not known.
        classes: how many there are.
        prior: the share of each class, `[classes]`; None if nothing is known of it.
    """
    known = y >= 0
    weight, bias = linear.fit(z[known], y[known], max(1.0, int(known.sum()) / classes), classes)
    p = torch.softmax((z @ weight.T + bias).double(), dim=1)
    return pooled(p, poisson.answer(z, y, classes, prior, nearest=NEAREST), prior).float()


def fit(seen: Seen) -> Fitted:
    """The classifier of a run: votes of the nearest examples of the pool; labelled examples keep their labels in it."""
    name = scaling.preferred(seen.form)[0]
    scaled, z = scaling.apart(seen, name)
    y = torch.full((len(z),), -1)
    y[: seen.labelled] = seen.y[: seen.labelled]
    said = answers(z, y, seen.classes, seen.prior)
    said[: seen.labelled] = torch.nn.functional.one_hot(y[: seen.labelled], seen.classes).float()
    shares = "shares of the classes as they come" if seen.prior is None else "shares of the classes as in the prior"
    network = spreading.votes(scaled, z, said, min(NEAREST, len(z) - 1))
    return Fitted({"consensus": network}, f"{name}, {NEAREST} neighbours, {shares}")


METHOD = MethodSpec(
    title="consensus",
    summary="A consensus of logistic regression and a graph {learnt}.",
    source="Poisson learning ([Calder et al., ICML 2020](https://arxiv.org/abs/2006.11184)) and logistic regression",
    phases=(
        PhaseSpec(
            name="consensus",
            fit=fit,
            networks={
                "consensus": NetworkSpec(
                    title="graph and regression",
                    role="the consensus of Poisson learning on a graph of neighbours and a logistic regression",
                    row=5,
                    preference=5,
                    built_from={"": "classical"},
                    colour="green",
                    dash=(1, 2),
                )
            },
        ),
    ),
    models={},
)
"""The method `consensus`."""
