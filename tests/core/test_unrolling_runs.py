"""`unroll`: how often a step is run and when, and what is a copy."""

import pytest
import torch
from asserts import assert_close_tree

from metapl.core import hvp, rng, tree
from metapl.core.unrolling import METHODS, unroll
from metapl.registry.errors import InputError

REPLAYING = {
    "replay": {"method": "replay"},
    "mixed": {"method": "mixed"},
    "replay-checkpoints": {"method": "replay", "checkpoints": True},
    "product-checkpoints": {"method": hvp.forward_over_reverse, "checkpoints": True},
}


def vector(seed):
    return rng.normal(rng.key(seed), (2,), torch.float64)


@pytest.mark.parametrize("how", REPLAYING.values(), ids=REPLAYING)
def test_what_comes_back_shares_no_memory_with_what_went_in(how):
    """What a step passes on, of its carry, its input or its closure, comes back as a copy and may be written on."""
    held = vector(3).requires_grad_()
    first, given = [vector(1), vector(2)], vector(4)
    before = [one.clone() for one in (*first, given, held.detach())]
    after = unroll(lambda carry, given: (carry[1], carry[0], given, held), (*first, given, held), [given] * 3, **how)
    assert_close_tree(list(after), [before[1], before[0], before[2], before[3]], rtol=0.0)
    with torch.no_grad():
        for one in after:
            one.fill_(9.0)
    assert_close_tree([*first, given, held], before, rtol=0.0)


@pytest.mark.parametrize("checkpoints", [False, True])
def test_what_a_step_computes_is_kept_without_a_copy(checkpoints):
    made = []

    def step(w, given):
        made.append(w * given)
        return made[-1]

    last = unroll(step, vector(1).requires_grad_(), [vector(2)] * 3, checkpoints=checkpoints)
    assert last.data_ptr() == made[-1].data_ptr()


RUN_AGAIN = {
    (5, False): ([5, 4, 3, 2], [1]),
    (4, True): ([3, 4, 4, 3], [1, 2, 2, 1]),
    (5, True): ([4, 5, 5, 4], [1, 2, 3, 3, 2, 1]),
    (10, True): ([9, 10, 10, 9, 5, 6, 7, 8, 8, 7, 6, 5], [1, 2, 3, 4, 4, 3, 2, 1]),
}
"""For so many steps, without and with checkpoints; after the comma only if the start is differentiated."""


@pytest.mark.parametrize(("count", "checkpoints"), RUN_AGAIN)
@pytest.mark.parametrize("start", [True, False])
def test_how_often_a_step_is_run(start, count, checkpoints):
    """Once more on the way back, with checkpoints twice, segments of ⌈√K⌉; what comes first only if it is asked for."""
    ran = []

    def step(w, given):
        ran.append(int(given["number"]))
        return w * given["gain"]

    gain = vector(2).requires_grad_()
    inputs = [{"number": torch.tensor(k + 1), "gain": gain if k == count - 1 else vector(2)} for k in range(count)]
    w = vector(1).requires_grad_(start)
    last = unroll(step, w, inputs, checkpoints=checkpoints)
    assert ran == list(range(1, count + 1))
    last.sum().backward()
    later, first = RUN_AGAIN[count, checkpoints]
    assert ran[count:] == later + first * start
    assert_close_tree(gain.grad, w.detach() * gain.detach() ** (count - 1), rtol=1e-14)


@pytest.mark.parametrize("method", METHODS)
def test_inputs_may_hold_nothing_under_vmap(method):
    w = torch.stack([vector(1), vector(2)])
    found = torch.vmap(lambda w: unroll(lambda w, given: w * w, w, [{"none": None}] * 2, method=method))(w)
    assert_close_tree(found, w**4, rtol=1e-14)


@pytest.mark.parametrize("how", REPLAYING.values(), ids=REPLAYING)
def test_leaves_that_a_step_makes_itself_are_its_own(how):
    """d/ds exp(s w) at s = 0 is w: each step squares w."""

    def step(w, _):
        with torch.enable_grad():
            own = torch.zeros(2, dtype=torch.float64, requires_grad=True)
            two = torch.full((2,), 2.0, dtype=torch.float64, requires_grad=True)
            (slope,) = torch.autograd.grad((own * w).exp().sum(), own, create_graph=True)
        return w * slope * two / 2.0

    w = vector(1).requires_grad_()
    last = unroll(step, w, [None] * 3, **how)
    assert_close_tree(last, w.detach() ** 8, rtol=1e-14)
    last.sum().backward()
    assert_close_tree(w.grad, 8.0 * w.detach() ** 7, rtol=1e-13)


def test_a_step_that_returns_another_structure_is_told_both():
    one = vector(1)
    for after in ([one, one], {"a": one}, one):
        with pytest.raises(ValueError, match="structure") as found:
            unroll(lambda carry, _, after=after: after, {"a": one, "b": one}, [one])
        before, turned = (tree.sketch(value) for value in ({"a": one, "b": one}, after))
        assert before in str(found.value)
        assert str(found.value).endswith(f"into {turned}")


def test_a_parameter_of_a_module_is_refused_beside_a_leaf_of_the_step():
    """One of the two is the step's own."""
    layer = torch.nn.Linear(2, 2, dtype=torch.float64)

    def step(w, _):
        with torch.enable_grad():
            own = torch.zeros(1, dtype=torch.float64, requires_grad=True)
            (slope,) = torch.autograd.grad((own * w).exp().sum(), own, create_graph=True)
        return layer(w * slope)

    last = unroll(step, vector(1).requires_grad_(), [None] * 2)
    with pytest.raises(
        InputError, match=r"a tensor of shape \[2(, 2)?\] that requires a gradient and that unroll cannot"
    ):
        last.sum().backward()


@pytest.mark.parametrize("method", METHODS)
def test_steps_that_count_as_constants_are_not_recorded(method):
    recorded = []

    def step(w, _):
        recorded.append(w.requires_grad)
        return 2.0 * w

    last = unroll(step, vector(1).requires_grad_(), [None] * 4, method=method, last=1)
    assert not any(recorded[1:])
    assert_close_tree(last, 16.0 * vector(1), rtol=0.0)
    assert not last.requires_grad


@pytest.mark.parametrize("method", METHODS)
def test_the_gradient_through_a_step_that_forgets_everything_is_zero(method):
    first, given = vector(1).requires_grad_(), vector(2).requires_grad_()
    after = unroll(
        lambda carry, given: (torch.ones_like(carry[0].detach()), carry[1] + 0.0 * given),
        (first, first),
        [given],
        method=method,
    )
    (after[0].sum() + after[1].sum()).backward()
    assert_close_tree(first.grad, torch.ones_like(first), rtol=0.0)
    constant = unroll(lambda carry, given: torch.ones_like(carry.detach()), first, [given] * 2, method=method)
    found = torch.autograd.grad(constant.sum() + 0.0 * first.sum(), first, allow_unused=True)[0]
    assert_close_tree(found, torch.zeros_like(first), rtol=0.0)
