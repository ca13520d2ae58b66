"""Which examples to label next: strategies as values, each from what the networks of a run say to an order.

    margin         the two most probable classes are close
    entropy        all classes are
    disagreement   the networks of the run say different things
    diverse        as margin, with examples that differ from each other
    effect         whatever label comes, it moves the loss on the labelled examples far

A strategy is a constructor with keyword-only hyperparameters, and a line in `STRATEGIES`.

Examples:
    >>> import torch
    >>> from metapl.serving.strategies import Asked, margin
    >>> logits = torch.tensor([[4.0, 0.0], [0.1, 0.0], [1.0, 0.0]])
    >>> margin()(Asked(logits), 2).examples.tolist()
    [1, 2]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from metapl.core import rng


def _nothing() -> Tensor:
    return torch.zeros(0)


class Asked(NamedTuple):
    """What is known of the examples that may be labelled; what costs a pass over them is a function."""

    logits: Tensor
    """Of the network that the run is about, `[examples, classes]`, float64."""
    networks: Callable[[], Sequence[Tensor]] = tuple
    """Logits of every network of the run, `[examples, classes]` each."""
    features: Callable[[], Tensor] = _nothing
    """What the last layer of the network sees, `[examples, features]`."""
    slopes: Callable[[], Tensor] = _nothing
    """Directional derivatives of the logits along the gradient g of the loss on the labelled examples, J g,
    `[examples, classes]`."""


class Picked(NamedTuple):
    """Examples in the order in which they are worth a label, and their scores; larger is better."""

    examples: Tensor
    """Their positions."""
    score: Tensor


Strategy: TypeAlias = Callable[[Asked, int], Picked]
"""`strategy(asked, count)`: the examples to label, at most `count`."""


def _largest(score: Tensor, count: int) -> Picked:
    index = torch.argsort(score, descending=True, stable=True)[:count]
    return Picked(index, score[index])


def margin() -> Strategy:
    """1 − (p₁ − p₂) of the two most probable classes: 1 where the network cannot say which.

    Cost: none beyond the predictions. Scheffer et al., "Active Hidden Markov Models for Information Extraction",
    IDA 2001.
    """
    return lambda asked, count: _largest(_margins(asked.logits), count)


def _margins(logits: Tensor) -> Tensor:
    best = torch.softmax(logits, -1).topk(2, dim=-1).values
    return 1 - (best[:, 0] - best[:, 1])


def entropy() -> Strategy:
    """H(p) = −Σ p log p of the predicted probabilities, in nats. Cost: none beyond the predictions.

    Settles, "Active Learning Literature Survey", 2009, section 3.1.
    """
    return lambda asked, count: _largest(_entropies(torch.softmax(asked.logits, -1)), count)


def _entropies(probabilities: Tensor) -> Tensor:
    return torch.special.entr(probabilities).sum(-1)


def disagreement() -> Strategy:
    """H(mean p) − mean H(p) over the networks of the run, in nats: 0 where all say the same, however unsure they are.

    The generalised Jensen-Shannon divergence. Cost: a forward pass of every network. McCallum and Nigam, "Employing EM
    and Pool-Based Active Learning for Text Classification", ICML 1998; Houlsby et al., arXiv:1112.5745.
    """

    def pick(asked: Asked, count: int) -> Picked:
        said = torch.stack([torch.softmax(one.double(), -1) for one in asked.networks()])
        return _largest(_entropies(said.mean(0)) - _entropies(said).mean(0), count)

    return pick


def diverse(*, seed: int = 0) -> Strategy:
    """k-means++ on the gradient of the loss for the predicted label in the last layer, (p − e_ŷ) ⊗ h.

    Its length says how unsure the network is, its direction between what, and of what kind the example is. The first
    one is the longest; each further one is drawn with probability ∝ the squared distance to the nearest one that is
    taken, which is its score. No outer product is formed: ⟨a ⊗ h, b ⊗ k⟩ = ⟨a, b⟩⟨h, k⟩. Cost: a forward pass, then
    `count` passes over `[examples, features + classes]`. Ash et al., "Deep Batch Active Learning by Diverse, Uncertain
    Gradient Lower Bounds", ICLR 2020 (BADGE).
    """

    def pick(asked: Asked, count: int) -> Picked:
        features, probabilities = asked.features().double(), torch.softmax(asked.logits, -1)
        errors = probabilities - torch.nn.functional.one_hot(probabilities.argmax(-1), probabilities.shape[-1])
        squares = errors.square().sum(-1) * features.square().sum(-1)
        nearest, taken = squares.clone(), [int(squares.argmax())]
        scores = [float(squares.max())]
        draws = rng.uniform(rng.key(seed), (count,), torch.float64).tolist()
        for draw in draws[1 : len(squares)]:
            last = taken[-1]
            products = (errors @ errors[last]) * (features @ features[last])
            nearest = torch.minimum(nearest, (squares + squares[last] - 2 * products).clamp(min=0))
            nearest[taken] = 0
            total = nearest.cumsum(0)
            if not total[-1] > 0:  # nothing is left that differs from what is taken
                break
            taken.append(int(torch.searchsorted(total, draw * total[-1])))
            scores.append(float(nearest[taken[-1]]))
        return Picked(torch.tensor(taken), torch.tensor(scores, dtype=torch.float64))

    return pick


def effect() -> Strategy:
    """The standard deviation, over the label that is drawn from p, of how fast it moves the loss on labelled examples.

    A step of length η on an example with label c changes that loss by −η ⟨g, ∇ℓ_c⟩ = −η (⟨p, s⟩ − s_c) to first order,
    with g its gradient and s = J g the slopes of the logits. The mean over c ~ p is zero for every example, so that
    the deviation √(Σ p_c (s_c − ⟨p, s⟩)²) says how much the label matters. It is exact for one plain step. Cost: the
    gradient, and one forward-mode pass over the examples, about three forward passes.
    """

    def pick(asked: Asked, count: int) -> Picked:
        probabilities, slopes = torch.softmax(asked.logits, -1), asked.slopes().double()
        mean = (probabilities * slopes).sum(-1, keepdim=True)
        return _largest((probabilities * (slopes - mean).square()).sum(-1).sqrt(), count)

    return pick


STRATEGIES: dict[str, Callable[..., Strategy]] = {
    "margin": margin,
    "entropy": entropy,
    "disagreement": disagreement,
    "diverse": diverse,
    "effect": effect,
}
"""The strategies by name, for `metapl suggest --by NAME:key=value,…`."""
