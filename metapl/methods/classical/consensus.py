"""The consensus of a logistic regression and a graph: what guides the consistency loss of a network, see `guide`.

    labelled examples ─► logistic regression ─► p of every example ─┐
                                                                    ├─► p^share · q^(1 − share) ─► shifted to the prior
    all examples ─► graph of neighbours ─► Poisson learning ─► q ───┘

The two err in different places: the regression sees directions and few labels, the graph sees clusters and all
examples. How much the regression counts is learnt from labels that are left out, and one half where nothing can be.
"""

from __future__ import annotations

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


def ask(z: Tensor, weights: sparse.csr_matrix, labels: list[Tensor], classes: int) -> list[Experts]:
    """What the experts say of some examples, for each of several sets of labels.

    The regression's C is the number of labels a class, so that one label a class counts for little beside the graph.

    Args:
        z: scaled inputs `[examples, components]`.
        weights: the graph of them.
        labels: classes, int64; −1 where the class is not known.
        classes: how many there are.
    """
    charged = torch.cat([poisson.charges(y, classes) for y in labels], dim=1)
    found = poisson.potentials(weights, charged).split(classes, dim=1)
    return [_experts(z, y, poisson.logits(one)) for y, one in zip(labels, found, strict=True)]


def _experts(z: Tensor, y: Tensor, graph: Tensor) -> Experts:
    known, classes = y >= 0, graph.shape[1]
    labels = max(1.0, int(known.sum()) / classes)
    weight, bias = linear.fit(z[known], y[known], labels, classes)
    return Experts(torch.log_softmax((z @ weight.T + bias).double(), dim=1).clamp(min=LEAST), graph, labels)


def evidence(seen: Seen, name: str, trial: Trial) -> Tensor:
    """How likely the labels that are left out are under each of the `SHARES`: log-likelihoods, float64.

    That of the best temperature, under which the answers are as sure as they should be.

    Args:
        seen: the examples.
        name: of the scaling.
        trial: which labels are shown, and which are left out.
    """
    some = seen.x[: len(seen.y) + CHOOSING]
    z = scaling.fit(name, some, seen.form)(some)
    labels = [hidden(len(z), seen.y, one.shown) for one in trial.rounds]
    experts = ask(z, poisson.graph(z, NEAREST), labels, seen.classes)
    y = torch.cat([seen.y[one.asked] for one in trial.rounds])
    found = []
    for share in SHARES:
        said = torch.cat(
            [one.pooled(share, seen.prior)[of.asked] for one, of in zip(experts, trial.rounds, strict=True)]
        )
        tempered = [torch.log_softmax(said / one, dim=1)[torch.arange(len(y)), y] for one in TEMPERATURES]
        found.append(torch.stack([one.clamp(min=RARELY).sum() for one in tempered]).max())
    return torch.stack(found)


def hidden(count: int, y: Tensor, shown: Tensor) -> Tensor:
    """The classes of so many examples, int64, of which some indices are shown; −1 for all others."""
    found = torch.full((count,), -1)
    found[shown] = y[shown]
    return found


class Weighing(NamedTuple):
    """What was found on the labels that were left out."""

    scaling: str
    share: float
    how: str


def weigh(seen: Seen) -> Weighing:
    """The scaling, and how much the regression counts: the mean of its posterior over `SHARES`, which start out equal.

    Several scalings are compared for arrays, of which nothing is known; the one with the most evidence is taken.
    """
    names = scaling.preferred(seen.form)
    names = names if seen.form.kind == "arrays" else names[:1]
    trial = choice.trial(seen)
    if not trial.rounds:
        return Weighing(names[0], 0.5, trial.name)
    posterior = torch.softmax(torch.stack([evidence(seen, name, trial) for name in names]).flatten(), dim=0)
    of = posterior.reshape(len(names), len(SHARES))
    best = int(of.sum(1).argmax())
    share = float((of[best] * torch.tensor(SHARES, dtype=of.dtype)).sum() / of[best].sum())
    return Weighing(names[best], share, trial.name)


def fit(seen: Seen) -> Fitted:
    """The classifier of a run: votes of the nearest examples of the pool; labelled examples keep their labels in it."""
    found = weigh(seen)
    scaled, z = scaling.apart(seen, found.scaling)
    y = hidden(len(z), seen.y, torch.arange(seen.labelled))
    (experts,) = ask(z, poisson.graph(z, NEAREST), [y], seen.classes)
    said = experts.pooled(found.share, seen.prior).exp().float()
    said[: seen.labelled] = torch.nn.functional.one_hot(y[: seen.labelled], seen.classes).float()
    network = spreading.votes(scaled, z, said, min(NEAREST, len(z) - 1))
    about = f"{found.scaling}, {NEAREST} neighbours, {found.share:.0%} regression"
    return Fitted({"consensus": network}, f"{about}; {found.how}")


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
