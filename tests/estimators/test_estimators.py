"""What all estimators share, whatever they claim: the inner steps, purity, labels, keys, refusals."""

import pytest
import torch
from asserts import assert_close_tree, assert_pure
from by_torch import loss_torch, run_torch
from problems import CLASSES, REFUSED, build, estimate, instance_of, make, target_keys, targets_of
from quadratics import quadratic

from metapl.core import rng, tree
from metapl.core.types import TargetTransform
from metapl.estimators import ESTIMATORS, instances, one_step

BRIEF = {"forward": "forward:directions=2", "evolution": "evolution:pairs=2", "evograd": "evograd:children=4"}

OTHERS = ["exact:fraction=0.5", "exact:method=mixed", "implicit:solver=neumann", "taylor:sign=released"]

TEXTS = [*(BRIEF.get(name, name) for name in ESTIMATORS), *OTHERS]

ONE_STEP = [text for text in TEXTS if not build(text).several]
"""Those that say that they take one inner step at a time, and must refuse two."""

ALL = [(text, 1) for text in TEXTS] + [(text, 3) for text in TEXTS if text not in ONE_STEP]
"""Every estimator with one step, and with three those that take them."""


def case_for(text, network, rule, steps=1, labels=None):
    """With a rule and labels that the estimator takes, and examples that do not see each other where it needs that."""
    rule = "nesterov" if rule in REFUSED.get(text, ()) else rule
    network = (
        network.replace("batchnorm-eval", "mlp").replace("batchnorm", "layernorm") if "fraction" in text else network
    )
    return make(network, rule, labels or build(text).targets[0], steps=steps, batch=3)


def learnt(case, targets):
    """The module after torch's steps, the outer loss, and the mean loss before each step."""
    losses = []
    for index, (target, x) in enumerate(zip(targets, case.inner_batches, strict=True)):
        module = run_torch(case._replace(inner_batches=case.inner_batches[:index]), targets[:index])[1]
        losses.append(loss_torch(case, module.train(), x, target).detach())
    outer, module, _ = run_torch(case, targets)
    return module, outer, torch.stack(losses).mean()


@pytest.mark.parametrize(
    ("network", "rule"), [("batchnorm", "adamw"), ("batchnorm-eval", "rmsprop"), ("tied", "clipped")]
)
@pytest.mark.parametrize(("text", "steps"), ALL)
def test_the_inner_steps_are_torchs(text, steps, network, rule):
    case = case_for(text, network, rule, steps)
    feedback = estimate(case, text)
    module, outer, loss = learnt(case, targets_of(case))
    assert_close_tree(feedback.state.params, dict(module.named_parameters()), rtol=1e-12)
    assert_close_tree(feedback.state.buffers, dict(module.named_buffers()), rtol=1e-12)
    assert_close_tree((feedback.outer, feedback.inner), (outer, loss), rtol=1e-12)


@pytest.mark.parametrize(("text", "steps"), ALL)
def test_the_state_of_the_optimiser_goes_on(text, steps):
    """Torch's next step, from the state that comes back, is the same as torch's own."""
    case = case_for(text, "mlp", "adamw", steps)
    targets = targets_of(case)
    later = case._replace(state=estimate(case, text).state, inner_batches=case.inner_batches[:1])
    together = case._replace(inner_batches=[*case.inner_batches, case.inner_batches[0]])
    found, expected = run_torch(later, targets[:1])[1], run_torch(together, [*targets, targets[0]])[1]
    assert_close_tree(dict(found.named_parameters()), dict(expected.named_parameters()), rtol=1e-12)


@pytest.mark.parametrize(("network", "rule"), [("batchnorm", "adamw"), ("dead-input", "clipped"), ("tied", "rmsprop")])
@pytest.mark.parametrize(("text", "steps"), ALL)
def test_estimators_are_pure(text, steps, network, rule):
    case, estimator = case_for(text, network, rule, steps), build(text)
    feedback, _ = assert_pure(estimator.estimate, instance_of(case), estimator.init())
    assert_close_tree([torch.ones_like(x) for x in feedback.grads], [torch.ones_like(x) for x in case.thetas], 0)
    assert all(theta.dtype == torch.float64 for theta in feedback.grads)
    assert feedback.outer.shape == feedback.inner.shape == feedback.scale.shape == ()
    numbers = (*feedback.grads, feedback.outer, feedback.inner, feedback.scale, *feedback.info.values())
    assert all(value.isfinite().all() for value in numbers)


