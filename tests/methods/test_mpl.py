"""Steps of Meta Pseudo Labels against the same steps written by hand; purity, and the networks of a state."""

import pytest
import torch
from asserts import assert_close_tree, assert_pure
from mpl_by_hand import BASE, GRADS, NETWORKS, RECIPES, STEPS, VIEWS, ByHand, key_of, make_batch, make_method

from metapl.core import rng
from metapl.core.types import Variables
from metapl.data.augment.base import Augment, noise

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


def _everything(module):
    return dict(module.named_parameters()), dict(module.named_buffers())


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(
    ("grad", "kind"),
    [
        ("exact", "soft"),
        ("exact", "argmax"),
        ("exact", "forced"),
        ("unroll", "soft"),
        ("first-order", "argmax"),
        ("first-order", "forced"),
        ("first-order, as in the paper", "forced"),
        ("none", "soft"),
    ],
)
def test_steps_equal_those_written_by_hand(network, recipe, grad, kind):
    method = make_method(network, grad, RECIPES[recipe], kind)
    state = method.init(rng.key(1))
    hand = ByHand(NETWORKS[network][0], state, RECIPES[recipe], grad, kind)
    for step in range(STEPS):
        batch = make_batch(network, seed=step)
        state, metrics = method.step(state, batch, key_of(step))
        hand.step(batch)
        assert_close_tree(dict(sorted(metrics.items())), dict(sorted(hand.metrics.items())), rtol=1e-10, atol=1e-14)
    assert_close_tree(state.teacher[:2], _everything(hand.teacher), rtol=1e-10)
    assert_close_tree(state.student[:2], _everything(hand.student), rtol=1e-10)
    assert_close_tree(tuple(state.ema), _everything(hand.average), rtol=1e-10)
    assert int(state.step) == STEPS


def test_the_consistency_loss_of_these_problems_is_partly_masked():
    """Else the comparison above would not see the threshold."""
    confident = []
    for network, (build, _) in NETWORKS.items():
        state = make_method(network).init(rng.key(1))
        hand = ByHand(build, state, BASE, "none", "soft")
        weak = VIEWS.weak(make_batch(network).x_unlabelled, None)
        target = torch.softmax(hand.teacher(weak) / BASE.uda_temperature, dim=-1)
        confident += (target.max(-1).values >= BASE.uda_threshold).tolist()
    assert {True, False} == set(confident)


@pytest.mark.parametrize("grad", GRADS)
@pytest.mark.parametrize("network", NETWORKS)
def test_a_step_is_pure(network, grad):
    kind = GRADS[grad]().targets[0]
    views = Augment(noise(0.1), noise(0.5))
    method = make_method(network, grad, labels=kind, views=views)
    state, _ = method.step(method.init(rng.key(1)), make_batch(network), key_of(0))
    assert_pure(method.step, state, make_batch(network, seed=1), key_of(1))


def test_init_is_pure_and_its_average_is_the_student():
    method = make_method("batchnorm")
    state = assert_pure(method.init, rng.key(1))
    assert_close_tree(tuple(state.ema), (state.student.params, state.student.buffers), rtol=0)
    assert not torch.equal(state.teacher.params["0.weight"], state.student.params["0.weight"])


def test_networks_are_those_of_the_state():
    method = make_method("batchnorm")
    state, _ = method.step(method.init(rng.key(1)), make_batch("batchnorm"), key_of(0))
    networks = method.networks(state)
    assert list(networks) == ["teacher", "student", "ema"]
    assert networks["teacher"] == Variables(state.teacher.params, state.teacher.buffers)
    assert networks["student"] == Variables(state.student.params, state.student.buffers)
    assert networks["ema"] == state.ema
