"""Every estimator against its claim: finite differences of torch's own steps, enumeration, `higher`, by hand."""

import functools

import higher
import pytest
import torch
from asserts import assert_close_tree, assert_pure, assert_same_gradient, finite_differences, relative_error
from problems import (
    NETWORKS,
    OPTIMIZERS,
    arguments,
    estimate,
    exam_gradient,
    gradients_of,
    inner_product,
    learner_gradient,
    load_torch,
    make,
    run_torch,
    soft_exam,
    tuples,
)
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from metapl import estimators
from metapl.estimators import ESTIMATORS

DIFFERENTIATED = ["mlp", "dead-input", "batchnorm", "batchnorm-eval", "tied", "layernorm"]

SEVERAL = ["exact", "unroll"]
"""The estimators that take more than one inner step."""


def claiming(*claims):
    return sorted(name for name, build in ESTIMATORS.items() if build().claim in claims)


@functools.cache
def truth(network, rule, steps=1, batch=4, warm=True):
    """Finite differences of the exam loss in the soft lessons; torch alone takes the steps."""
    case = make(network, rule, steps=steps, batch=batch, warm=warm)
    return finite_differences(lambda lessons: soft_exam(case, lessons), case.lessons)


@pytest.mark.parametrize("rule", OPTIMIZERS)
@pytest.mark.parametrize("network", DIFFERENTIATED)
def test_exact_claims_equal_finite_differences(network, rule):
    for name in claiming("exact"):
        feedback = estimate(make(network, rule), name)
        assert_same_gradient(feedback.lessons, truth(network, rule), norm_tol=1e-6, cosine_tol=1e-12)
        assert relative_error(feedback.lessons, truth(network, rule)) <= 1e-6


@pytest.mark.parametrize("rule", ["sgd", "momentum", "nesterov"])
@pytest.mark.parametrize("name", claiming("exact"))
def test_exact_claims_hold_with_a_fresh_optimiser(name, rule):
    feedback = estimate(make("mlp", rule, warm=False), name)
    assert relative_error(feedback.lessons, truth("mlp", rule, warm=False)) <= 1e-6


@pytest.mark.parametrize("rule", ["sgd", "momentum", "nesterov", "adamw", "cosine"])
@pytest.mark.parametrize("network", ["mlp", "dead-input", "batchnorm", "tied"])
@pytest.mark.parametrize("name", SEVERAL)
def test_three_steps_equal_finite_differences(name, network, rule):
    feedback = estimate(make(network, rule, steps=3, batch=2), name)
    assert len(feedback.lessons) == 3
    for found, expected in zip(feedback.lessons, truth(network, rule, steps=3, batch=2), strict=True):
        assert_same_gradient(found, expected, norm_tol=1e-6, cosine_tol=1e-12)


@pytest.mark.xfail(strict=True, reason="running statistics are data: no gradient flows through them to a later step")
def test_unroll_differentiates_running_statistics():
    feedback = estimate(make("batchnorm-eval", "sgd", steps=3, batch=2), "unroll")
    assert relative_error(feedback.lessons, truth("batchnorm-eval", "sgd", steps=3, batch=2)) <= 1e-6


@pytest.mark.parametrize("labels", ["soft", "sampled", "argmax"])
@pytest.mark.parametrize("rule", OPTIMIZERS)
@pytest.mark.parametrize("network", NETWORKS)
def test_exact_equals_unroll(network, rule, labels):
    case = make(network, rule, labels)
    one, other = estimate(case, "exact"), estimate(case, "unroll")
    assert_same_gradient(one.lessons, other.lessons, norm_tol=1e-10, cosine_tol=1e-20)
    assert_close_tree((one.learner, one.outer, one.scale), (other.learner, other.outer, other.scale), rtol=1e-12)


@pytest.mark.parametrize("rule", OPTIMIZERS)
@pytest.mark.parametrize("network", DIFFERENTIATED)
@pytest.mark.parametrize("name", [name for name in ESTIMATORS if "soft" in ESTIMATORS[name]().labels])
def test_the_learner_takes_torchs_step(name, network, rule):
    case = make(network, rule)
    feedback = estimate(case, name)
    outer, module, _ = run_torch(case, [torch.softmax(case.lessons[0], dim=-1)])
    assert_close_tree(feedback.learner.params, dict(module.named_parameters()), rtol=1e-12)
    assert_close_tree(feedback.learner.buffers, _buffers_after_learning(case), rtol=1e-12)
    assert_close_tree(feedback.outer, outer, rtol=1e-12)