@pytest.mark.parametrize(("text", "steps"), ALL)
def test_every_kind_of_labels_it_names_works_and_gives_feedback(text, steps):
    for labels in build(text).targets:
        # With its defaults it hardly ever turns a label over.
        wide = "evolution:sigma=2,pairs=32" if text.startswith("evolution") else text
        feedback = estimate(case_for(text, "mlp", "momentum", steps, labels), wide)
        silent = [0, 1] if text == "truncated" and steps == 3 else []  # it keeps the last step
        for index, theta in enumerate(feedback.grads):
            assert (theta.norm() > 0) == (build(text).claim != "zero" and index not in silent)


@pytest.mark.parametrize("rule", ["nesterov", "adamw", "rmsprop"])
@pytest.mark.parametrize("text", TEXTS)
def test_parameters_and_state_are_matched_by_name(text, rule):
    """A state that comes back from a checkpoint may list the parameters in another order."""
    case = case_for(text, "mlp", rule, 1 if text in ONE_STEP else 2)
    state = case.state.opt_state
    turned = {
        field: dict(reversed(value.items())) for field, value in state._asdict().items() if isinstance(value, dict)
    }
    assert turned
    other = case._replace(state=case.state._replace(opt_state=state._replace(**turned)))
    one, two = estimate(case, text), estimate(other, text)
    assert_close_tree((two.grads, two.outer, two.scale), (one.grads, one.outer, one.scale), rtol=1e-12)
    assert_close_tree(two.state.params, one.state.params, rtol=1e-12)


