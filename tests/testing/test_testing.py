"""`check_estimator` passes every estimator that there is, and fails those that are wrong on purpose."""

import pytest
import torch

from metapl import estimators
from metapl.core import autodiff, tree
from metapl.core.types import Estimator, MetaGradient
from metapl.estimators import ESTIMATORS, instances, one_step
from metapl.testing import check_estimator, finite_differences

CHEAP = {"forward": {"directions": 1}, "evolution": {"pairs": 2}, "implicit": {"iterations": 3}}
"""Options that spare time and leave the claim as it is."""

VARIANTS = {
    "first-order, unbiased": lambda: estimators.first_order(baseline=0.0, reduction="sum"),
    "exact, of a half": lambda: estimators.exact(fraction=0.5),
    "exact, mixed": lambda: estimators.exact(method="mixed"),
    "implicit, neumann": lambda: estimators.implicit(solver="neumann", iterations=3),
    "implicit, fixed-point": lambda: estimators.implicit(solver="fixed-point", iterations=3),
    "taylor, released": lambda: estimators.taylor(sign="released"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_estimator_passes(name):
    check_estimator(lambda: ESTIMATORS[name](**CHEAP.get(name, {})))


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_passes(name):
    check_estimator(VARIANTS[name])


def stale(claim):
    """`exact` or `first_order` with the outer gradient at the parameters before the step."""

    def estimate(instance, memory):
        theta, batch = instances.single("stale()", instance)
        problem, _, state, _, outer_batch, key = instance
        (targets,) = instances.targets(instance)
        step = one_step.step(instance, targets)
        outer, _ = one_step.outer_gradient(problem, step.state, outer_batch)
        u = step.vjp(one_step.outer_gradient(problem, state._replace(buffers=step.state.buffers), outer_batch)[1])

        def change(theta):
            if claim == "exact":
                derivative = one_step.directional_derivative(problem, state, batch, u)
                return derivative(problem.targets.apply(theta, key))[1].mean(), ()
            return tree.dot(u, step.grads) * problem.targets.log_prob(theta, targets).sum(), ()

        cotangent = autodiff.value_and_grad(change, theta)[2]
        scale = tree.norm(u) * tree.norm(step.grads)
        return MetaGradient((cotangent,), step.state, outer, step.loss, scale, {}), memory

    labels = ("soft",) if claim == "exact" else ("sampled",)
    return Estimator(lambda: (), estimate, claim, labels, "1 F + 1 B", several=False)


def changed(build, change):
    """An estimator whose feedback goes through `change(feedback, memory, instance)`."""
    inner = build()

    def estimate(instance, memory):
        return change(*inner.estimate(instance, memory), instance)

    return inner._replace(estimate=estimate)


def scaled(build, factor):
    def change(feedback, memory, _):
        return feedback._replace(grads=tuple(factor * one for one in feedback.grads)), memory

    return changed(build, change)


def field(**change):
    """`exact` with fields of its feedback replaced by functions of feedback and arguments."""

    def apply(feedback, memory, instance):
        return feedback._replace(**{name: make(feedback, instance) for name, make in change.items()}), memory

    return changed(estimators.exact, apply)


def _probing(feedback, instance):
    problem, _, state, inner_batches, _, _ = instance
    with torch.no_grad():  # a second pass, whose statistics are kept
        targets = torch.full((2, 3), 1.0 / 3.0, dtype=torch.float64)
        buffers = problem.inner(state.params, feedback.state.buffers, targets, inner_batches[-1])[1]
    return feedback.state._replace(buffers=buffers)


def _writing(feedback, instance):
    next(iter(instance.state.params.values())).add_(1e-9)
    return feedback.scale


def _drawing(feedback, instance):
    return feedback.grads[0] * (1.0 + 0.0 * torch.rand(())), *feedback.grads[1:]


def _standing(feedback, instance):
    return instance.state


def _unbiased():
    return estimators.first_order(baseline=0.0, reduction="sum")


WRONG = {
    "exact: sign": (lambda: scaled(estimators.exact, -1.0), "finite differences"),
    "exact: factor": (lambda: scaled(estimators.exact, 1.02), "finite differences"),
    "exact: stale v": (lambda: stale("exact"), "finite differences"),
    "exact: first-order in disguise": (lambda: estimators.sama()._replace(claim="exact"), "finite differences"),
    "exact: truncated in disguise": (
        lambda: estimators.truncated()._replace(claim="exact"),
        "3 steps: the meta-gradient",
    ),
    "unbiased: sign": (lambda: scaled(_unbiased, -1.0), "of the truth"),
    "unbiased: factor": (lambda: scaled(_unbiased, 1.02), "of the truth"),
    "unbiased: stale v": (lambda: stale("unbiased"), "of the truth"),
    "unbiased: the mean over the batch": (
        lambda: estimators.first_order(baseline=0.0)._replace(claim="unbiased"),
        "of the truth",
    ),
    "unbiased: per-example factor": (lambda: scaled(estimators.score, torch.tensor([[1.1], [1.0]])), "direction|truth"),
    "approximate: sign": (
        lambda: estimators.taylor(sign="released")._replace(claim="approximate"),
        "does not point",
    ),
    "zero: not zero": (lambda: estimators.exact()._replace(claim="zero"), "claim zero"),
    "a claim of its own": (lambda: estimators.exact()._replace(claim="perfect"), "is not one of"),
    "labels of its own": (lambda: estimators.exact()._replace(targets=("hard",)), "not among"),
    "several steps, and takes one": (lambda: _unbiased()._replace(several=True), None),
    "one step, and takes several": (lambda: estimators.exact()._replace(several=False), "takes two steps"),
    "a probe that moves the statistics": (lambda: field(state=_probing), "buffers"),
    "a state that stands still": (lambda: field(state=_standing), "parameters after"),
    "an argument written to": (lambda: field(scale=_writing), "writes to its arguments"),
    "the global generator": (lambda: field(grads=_drawing), "global generator"),
    "another outer loss": (lambda: field(outer=lambda feedback, _: feedback.outer * 1.001), "outer"),
    "another loss": (lambda: field(inner=lambda feedback, _: feedback.inner * 1.001), "inner"),
    "a negative scale": (lambda: field(scale=lambda feedback, _: -feedback.scale), "negative"),
    "a graph that is left": (
        lambda: field(outer=lambda feedback, _: feedback.outer.clone().requires_grad_()),
        "requires a gradient",
    ),
    "single precision": (
        lambda: field(grads=lambda feedback, _: tuple(one.float() for one in feedback.grads)),
        "not shaped as its θ",
    ),
    "memory of another shape": (lambda: changed(estimators.exact, lambda f, m, _: (f, (f.outer,))), "memory"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_one_fails(name):
    build, message = WRONG[name]
    with pytest.raises((AssertionError, ValueError), match=message):
        check_estimator(build)


@pytest.mark.slow
def test_an_estimator_that_torch_cannot_vectorise_is_looped_over():
    calls = []

    def change(feedback, memory, instance):
        calls.append(int(instance.key))  # a key as a number: torch.vmap refuses
        return feedback, memory

    check_estimator(lambda: changed(estimators.gumbel, change))
    assert len(set(calls)) > 500


def test_finite_differences_of_a_polynomial():
    at = {"x": torch.tensor([1.0, -2.0], dtype=torch.float64), "y": torch.tensor(3.0, dtype=torch.float64)}
    found = finite_differences(lambda t: (t["x"] ** 3).sum() * t["y"], at)
    assert torch.allclose(found["x"], torch.tensor([9.0, 36.0], dtype=torch.float64), rtol=1e-9)
    assert float(found["y"]) == pytest.approx(-7.0, rel=1e-9)