def _buffers_after_learning(case):
    """The exam is a probe: the statistics are those after the learner's own forward pass."""
    module, _, _ = load_torch(case)
    module(case.batches[0])
    return dict(module.named_buffers())


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("rule", ["sgd", "momentum", "nesterov"])
def test_unroll_equals_higher(rule, steps):
    case = make("mlp", rule, steps=steps)
    module, optimizer, _ = load_torch(case)
    lessons = [lesson.clone().requires_grad_() for lesson in case.lessons]
    with higher.innerloop_ctx(module, optimizer) as (learner, steps_taken):
        for lesson, x in zip(lessons, case.batches, strict=True):
            steps_taken.step(F.cross_entropy(learner(x), torch.softmax(lesson, dim=-1)))
        x, y = case.exam
        expected = torch.autograd.grad(F.cross_entropy(learner(x), y), lessons)
    assert_close_tree(estimate(case, "unroll").lessons, expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["exact", "unroll", "first-order"])
def test_scale_by_hand_for_sgd(name):
    """u = −lr v, so |u||g| = lr |v||g|."""
    case = make("mlp", "sgd", "sampled")
    target = case.problem.labels.teach(case.lessons[0], case.key)
    g, v = learner_gradient(case, target), exam_gradient(case, target)
    assert_close_tree(estimate(case, name).scale, 0.3 * (inner_product(g, g) * inner_product(v, v)).sqrt(), rtol=1e-12)


@pytest.mark.parametrize("rule", ["nesterov", "adamw", "clipped", "cosine"])
@pytest.mark.parametrize("steps", [1, 2])
def test_scale_sums_the_norms_of_u_and_g(rule, steps):
    """u by finite differences of torch's run in what is added to its gradients."""
    case = make("linear", rule, steps=steps, batch=2)
    targets = [torch.softmax(lesson, dim=-1) for lesson in case.lessons]
    zeros = [{name: torch.zeros_like(value) for name, value in case.learner.params.items()} for _ in targets]
    u = finite_differences(lambda nudges: run_torch(case, targets, nudges)[0], zeros, width=1e-4)
    grads = [_gradient_before_step(case, targets, index) for index in range(steps)]
    expected = sum((inner_product(a, a) * inner_product(b, b)).sqrt() for a, b in zip(u, grads, strict=True))
    for name in ["unroll", "exact"] if steps == 1 else ["unroll"]:
        assert_close_tree(estimate(case, name).scale, expected, rtol=1e-6)


def _gradient_before_step(case, targets, index):
    """The raw gradient of step `index`, before clipping."""
    _, module, _ = run_torch(case._replace(batches=case.batches[:index]), targets[:index])
    return gradients_of(F.cross_entropy(module.train()(case.batches[index]), targets[index]), module)


@pytest.mark.parametrize(("rule", "lr"), [("sgd", 0.3), ("momentum", 0.2)])
@pytest.mark.parametrize("draw", range(3))
def test_exact_for_a_draw_is_the_expected_score_function(rule, lr, draw):
    """Σ_y P(y) ⟨u, g(y)⟩ ∇ log P(y) over all label tuples y, with u = −lr v of the step on the draw."""
    case = make("mlp", rule, "sampled", batch=3)
    case = case._replace(key=case.key + draw)
    v = exam_gradient(case, case.problem.labels.teach(case.lessons[0], case.key))
    p = torch.softmax(case.lessons[0], dim=-1)
    expected = sum(
        (p * y).sum(-1).prod() * -lr * inner_product(v, learner_gradient(case, y)) * (y - p) for y in tuples(len(p))
    )
    assert_close_tree(estimate(case, "exact").lessons, (expected,), rtol=1e-9)


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize(("network", "rule"), [("batchnorm", "adamw"), ("dead-input", "clipped"), ("tied", "nesterov")])
def test_estimators_are_pure(name, network, rule):
    estimator = ESTIMATORS[name]()
    case = make(network, rule, estimator.labels[0])
    feedback, _ = assert_pure(estimator.estimate, *arguments(case, estimator))
    assert len(feedback.lessons) == 1
    assert feedback.lessons[0].shape == case.lessons[0].shape
    assert feedback.lessons[0].dtype == torch.float64
    assert feedback.outer.shape == feedback.scale.shape == ()
    assert all(torch.isfinite(value).all() for value in (*feedback.lessons, feedback.outer, feedback.scale))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_kind_of_labels_it_names_works_and_gives_feedback(name):
    for labels in ESTIMATORS[name]().labels:
        feedback = estimate(make("mlp", "momentum", labels), name)
        assert (feedback.lessons[0].norm() > 0) == (ESTIMATORS[name]().claim != "zero")