@pytest.mark.parametrize(("text", "steps"), [(text, steps) for text, steps in ALL if "soft" in build(text).targets])
def test_labels_with_a_derivative_that_depends_on_the_draw(text, steps):
    """Soft labels of noisy logits: drawn once more with another key they would have another derivative."""

    def noise(key):
        return rng.normal(key, (3, CLASSES), torch.float64)

    soft = case_for(text, "mlp", "nesterov", steps, labels="soft")
    noisy = TargetTransform(lambda theta, key: torch.softmax(theta + noise(key), dim=-1), None)
    case = soft._replace(problem=soft.problem._replace(targets=noisy))
    moved = [theta + noise(key) for theta, key in zip(case.thetas, target_keys(case), strict=True)]
    assert_close_tree(estimate(case, text), estimate(soft._replace(thetas=moved), text), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize(
    ("text", "steps"),
    # The two that are left out are recorded by autograd, which does not work inside torch.vmap.
    [(text, steps) for text, steps in ALL if text not in ("unroll", "higher")],
)
def test_vmap_over_keys_gives_each_its_feedback(text, steps):
    case, estimator = case_for(text, "mlp", "momentum", steps, labels="sampled"), build(text)
    instance, memory = instance_of(case), estimator.init()
    keys = rng.fold_in(case.key, torch.arange(3))
    together = torch.vmap(lambda key: estimator.estimate(instance._replace(key=key), memory)[0])(keys)
    for index, one in enumerate(keys):
        alone = estimator.estimate(instance._replace(key=one), memory)[0]
        assert_close_tree(tree.map(lambda leaf: leaf[index], together), alone, rtol=1e-10, atol=1e-15)  # noqa: B023


@pytest.mark.parametrize("text", ONE_STEP)
def test_one_step_estimators_refuse_two(text):
    case = case_for(text, "mlp", "sgd", 2)
    with pytest.raises(ValueError, match=r"one inner step, got 2: use exact\(\) for more"):
        estimate(case, text)


@pytest.mark.parametrize("text", TEXTS)
def test_a_theta_without_an_inner_batch_is_refused(text):
    case = case_for(text, "mlp", "sgd", 2)
    with pytest.raises(ValueError, match="2 thetas and 1 inner batches: every step needs one of each"):
        estimate(case._replace(inner_batches=case.inner_batches[:1]), text)


@pytest.mark.parametrize(("text", "steps"), [(text, steps) for text, steps in ALL if "soft" in build(text).targets])
def test_a_parameter_that_nothing_uses_changes_nothing(text, steps):
    """It stays where it is, and its gradients are zero wherever one is asked for."""
    case = quadratic([0.5, 0.9, 1.5, 2.2, 3.0], steps=steps)
    idle = case.state._replace(params={**case.state.params, "idle": torch.ones(2, dtype=torch.float64)})
    one, other = estimate(case, text), estimate(case._replace(state=idle), text)
    assert torch.equal(other.state.params["idle"], idle.params["idle"])
    if not text.startswith(("forward", "evolution", "evograd")):  # which draw a direction for every parameter
        assert_close_tree((other.grads, other.outer, other.scale), (one.grads, one.outer, one.scale), rtol=1e-12)


@pytest.mark.parametrize(("text", "steps"), [one for one in ALL if one[0] != "gumbel"])
def test_theta_may_be_a_tree(text, steps):
    """Of one array by name: the same gradient by that name. Not for `gumbel`, which relaxes the logits themselves."""
    case = case_for(text, "mlp", "nesterov", steps)
    apply, log_prob = case.problem.targets
    labels = TargetTransform(
        lambda theta, key: apply(theta["logits"], key),
        log_prob and (lambda theta, targets: log_prob(theta["logits"], targets)),
    )
    named = [{"logits": theta} for theta in case.thetas]
    found = estimate(case._replace(problem=case.problem._replace(targets=labels), thetas=named), text)
    expected = estimate(case, text)
    assert_close_tree(found.grads, tuple({"logits": one} for one in expected.grads), rtol=1e-12)
    assert_close_tree((found.state, found.scale), (expected.state, expected.scale), rtol=1e-12)


@pytest.mark.parametrize(("text", "steps"), ALL)
def test_a_meta_gradient_is_data_where_what_goes_in_belongs_to_a_graph(text, steps):
    case = case_for(text, "mlp", "nesterov", steps)
    leaves = tree.map(lambda leaf: leaf.clone().requires_grad_(), (case.state.params, case.thetas))
    params, thetas = tree.map(lambda leaf: 1.0 * leaf, leaves)
    recorded = case._replace(state=case.state._replace(params=params), thetas=thetas)
    found = estimate(recorded, text)
    assert_close_tree(found, estimate(case, text), rtol=1e-12)
    assert not any(leaf.requires_grad for leaf in tree.leaves(found))
    assert not any(leaf.grad is not None for leaf in tree.leaves(leaves))


def test_the_targets_of_a_step_are_data():
    case = make("mlp", "sgd", "soft")
    theta = case.thetas[0].requires_grad_()
    found = one_step.step_and_outer(instance_of(case))
    assert torch.equal(found.targets, torch.softmax(theta, dim=-1))
    assert not found.targets.requires_grad


@pytest.mark.parametrize("text", [text for text in TEXTS if "soft" in build(text).targets])
def test_a_theta_that_the_inner_loss_does_not_look_at_gets_zeros(text):
    case = quadratic([0.5, 0.9, 1.5, 2.2, 3.0])
    inner = case.problem.inner
    blind = case.problem._replace(inner=lambda p, b, targets, x: inner(p, b, torch.ones_like(targets), x))
    feedback = estimate(case._replace(problem=blind), text)
    assert torch.equal(feedback.grads[0], torch.zeros_like(case.thetas[0]))
    assert feedback.scale > 0


def test_own_randomness_has_its_own_key():
    """Of the keys that draw labels, and of those that estimators derive from their own, no two are the same."""
    for seed in range(8):
        key = rng.key(seed)
        own = [instances.own_key(key), *rng.split(instances.own_key(key), 64)]
        several = [instances.target_keys(key, count)[-1] for count in range(2, 65)]  # all but the first of 64
        assert torch.stack(instances.target_keys(key, 64)[1:]).equal(torch.stack(several))
        assert [int(k) for k in instances.target_keys(key, 1)] == [int(key)]
        keys = [key, *instances.target_keys(key, 64), *own]
        assert len({int(k) for k in keys}) == len(keys) == 1 + 64 + 65


DRAWS = ["exact:fraction=0.5", "forward:directions=2", "evolution:sigma=2,pairs=32", "evograd:children=4", "placebo"]


@pytest.mark.parametrize("text", DRAWS)
def test_estimators_that_draw_draw_from_their_own_key(text, monkeypatch):
    """Another key of theirs changes the feedback, and nothing about the targets."""
    case = case_for(text, "mlp", "sgd", labels="sampled")
    one, found = estimate(case, text), []
    for number in range(2, 8):
        monkeypatch.setattr(instances, "own_key", lambda key: rng.fold_in(key, -number))  # noqa: B023 - used at once
        other = estimate(case, text)
        found.append(not torch.equal(one.grads[0], other.grads[0]))
        assert_close_tree((one.state, one.outer, one.inner), (other.state, other.outer, other.inner), rtol=0)
    assert any(found)  # a part of three examples may be the same by chance


@pytest.mark.parametrize(
    "text", [text for text in TEXTS if text not in (*DRAWS, BRIEF["evolution"]) and "soft" in build(text).targets]
)
def test_the_others_draw_nothing(text):
    """With labels that are not drawn, their feedback does not depend on the key."""
    case = case_for(text, "mlp", "sgd", labels="soft")
    one, other = estimate(case, text), estimate(case._replace(key=rng.key(99)), text)
    assert_close_tree(one, other, rtol=0)
