"""Unbiased claims: the mean over ten thousands of draws, and over all labels by enumeration.

The draws run under `torch.vmap` over their keys. The test is held to its power: of an estimator that is 2 % too long
or too short it must say so.
"""

import pytest
import torch
from asserts import assert_same_gradient, relative_error, richardson
from by_torch import gradients_of, load_torch, outer_gradient, outer_torch, soft_outer
from problems import build, estimates, make, sgd
from truths import differences, expected_feedback, expected_gradient

from metapl.estimators import ESTIMATORS

FIRST_ORDER = "first-order:baseline=0,reduction=sum"
FOUR_DRAWS = f"{FIRST_ORDER},draws=4"
PART, DIRECTIONS = "exact:fraction=0.5", "forward:directions=8"

COUNTS = {"score": 40_000, FIRST_ORDER: 100_000, FOUR_DRAWS: 25_000, PART: 60_000, DIRECTIONS: 24_000}
"""How many draws it takes for a standard error of 0.3 %."""


def test_every_unbiased_claim_is_here():
    claims = {name for name, made in ESTIMATORS.items() if made().claim == "unbiased"}
    assert claims <= {text.partition(":")[0] for text in COUNTS}
    assert all(build(text).claim == "unbiased" for text in COUNTS)


def drawn(case, text, count):
    """The feedback of `count` keys, `[count, numbers]`."""
    found = estimates(case, text, count, together=20_000)
    return torch.cat([theta.flatten(1) for theta in found], dim=1)


def flat(thetas):
    return torch.cat([theta.flatten() for theta in thetas])


def assert_unbiased(found, expected):
    """The mean of the draws is what is expected of them: in length along it, and number by number.

    `expected` is of all draws or of each; in the latter case what the two have in common cancels.
    """
    truth = expected if expected.ndim == 1 else expected.mean(dim=0)
    ratio = 1.0 + (found - expected) @ truth / (truth @ truth)
    error = ratio.std() / len(ratio) ** 0.5
    assert error <= 0.004, f"too few draws: a standard error of {error:.2%}"
    assert (ratio.mean() - 1.0).abs() <= 4.0 * error, f"biased: {ratio.mean():.4f} ± {error:.4f} of the length"
    spread = (found - expected).std(dim=0) / len(found) ** 0.5
    off = ((found - expected).mean(dim=0) / spread).abs().max()
    assert off <= 4.5, f"biased: one number is {off:.1f} standard errors off"


def assert_sharp(found, expected):
    assert_unbiased(found, expected)
    for factor in (0.98, 1.02):
        with pytest.raises(AssertionError, match="biased"):
            assert_unbiased(factor * found, expected)


def test_a_bias_across_the_gradient_shows_too():
    """One of twelve numbers off by 5 % of the length of the gradient, at a right angle to it."""
    case, truth = make("mlp", "nesterov", batch=4), flat(differences("mlp", "nesterov", batch=4))
    found = drawn(case, DIRECTIONS, COUNTS[DIRECTIONS])
    across = torch.zeros_like(truth)
    across[0], across[1] = truth[1], -truth[0]
    with pytest.raises(AssertionError, match="one number"):
        assert_unbiased(found + 0.05 * truth.norm() * across / across.norm(), truth)


@pytest.mark.parametrize("text", ["score", FIRST_ORDER, FOUR_DRAWS])
def test_mean_over_labels(text):
    """With an outer loss and an optimiser that are linear the result is linear in the targets: soft labels have it."""
    case = make("linear-outer", "momentum", "sampled", batch=2)
    assert_sharp(drawn(case, text, COUNTS[text]), flat(differences("linear-outer", "momentum")))


@pytest.mark.slow
@pytest.mark.parametrize(("text", "steps"), [(DIRECTIONS, 1), (DIRECTIONS, 3), (PART, 1)])
def test_mean_over_directions_and_parts(text, steps):
    """Of a curved outer loss, since the labels are not what is drawn."""
    case = make("mlp", "nesterov", steps=steps, batch=2)
    assert_sharp(drawn(case, text, COUNTS[text]), flat(differences("mlp", "nesterov", steps)))


@pytest.mark.slow
@pytest.mark.parametrize("text", [DIRECTIONS, PART])
def test_mean_with_sampled_labels_is_that_of_exact(text):
    """Draw by draw with the same labels; what one key draws twice must be independent."""
    case = make("mlp", "adamw", "sampled", batch=2)
    count = COUNTS[text]
    assert_sharp(drawn(case, text, count), drawn(case, "exact", count))


def test_draws_of_one_estimate_are_independent():
    """So four of them have a quarter of the variance."""
    case = make("linear-outer", "momentum", "sampled", batch=2)
    one, four = (drawn(case, text, 25_000).var(dim=0).sum() for text in (FIRST_ORDER, FOUR_DRAWS))
    assert abs(float(4.0 * four / one) - 1.0) <= 0.04


@pytest.mark.parametrize(("text", "variance"), [("forward:directions=1", 5.0), ("forward:directions=3", 5.0 / 3.0)])
def test_variance_of_forward_gradients(text, variance):
    """(d − 1) / n squared lengths of the gradient for d = 6 numbers and n directions."""
    case, truth = make("mlp", "nesterov", batch=2), flat(differences("mlp", "nesterov"))
    assert abs(float(drawn(case, text, 20_000).var(dim=0).sum() / (truth @ truth)) / variance - 1.0) <= 0.03


def far(labels):
    """Momentum moves the parameters far, whatever θ is: the outer gradient turns on the way.

    The step is 1.5 long, and what θ does to it about a thousandth of that, so that an outer loss is nearly linear
    in θ, and a meta-gradient with the outer gradient from before the step is wrong by half.
    """
    case = make("mlp", sgd(0.01, momentum=0.9), labels, batch=3)
    generator, state = torch.Generator().manual_seed(5), case.state.opt_state
    push = {k: torch.randn(v.shape, generator=generator, dtype=v.dtype) for k, v in state.momentum.items()}
    length = 1.5 / (0.01 * 0.9 * flat(push.values()).norm())
    state = state._replace(momentum={k: length * v for k, v in push.items()})
    return case._replace(state=case.state._replace(opt_state=state))


def test_the_outer_gradient_turns_on_the_way():
    case = far("soft")
    module, _, _ = load_torch(case)
    before = gradients_of(outer_torch(case, module), module)
    after = outer_gradient(case, torch.softmax(case.thetas[0], dim=-1))
    assert relative_error(before, after) > 0.4


@pytest.mark.parametrize("text", ["score", FIRST_ORDER])
def test_expectation_over_all_labels_after_a_long_way(text):
    case = far("sampled")
    assert relative_error(expected_feedback(case, text), expected_gradient(case)) <= 2e-3


@pytest.mark.parametrize("text", [DIRECTIONS, PART])
def test_mean_after_a_long_way(text):
    case = far("soft")
    expected, _ = richardson(lambda thetas: soft_outer(case, thetas), case.thetas, width=0.1, levels=3)
    assert_sharp(drawn(case, text, COUNTS[text]), flat(expected))


@pytest.mark.parametrize("rule", ["sgd", "momentum"])
def test_two_steps_of_the_score_function(rule):
    """A squared error curves alike whatever the labels, so that the outer loss is linear in those of both steps."""
    case = make("squared", rule, "sampled", steps=2, batch=2)
    for one, other in zip(expected_feedback(case, "score"), expected_gradient(case), strict=True):
        assert_same_gradient(one, other, norm_tol=1e-9, cosine_tol=1e-18)