@pytest.mark.parametrize("rule", ["nesterov", "adamw"])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_parameters_and_state_are_matched_by_name(name, rule):
    """A state that comes back from a checkpoint may list the parameters in another order."""
    case = make("mlp", rule, ESTIMATORS[name]().labels[0])
    state = case.learner.opt_state
    turned = {
        field: dict(reversed(value.items())) for field, value in state._asdict().items() if isinstance(value, dict)
    }
    assert turned
    other = case._replace(learner=case.learner._replace(opt_state=state._replace(**turned)))
    one, two = estimate(case, name), estimate(other, name)
    assert_close_tree((two.lessons, two.outer, two.scale), (one.lessons, one.outer, one.scale), rtol=1e-12)


@pytest.mark.parametrize("name", claiming("zero"))
def test_zero_claims_give_zeros_and_still_learn(name):
    case = make("batchnorm", "adamw")
    feedback = estimate(case, name)
    assert torch.equal(feedback.lessons[0], torch.zeros_like(case.lessons[0]))
    assert_close_tree(feedback.outer, soft_exam(case, case.lessons), rtol=1e-12)


@pytest.mark.parametrize("labels", ["soft", "sampled", "argmax"])
@pytest.mark.parametrize("rule", OPTIMIZERS)
def test_three_steps_of_exact_equal_those_of_unroll(rule, labels):
    case = make("batchnorm", rule, labels, steps=3, batch=3)
    one, other = estimate(case, "exact"), estimate(case, "unroll")
    assert_close_tree(one._replace(info={}), other, rtol=1e-10)


@pytest.mark.parametrize("name", sorted(set(ESTIMATORS) - set(SEVERAL)))
def test_one_step_estimators_refuse_two(name):
    case = make("mlp", "sgd", ESTIMATORS[name]().labels[0], steps=2)
    with pytest.raises(ValueError, match="one inner step, got 2 lessons"):
        estimate(case, name)


def test_unroll_refuses_a_lesson_without_a_batch():
    case = make("mlp", steps=2)
    with pytest.raises(ValueError, match="shorter"):
        estimate(case._replace(batches=case.batches[:1]), "unroll")


@pytest.mark.parametrize("build", [estimators.exact, estimators.unroll])
def test_a_parameter_that_the_learner_does_not_use(build):
    """Its gradient is zero, and the exam may still use it."""
    case = make("mlp", "momentum")
    extra = {**case.learner.params, "bias": torch.ones((), dtype=torch.float64)}
    state = case.learner.opt_state
    state = state._replace(momentum={**state.momentum, "bias": torch.ones((), dtype=torch.float64)})

    def inner(params, *rest):
        return case.problem.inner({k: v for k, v in params.items() if k != "bias"}, *rest)

    def outer(params, *rest):
        plain = {k: v for k, v in params.items() if k != "bias"}
        return case.problem.outer(plain, *rest) * params["bias"]

    problem, learner = case.problem._replace(inner=inner, outer=outer), case.learner._replace(params=extra)
    changed = case._replace(problem=problem, learner=learner._replace(opt_state=state))
    feedback, _ = build().estimate(*arguments(changed, build()))
    after = 1.0 - 0.2 * 0.9  # the warm momentum moves it
    assert_close_tree(list(feedback.lessons), [after * lesson for lesson in truth("mlp", "momentum")], rtol=1e-6)
