"""Label spreading as scikit-learn has it, and a classifier of new examples on what it says.

The classifier is scikit-learn's own, votes of the nearest examples of the pool with their distributions, or a logistic
regression on the classes that spreading gave, weighted by their probabilities.

Examples:
    >>> import torch
    >>> from metapl.methods.classical import spreading
    >>> z = torch.tensor([[0.0], [0.1], [0.2], [5.0], [5.1], [5.2]])
    >>> y = torch.tensor([0, -1, -1, 1, -1, -1])
    >>> spreading.spread(z, y, 2, alpha=0.8, nearest=3).argmax(1)
    tensor([0, 0, 0, 1, 1, 1])
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import torch
from scipy import sparse
from torch import Tensor

from metapl.core.types import Variables
from metapl.methods.classical import choice, linear, scaling
from metapl.methods.classical.choice import Round, Trial
from metapl.methods.seen import Fitted, Seen
from metapl.methods.spec import MethodSpec, NetworkSpec, PhaseSpec
from metapl.models.fitted import Neighbours, Scaled

NEAREST = (20, 10, 7, 5)
"""Neighbours to choose from, the preferred number first."""

ALPHAS = (0.8, 0.2, 0.99)
"""Shares of the neighbours to choose from, the preferred one first."""

C = 10.0
"""Of the logistic regression on what spreading says."""

CHOOSING = 2000
"""Unlabelled examples beside the known ones, on which settings are compared."""


class Settings(NamedTuple):
    """Of `sklearn.semi_supervised.LabelSpreading(kernel="knn")`, and the scaling before it."""

    scaling: str
    nearest: int
    alpha: float


def joined(z: Tensor, nearest: int) -> sparse.csr_matrix:
    """The graph of the kernel "knn": 1 where j is among the `nearest` of i, itself included, `[examples, examples]`."""
    from sklearn.neighbors import kneighbors_graph  # noqa: PLC0415 - a second to import

    return kneighbors_graph(z.numpy(), nearest, include_self=True)


def spread(
    z: Tensor, y: Tensor, classes: int, *, alpha: float, nearest: int = 0, graph: sparse.csr_matrix | None = None
) -> Tensor:
    """The `label_distributions_` of scikit-learn, `[examples, classes]`, float32; zeros where no label arrives.

    Args:
        z: scaled inputs `[examples, components]`.
        y: classes, int64; −1 where the class is not known.
        classes: how many there are.
        alpha: how much of an example's distribution comes from its neighbours, from 0 to 1.
        nearest: neighbours of each example.
        graph: that of `joined`, which several calls can share, in place of `nearest`.

    Cost: without `graph`, the distances of all pairs.
    """
    from sklearn.semi_supervised import LabelSpreading  # noqa: PLC0415 - a second to import

    kernel = {"kernel": "knn", "n_neighbors": nearest} if graph is None else {"kernel": lambda *_: graph}
    with linear.quiet():
        found = LabelSpreading(alpha=alpha, **kernel).fit(z.numpy(), y.numpy())
    said = torch.zeros(len(z), classes)
    said[:, found.classes_] = torch.from_numpy(found.label_distributions_).float()
    return said


class Known(NamedTuple):
    """Examples of which the first have classes: their scaled inputs, the classes, and the graph of all."""

    z: Tensor
    y: Tensor
    graph: sparse.csr_matrix
    classes: int

    def shown(self, one: Round, alpha: float) -> Tensor:
        """What spreading says of all examples `[examples, classes]` from those that a round shows."""
        y = torch.full((len(self.z),), -1)
        y[one.shown] = self.y[one.shown]
        return spread(self.z, y, self.classes, alpha=alpha, graph=self.graph)


def _graphs(seen: Seen) -> dict[tuple[str, int], Known]:
    """By scaling and neighbours, of the known examples and some others."""
    some = seen.x[: len(seen.y) + CHOOSING]
    inputs = {name: scaling.fit(name, some, seen.form)(some) for name in scaling.SCALINGS}
    return {
        (name, nearest): Known(z, seen.y, joined(z, min(nearest, len(z))), seen.classes)
        for (name, z), nearest in itertools.product(inputs.items(), NEAREST)
    }


def choose(seen: Seen) -> tuple[Settings, bool, Trial]:
    """The settings of the spreading, and whether the classifier is a logistic regression, as `choice` has it."""
    trial = choice.trial(seen)
    names = scaling.preferred(seen.form)
    settings = [Settings(*one) for one in itertools.product(names, NEAREST, ALPHAS)]
    if not trial.rounds:
        return settings[0], False, trial
    graphs = _graphs(seen)
    hits = [choice.hits(trial, seen.y, _spreading(graphs[one[:2]], one.alpha)) for one in settings]
    found = settings[choice.best(hits)]
    known = graphs[found[:2]]
    answers = [_spreading(known, found.alpha), _regression(known, found.alpha)]
    return found, bool(choice.best([choice.hits(trial, seen.y, one) for one in answers])), trial


def _spreading(known: Known, alpha: float) -> Callable[[Round], Tensor]:
    return lambda one: known.shown(one, alpha)[one.asked].argmax(1)


def _regression(known: Known, alpha: float) -> Callable[[Round], Tensor]:
    def answer(one: Round) -> Tensor:
        rest = torch.ones(len(known.z), dtype=torch.bool)
        rest[one.asked] = False
        weight, bias = _on_spread(known.z[rest], known.shown(one, alpha)[rest], known.classes)
        return (known.z[one.asked] @ weight.T + bias).argmax(1)

    return answer


def _on_spread(z: Tensor, said: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    importance, y = said.max(1)
    return linear.fit(z, y, C, classes, importance)


def votes(scaled: Scaled, z: Tensor, said: Tensor, nearest: int) -> Variables:
    """A network of the votes of stored examples; see `metapl.models.fitted.Neighbours`.

    Args:
        scaled: the scaling.
        z: scaled inputs of the stored examples, `[examples, components]`.
        said: their distributions, `[examples, classes]`.
        nearest: how many of them vote.
    """
    features, components = scaled.projection.shape
    made = Neighbours(features, said.shape[1], len(z), nearest, components)
    made.scaled, made.examples, made.votes = scaled, z, torch.nn.Parameter(said)
    return Variables({name: value.detach() for name, value in made.named_parameters()}, dict(made.named_buffers()))


def fit(seen: Seen) -> Fitted:
    """The classifier of a run; see `choose`."""
    (name, nearest, alpha), regression, trial = choose(seen)
    scaled, z = scaling.apart(seen, name)
    nearest = min(nearest, len(z))
    y = torch.full((len(z),), -1)
    y[: seen.labelled] = seen.y[: seen.labelled]
    said = spread(z, y, seen.classes, alpha=alpha, nearest=nearest)
    if regression:
        network = linear.network(scaled, *_on_spread(z, said, seen.classes))
    else:
        network = votes(scaled, z, said, nearest)
    then = f"logistic regression, C = {C:g}" if regression else f"votes of {nearest} neighbours"
    return Fitted({"spreading": network}, f"{name}, {nearest} neighbours, alpha {alpha:g}, then {then}; {trial.name}")


METHOD = MethodSpec(
    title="label spreading",
    summary="Label spreading over a graph of neighbours {learnt}.",
    source="label spreading ([Zhou et al., NeurIPS 2003]"
    "(https://proceedings.neurips.cc/paper/2003/hash/87682805257e619d49b8e0dfdc14affa-Abstract.html))",
    phases=(
        PhaseSpec(
            name="spreading",
            fit=fit,
            networks={
                "spreading": NetworkSpec(
                    title="label spreading",
                    role="label spreading over a graph of neighbours (scikit-learn), with a classifier on top",
                    row=3,
                    preference=3,
                    built_from={"": "classical"},
                    colour="sky",
                    dash=(1, 2),
                )
            },
        ),
    ),
    models={},
)
"""The method `spreading`."""
