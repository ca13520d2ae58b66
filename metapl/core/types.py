"""The nouns of metapl, on one page.

Everything is a value: networks, optimisers and estimators are small named tuples of pure functions, and all
state is a pytree of tensors that goes in and comes out. A *learner* (the student) takes steps on what a *lesson*
(the teacher's logits) tells it, then sits an *exam* (the labelled loss). An *estimator* returns the *feedback*:
the gradient of the exam loss with respect to the lesson. It never sees the teacher, so the same estimators serve
whatever else may be a lesson: example weights, synthetic data, hyperparameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from torch import Tensor

PyTree: TypeAlias = Any
"""Nested dicts, lists, tuples and named tuples with tensors at the leaves."""

Params: TypeAlias = dict[str, Tensor]
"""Trainable tensors by qualified name."""

Buffers: TypeAlias = dict[str, Tensor]
"""Tensors that a network carries but nobody differentiates: BatchNorm's running statistics, frozen parameters."""

Key: TypeAlias = Tensor
"""Randomness as a value: an int64 scalar, see `metapl.core.rng`."""

Claim: TypeAlias = Literal["exact", "unbiased", "approximate", "zero", "wrong"]
"""What an estimator promises of its feedback; the tests hold each one to its claim. Wrong ones serve comparisons."""


class Model(NamedTuple):
    """A network as two pure functions; `metapl.nn.functional.from_module` makes one of any `nn.Module`."""

    init: Callable[[Key], tuple[Params, Buffers]]
    """`init(key)`: fresh parameters and buffers."""
    apply: Callable[..., tuple[Tensor, Buffers]]
    """`apply(params, buffers, x, *, train, key=None)`: logits `[batch, classes]` and the buffers after the pass."""
    scales: frozenset[str] = frozenset()
    """The parameters of normalisation layers, by name, which weight decay leaves alone."""
    coupled: bool = False
    """Whether the examples of a batch see each other in training, as they do through BatchNorm."""
    frozen: frozenset[str] = frozenset()
    """The parameters that are not trained, by name: they are among the buffers."""


class Rule(NamedTuple):
    """How an optimiser was made, for whoever must say it in other terms (`metapl.optim.bridge`)."""

    name: str
    """The constructor's name in `metapl.optim`."""
    options: dict[str, Any]
    """All of its arguments by name."""


class Optimizer(NamedTuple):
    """An update rule as two pure functions, differentiable in every argument."""

    init: Callable[[Params], PyTree]
    """`init(params)`: the state before the first step."""
    update: Callable[[Params, PyTree, Params], tuple[Params, PyTree]]
    """`update(grads, state, params)`: what to *add* to the parameters, and the next state."""
    rule: Rule | None = None
    """How it was made; None where nobody can say."""


class Learner(NamedTuple):
    """Everything about a network in training that changes from step to step."""

    params: Params
    buffers: Buffers
    opt_state: PyTree


class Labels(NamedTuple):
    """How a lesson (logits) becomes the targets that the learner is taught; see `metapl.core.targets`."""

    teach: Callable[[PyTree, Key], PyTree]
    """`teach(lesson, key)`: targets, differentiable in the lesson as their expectation over the key is."""
    log_prob: Callable[[PyTree, PyTree], Tensor] | None
    """`log_prob(lesson, targets)`: log-probability `[batch]` of drawn targets; None where nothing is drawn."""


class Problem(NamedTuple):
    """A bilevel problem: what the learner minimises, what it is examined on, and how it steps.

    `inner` returns one loss per example because per-example credit is what makes low-variance estimators possible;
    the learner minimises the mean.
    """

    inner: Callable[[Params, Buffers, PyTree, PyTree], tuple[Tensor, Buffers]]
    """`inner(params, buffers, targets, batch)`: losses `[batch]` and the buffers after the pass."""
    outer: Callable[[Params, Buffers, PyTree], Tensor]
    """`outer(params, buffers, exam)`: the exam loss, a scalar. A probe: it returns no buffers."""
    optimizer: Optimizer
    labels: Labels


class Assignment(NamedTuple):
    """What an estimator is called with, but for its memory."""

    problem: Problem
    lessons: Sequence[PyTree]
    """One for each inner step."""
    learner: Learner
    """Before the first step."""
    batches: Sequence[PyTree]
    """One for each inner step."""
    exam: PyTree
    key: Key
    """Draws the labels, and whatever else the estimator draws."""


class Feedback(NamedTuple):
    """What an estimator returns."""

    lessons: Sequence[PyTree]
    """One cotangent per inner step, shaped as its lesson: (an estimate of) d exam loss / d lesson."""
    learner: Learner
    """The learner after its steps."""
    outer: Tensor
    """The exam loss of that learner, a scalar."""
    inner: Tensor
    """The learner's mean loss on what it was taught, before its step; the mean over steps if there are several."""
    scale: Tensor
    """Σ |u||g| over the steps: g is the learner's gradient, u the exam's gradient with respect to g. Feedback divided
    by it is the paper's cosine normalisation: no feedback can change the exam loss by more, to first order."""
    info: dict[str, Tensor]
    """Scalars worth logging."""


class Estimator(NamedTuple):
    """A meta-gradient estimator: a value made by a constructor with its hyperparameters, such as `exact()`."""

    init: Callable[[], PyTree]
    """`init()`: the memory before the first estimate, such as a moving baseline; `()` for most."""
    estimate: Callable[..., tuple[Feedback, PyTree]]
    """`estimate(problem, lessons, learner, batches, exam, memory, key)`: the feedback and the next memory."""
    claim: Claim
    labels: tuple[str, ...]
    """The kinds of labels (keys of `metapl.core.targets.LABELS`) that it can use; the first is its default."""
    cost: str
    """Cost beyond the learner's own step, in passes of the learner: F forward, B backward; K steps."""
    several: bool = True
    """Whether it takes more than one inner step."""
    accepts: Callable[[Optimizer], object] = lambda optimizer: None  # noqa: ARG005
    """`accepts(optimizer)`: an `InputError` for a learner's optimiser that it refuses, before anything is trained."""
