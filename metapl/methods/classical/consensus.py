"""The consensus of a logistic regression and a graph: what guides the consistency loss of a network, see `guide`.

    labelled examples ─► logistic regression ─► p of every example ─┐
                                                                    ├─► p^share · q^(1 − share) ─► shifted to the prior
    all examples ─► graph of neighbours ─► Poisson learning ─► q ───┘

The two err in different places: the regression sees directions and few labels, the graph sees clusters and all
examples. How firmly the regression is fitted and how much it counts is learnt from labels that are left out; where none
can be, loosely and one half.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from scipy import sparse
from torch import Tensor

from metapl.methods.classical import choice, linear, poisson, scaling, shares, spreading
from metapl.methods.classical.choice import Trial
from metapl.methods.seen import Fitted, Prior, Seen
from metapl.methods.spec import MethodSpec, NetworkSpec, PhaseSpec

NEAREST = 10
"""Neighbours of each example, in the graph and in the votes."""

LEAST = -20.0
"""The least log-probability of the regression: that of the graph is never far below it."""

STRENGTHS = (1.0, 10.0, 100.0)
"""C of the regression, over the number of labels a class; so that one label a class counts for little beside the graph.

The first one where no label can be left out.
"""

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""How much the regression may count."""

TEMPERATURES = (0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 1.5, 2.5)
"""The best one is taken before shares are compared: a pooled answer is seldom as sure as it should be."""

RARELY = -9.0
"""The least log-probability that a label which is left out counts with, so that no single one decides."""

CHOOSING = 3000
"""Unlabelled examples beside the known ones, on which shares are compared."""


class Experts(NamedTuple):
    """What the two say of the same examples: log-probabilities `[examples, classes]`, float64."""

    regression: Tensor
    graph: Tensor
    labels: float
    """Labels a class, that they learnt from."""

    def pooled(self, share: float, prior: Prior | None) -> Tensor:
        """log of p^share · q^(1 − share), normalised and shifted to the prior, or to an estimate if that is a guess."""
        found = share * self.regression + (1.0 - share) * self.graph
        if prior is None:
            return torch.log_softmax(found, dim=1)
        return shares.shifted(found, shares.shrunk(found, prior.shares, self.labels) if prior.guess else prior.shares)


def by_graph(weights: sparse.csr_matrix, labels: list[Tensor], classes: int) -> list[Tensor]:
    """What a graph says of all its examples, `[examples, classes]`, float64, for each of several sets of labels.

    Args:
        weights: the graph.
        labels: classes, int64; −1 where the class is not known.
        classes: how many there are.
    """
    charged = torch.cat([poisson.charges(y, classes) for y in labels], dim=1)
    return [poisson.logits(one) for one in poisson.potentials(weights, charged).split(classes, dim=1)]


def experts(z: Tensor, y: Tensor, graph: Tensor, strength: float) -> Experts:
    """A regression that learns from the known ones of some classes, and a graph that has.

    Args:
        z: scaled inputs `[examples, components]`.
        y: classes, int64; −1 where the class is not known.
        graph: what the graph says, `[examples, classes]`, float64.
        strength: C over the number of labels a class.
    """
    known, classes = y >= 0, graph.shape[1]
    labels = max(1.0, int(known.sum()) / classes)
    weight, bias = linear.fit(z[known], y[known], strength * labels, classes)
    return Experts(torch.log_softmax((z @ weight.T + bias).double(), dim=1).clamp(min=LEAST), graph, labels)


def evidence(seen: Seen, name: str, trial: Trial) -> Tensor:
    """How likely the labels that are left out are, `[strengths, shares]`: log-likelihoods, float64.

    That of the best temperature, under which the answers are as sure as they should be.

    Args:
        seen: the examples.
        name: of the scaling.
        trial: which labels are shown, and which are left out.
    """
    some = seen.x[: len(seen.y) + CHOOSING]
    z = scaling.fit(name, some, seen.form)(some)
    labels = [hidden(len(z), seen.y, one.shown) for one in trial.rounds]
    graphs = by_graph(poisson.graph(z, NEAREST), labels, seen.classes)
    y = torch.cat([seen.y[one.asked] for one in trial.rounds])
    found = []
    for strength in STRENGTHS:
        both = [experts(z, shown, graph, strength) for shown, graph in zip(labels, graphs, strict=True)]
        for share in SHARES:
            said = [one.pooled(share, seen.prior)[of.asked] for one, of in zip(both, trial.rounds, strict=True)]
            found.append(_likelihood(torch.cat(said), y))
    return torch.stack(found).reshape(len(STRENGTHS), len(SHARES))


def _likelihood(said: Tensor, y: Tensor) -> Tensor:
    """The log-likelihood of classes under log-probabilities `[examples, classes]` at their best temperature."""
    tempered = [torch.log_softmax(said / one, dim=1)[torch.arange(len(y)), y] for one in TEMPERATURES]
    return torch.stack([one.clamp(min=RARELY).sum() for one in tempered]).max()


def hidden(count: int, y: Tensor, shown: Tensor) -> Tensor:
    """The classes of so many examples, int64, of which some indices are shown; −1 for all others."""
    found = torch.full((count,), -1)
    found[shown] = y[shown]
    return found


class Weighing(NamedTuple):
    """What was found on the labels that were left out."""

    scaling: str
    strength: float
    share: float
    how: str


def weigh(seen: Seen) -> Weighing:
    """The scaling, the strength of the regression, and how much it counts.

    The share is the mean of its posterior over `SHARES`; scalings and strengths are those with the most evidence. All
    start out equal. Several scalings are compared for arrays, of which nothing is known.
    """
    names = scaling.preferred(seen.form)
    names = names if seen.form.kind == "arrays" else names[:1]
    trial = choice.trial(seen)
    if not trial.rounds:
        return Weighing(names[0], STRENGTHS[0], 0.5, trial.name)
    settings = list(itertools.product(names, STRENGTHS))
    posterior = torch.softmax(torch.cat([evidence(seen, name, trial) for name in names]).flatten(), dim=0)
    of = posterior.reshape(len(settings), len(SHARES))
    best = int(of.sum(1).argmax())
    share = float((of[best] * torch.tensor(SHARES, dtype=of.dtype)).sum() / of[best].sum())
    return Weighing(*settings[best], share, trial.name)


def fit(seen: Seen) -> Fitted:
    """The classifier of a run: votes of the nearest examples of the pool; labelled examples keep their labels in it."""
    found = weigh(seen)
    scaled, z = scaling.apart(seen, found.scaling)
    y = hidden(len(z), seen.y, torch.arange(seen.labelled))
    (graph,) = by_graph(poisson.graph(z, NEAREST), [y], seen.classes)
    both = experts(z, y, graph, found.strength)
    said = both.pooled(found.share, seen.prior).exp().float()
    said[: seen.labelled] = torch.nn.functional.one_hot(y[: seen.labelled], seen.classes).float()
    network = spreading.votes(scaled, z, said, min(NEAREST, len(z) - 1))
    regression = f"{found.share:.0%} regression with C = {found.strength * both.labels:.3g}"
    return Fitted({"consensus": network}, f"{found.scaling}, {NEAREST} neighbours, {regression}; {found.how}")


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
