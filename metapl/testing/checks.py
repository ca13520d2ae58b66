"""The checks, one a property."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, get_args

import torch
from torch import Tensor

from metapl import optim
from metapl.core import rng, tree
from metapl.core.targets import TARGETS
from metapl.core.types import Claim, Estimator, Instance, Key, MetaGradient, PyTree
from metapl.registry.errors import InputError
from metapl.testing.cases import NETWORKS, RULES, gliding, make, mlp, truth, walk

DRAWS, MOST = 4_000, 2_000_000
RESOLUTION = 0.003
"""The standard error, relative to the truth, at which an unbiased claim is judged: 2 % of bias are 6.7 of them."""


def call(estimator: Estimator, case: Instance, key: Key | None = None) -> tuple[MetaGradient, PyTree]:
    """The estimator's first estimate, with the case's own key or another."""
    return estimator.estimate(case if key is None else case._replace(key=key), estimator.init())


def _draws(estimator: Estimator, case: Instance, keys: Tensor) -> Tensor:
    """The meta-gradient for each key `[keys, numbers]`, all at once where the estimator can be vectorised."""

    def one(key: Tensor) -> Tensor:
        return torch.cat(list(call(estimator, case, key)[0].grads))

    try:
        return torch.vmap(one)(keys).flatten(1)
    except (RuntimeError, ValueError, TypeError):  # what torch.vmap raises for what it cannot do
        return torch.stack([one(key) for key in keys]).flatten(1)


def _require(condition: bool | Tensor, message: str) -> None:
    if not bool(condition):
        raise AssertionError(message)


def _close(found: PyTree, expected: PyTree, tolerance: float, what: str) -> None:
    """|found − expected| ≤ tolerance |expected|, over all numbers together: a factor shows as well as an angle."""
    difference = float(tree.norm(tree.map(lambda a, b: (a - b).double(), found, expected)))
    size = float(tree.norm(tree.map(torch.Tensor.double, expected)))
    _require(difference <= tolerance * size, f"{what}: off by {difference:.2e} in {size:.2e}, at most {tolerance:.0e}")


def _cases(estimator: Estimator, labels: str) -> Iterator[tuple[str, Instance]]:
    """Cases that the estimator takes, with what to call them."""
    for network, (build, shape) in NETWORKS.items():
        for rule, optimizer in RULES.items():
            for steps in (1, 3) if estimator.several else (1,):
                case = make(build, shape, optimizer(), labels, steps)
                try:
                    call(estimator, case)
                except InputError:
                    continue  # an optimiser that it refuses
                yield f"{labels} labels, {network}, {rule}, {steps} steps", case


def _check_description(estimator: Estimator) -> None:
    _require(estimator.claim in get_args(Claim), f"claim {estimator.claim!r} is not one of {get_args(Claim)}")
    _require(bool(estimator.targets), "it names no kind of labels")
    for kind in estimator.targets:
        _require(kind in TARGETS, f"labels {kind!r} are not among {', '.join(TARGETS)}")
    _require(bool(estimator.cost), "its cost is empty")


def _state(value: PyTree) -> list[tuple[Any, ...]]:
    leaves = [leaf for leaf in tree.leaves(value) if isinstance(leaf, Tensor)]
    return [(leaf.dtype, leaf.shape, leaf.detach().contiguous().numpy().tobytes(), leaf._version) for leaf in leaves]


def _check_purity(estimator: Estimator, case: Instance, where: str) -> None:
    rest = case[1:]
    before, generator = _state(rest), torch.get_rng_state()
    found, memory = call(estimator, case)
    again = call(estimator, case)
    _require(_state(rest) == before, f"{where}: it writes to its arguments")
    _require(torch.equal(torch.get_rng_state(), generator), f"{where}: it draws from the global generator")
    same = [value[:3] for value in _state(again)] == [value[:3] for value in _state((found, memory))]
    _require(same, f"{where}: the same arguments give different results")
    held = [leaf for leaf in tree.leaves((tuple(found), memory)) if isinstance(leaf, Tensor)]
    _require(not any(leaf.requires_grad for leaf in held), f"{where}: it returns a tensor that requires a gradient")
    structure = tree.flatten(estimator.init())[1]
    _require(tree.flatten(memory)[1] == structure, f"{where}: the next memory is not shaped as the first")


def _check_meta_gradient(estimator: Estimator, case: Instance, where: str) -> None:
    found, _ = call(estimator, case)
    _require(len(found.grads) == len(case.thetas), f"{where}: {len(found.grads)} gradients for {len(case.thetas)} θ")
    for grad, theta in zip(found.grads, case.thetas, strict=True):
        right = grad.shape == theta.shape and grad.dtype == theta.dtype
        _require(right, f"{where}: a gradient is not shaped as its θ")
        _require(torch.isfinite(grad).all(), f"{where}: a gradient is not finite")
        _require(
            estimator.claim != "zero" or not grad.any(), f"{where}: a meta-gradient that is not zero, from claim zero"
        )
    scalars = {name: getattr(found, name) for name in ("outer", "inner", "scale")}
    for name, value in scalars.items():
        _require(value.shape == () and torch.isfinite(value), f"{where}: {name} is not a finite scalar")
    _require(found.scale >= 0, f"{where}: the scale is negative")


def _check_steps(estimator: Estimator, case: Instance, where: str) -> None:
    found, _ = call(estimator, case)
    keys = [case.key] if len(case.thetas) == 1 else [rng.fold_in(case.key, k) for k in range(len(case.thetas))]
    drawn = [case.problem.targets.apply(theta, key) for theta, key in zip(case.thetas, keys, strict=True)]
    train_state, loss = walk(case.problem, drawn, case.state, case.inner_batches)
    _close(found.state.params, train_state.params, 1e-9, f"{where}: the parameters after the inner steps")
    _close(found.state.buffers, train_state.buffers, 1e-9, f"{where}: the buffers, which probes must not touch")
    _close(found.state.opt_state, train_state.opt_state, 1e-9, f"{where}: the optimiser's state")
    _close(found.inner, loss, 1e-9, f"{where}: the mean inner loss before the steps (inner)")
    outer = case.problem.outer(train_state.params, train_state.buffers, case.outer_batch).detach()
    _close(found.outer, outer, 1e-9, f"{where}: the outer loss after the steps (outer)")


def _check_names(estimator: Estimator, case: Instance, where: str) -> None:
    """A state from a checkpoint may list the parameters in another order."""
    state = case.state.opt_state
    fields = {name: value for name, value in state._asdict().items() if isinstance(value, dict)}
    turned = state._replace(**{name: dict(reversed(value.items())) for name, value in fields.items()})
    other = case._replace(state=case.state._replace(opt_state=turned))
    one, two = call(estimator, case)[0], call(estimator, other)[0]
    _close(list(two.grads), list(one.grads), 1e-9, f"{where}: parameters are to be matched by name")


def _check_several(estimator: Estimator, case: Instance) -> None:
    twice = case._replace(thetas=[*case.thetas, *case.thetas], inner_batches=[*case.inner_batches, *case.inner_batches])
    if not estimator.several:
        try:
            call(estimator, twice)
        except ValueError:
            return
        raise AssertionError("it says several=False, and takes two steps")


def _check_exact(estimator: Estimator) -> None:
    _require("soft" in estimator.targets, "an exact claim is checked on soft labels, which it does not take")
    for where, case in _cases(estimator, "soft"):
        found = torch.cat(list(call(estimator, case)[0].grads))
        _close(found, truth(case, "soft"), 1e-6, f"{where}: the meta-gradient, against finite differences")


def _check_unbiased(estimator: Estimator) -> None:
    """Mean over keys of the projection on the truth, which must be 1, and of what is beside it, which must be 0."""
    labels = estimator.targets[0]
    case = gliding(labels)
    true = truth(case, labels).flatten()
    key, total, squares, count = rng.key(14), torch.zeros_like(true), torch.zeros(len(true), len(true)).double(), 0
    while True:
        draws = _draws(estimator, case, rng.fold_in(key, torch.arange(count, count + DRAWS)))
        total, squares, count = total + draws.sum(0), squares + draws.T @ draws, count + DRAWS
        mean = total / count
        covariance = (squares / count - torch.outer(mean, mean)) / count
        error = (true @ covariance @ true).clamp(min=0.0).sqrt() / (true @ true)
        if error <= RESOLUTION:
            break
        _require(count < MOST, f"after {count} draws its mean is known to {float(error):.1%} only: too noisy to judge")
    ratio = true @ mean / (true @ true)
    bound = 4.0 * error + 1e-3  # what the draw changes in the gradient of the outer loss is below a thousandth here
    _require((ratio - 1.0).abs() <= bound, f"its mean is {float(ratio):.4f} ± {float(error):.4f} of the truth, not 1")
    beside = mean - ratio * true
    spread = covariance.diagonal().clamp(min=0.0).sqrt()
    far = (beside.abs() - 1e-3 * true.norm()) / (spread + 1e-12 * true.norm())
    _require(far.max() <= 5.0, f"its mean is {float(far.max()):.1f} standard errors beside the truth's direction")


def _check_approximate(estimator: Estimator) -> None:
    """The mean over draws points where the truth does: the sign is right, and it is no noise."""
    labels = estimator.targets[0]
    case = make(mlp, (4,), optim.sgd(0.1), labels)
    true = truth(case, labels).flatten()
    draws = _draws(estimator, case, rng.fold_in(rng.key(15), torch.arange(1_000)))
    along = draws @ true / true.norm()
    error = along.std() / len(along) ** 0.5
    _require(along.mean() > 5.0 * error, "on average it does not point where the exact meta-gradient does")
    cosine = along.mean() / draws.mean(0).norm()
    _require(cosine > 0.5, f"the cosine of its mean to the exact meta-gradient is {float(cosine):.2f}")


CLAIMS: dict[str, Callable[[Estimator], None]] = {
    "exact": _check_exact,
    "unbiased": _check_unbiased,
    "approximate": _check_approximate,
}
"""The check of each claim."""


def check_estimator(build: Callable[[], Estimator]) -> None:
    """Check that an estimator keeps the contract of `metapl.core.types.Estimator`, and its claim.

    For every kind of labels that it names, on a perceptron and on a convnet with BatchNorm, with three optimisers in
    a warm state, for one step and for three: purity, the shapes, the inner steps themselves, probes that leave the
    statistics alone, parameters matched by name, gradients that are exactly zero. Then the claim, in float64:

    - "exact": it equals finite differences of the outer loss to 10⁻⁶, norm and direction.
    - "unbiased": the mean over draws is the gradient of the expected outer loss; a bias of 2 % fails. Momentum
      carries the parameters far, so that the outer gradient at the old ones fails too.
    - "approximate": the mean over draws points where the exact meta-gradient does.
    - "zero": zeros. "wrong": nothing more.

    Args:
        build: a constructor that needs no arguments, such as `exact`, or `lambda: taylor(sign="paper")`.

    Cost: from a second to a minute on one core; estimators that `torch.vmap` cannot vectorise take longest.

    Raises:
        AssertionError: the first thing that does not hold, in words.
    """
    estimator = build()
    _check_description(estimator)
    for labels in estimator.targets:
        for where, case in _cases(estimator, labels):
            _check_meta_gradient(estimator, case, where)
            _check_purity(estimator, case, where)
            _check_steps(estimator, case, where)
            _check_names(estimator, case, where)
        _check_several(estimator, make(mlp, (4,), RULES["momentum"](), labels))
    CLAIMS.get(estimator.claim, lambda _estimator: None)(estimator)
