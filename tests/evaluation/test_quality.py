"""The statistics of draws, against brute force and closed forms."""

import math

import pytest
import torch

from metapl.core import rng
from metapl.evaluation import quality
from metapl.studies import comparison


def normal(seed, *shape):
    return rng.normal(rng.key(seed), shape, torch.float64)


TRUTH = normal(0, 12)
ACROSS = normal(1, 12) - TRUTH * (normal(1, 12) @ TRUTH) / (TRUTH @ TRUTH)
MEAN = 1.3 * TRUTH + 0.2 * ACROSS
SPREAD = torch.linspace(0.5, 4.0, 12).double()


def gaussian(seed, *shape):
    """Draws of an estimator whose mean and covariance are known."""
    return MEAN + SPREAD * normal(seed, *shape, 12)


KNOWN = {
    "projection": (MEAN @ TRUTH / (TRUTH @ TRUTH)).item(),
    "bias_square": ((MEAN - TRUTH).square().sum() / (TRUTH @ TRUTH)).item(),
    "cosine": (MEAN @ TRUTH / (MEAN.norm() * TRUTH.norm())).item(),
    "variance": (SPREAD.square().sum() / (TRUTH @ TRUTH)).item(),
}


def found(draws, truth=TRUTH, cosine=0.9):
    return quality.accuracy(draws, truth if truth.ndim == 2 else truth[None], cosine)


def test_a_known_gaussian_is_covered_at_the_stated_errors():
    """Over many samples the estimates centre on what is known, and lie within two standard errors as often as they
    should."""
    many = [found(one) for one in gaussian(2, 300, 60)]
    for name in ("projection", "bias_square"):
        off = torch.tensor([getattr(one, name) - KNOWN[name] for one in many]).double()
        errors = torch.tensor([getattr(one, f"{name}_error") for one in many]).double()
        assert abs(off.mean()) < 3.5 * off.std() / math.sqrt(len(many)), name
        assert (off.abs() < 2 * errors).double().mean() > 0.92, name
        assert 0.85 < errors.mean() / off.std() < 1.45, name  # the jackknife errs on the careful side
    spread = torch.tensor([one.variance for one in many]).double()
    assert abs(spread.mean() - KNOWN["variance"]) < 3.5 * spread.std() / math.sqrt(len(many))


def test_many_draws_of_a_known_gaussian():
    one = found(gaussian(3, 40_000))
    for name, value in KNOWN.items():
        assert getattr(one, name) == pytest.approx(value, rel=0.05), name
    assert abs(one.cosine - KNOWN["cosine"]) < 4 * one.cosine_error < 0.02
    assert one.bias == pytest.approx(math.sqrt(KNOWN["bias_square"]), rel=0.05)
    assert one.norm_ratio == pytest.approx((MEAN.norm() / TRUTH.norm()).item(), rel=0.05)


def test_noise_is_taken_out():
    """The bare |mean − t| of an unbiased estimator is all noise; what is reported is not."""
    draws = TRUTH + 20 * normal(4, 100, 12)
    bare = ((draws.mean(0) - TRUTH).norm() / TRUTH.norm()).item()
    many = torch.tensor([found(TRUTH + 20 * normal(seed, 100, 12)).bias_square for seed in range(100, 300)]).double()
    assert bare**2 > 1
    assert abs(many.mean()) < 3.5 * many.std() / math.sqrt(len(many)) < 0.6


def test_leaving_out_a_draw_is_leaving_it_out():
    x, y = normal(5, 7, 4), normal(6, 7, 4)
    product, covariance = quality.moments(x, y)
    for index in range(7):
        kept = [other for other in range(7) if other != index]
        one, other = quality.moments(x[kept], y[kept])
        torch.testing.assert_close(product[1 + index], one[0])
        torch.testing.assert_close(covariance[1 + index], other[0])
    pairs = sum(x[i] @ y[j] for i in range(7) for j in range(7) if i != j) / 42
    torch.testing.assert_close(product[0], pairs)
    by_torch = sum(torch.cov(torch.stack([x[:, k], y[:, k]]))[0, 1] for k in range(4))
    torch.testing.assert_close(covariance[0], by_torch)


def test_the_jackknife_of_a_mean_is_its_standard_error():
    values = normal(7, 20)
    left = torch.stack([values[[j for j in range(20) if j != i]].mean() for i in range(20)])
    jack = quality.jackknife(torch.cat([values.mean()[None], left]))
    assert jack == pytest.approx((values.std() / math.sqrt(20)).item())
    assert quality.jackknife(torch.tensor([3.0])) == 0.0


@pytest.mark.parametrize("target", [0.75, 0.85, 0.92])
def test_draws_needed_against_brute_force(target):
    """Averaging as many draws as the formula says gives the cosine that was asked for."""
    needed = found(gaussian(8, 40_000), cosine=target).draws_needed
    assert needed > 2

    def reached(count):
        means = gaussian(9, 4_000, int(count)).mean(1)
        return torch.nn.functional.cosine_similarity(means, TRUTH[None]).mean().item()

    assert reached(needed) == pytest.approx(target, abs=0.02)
    assert reached(2 * needed) > target + 0.01
    assert reached(needed // 2) < target - 0.01


def test_the_range_of_the_draws_needed():
    """It covers what is known about as often as one standard error does, and it is a range."""
    square = KNOWN["variance"] * KNOWN["cosine"] ** 2 / KNOWN["projection"] ** 2
    truth = square / ((KNOWN["cosine"] / 0.8) ** 2 - 1)
    many = [found(one, cosine=0.8) for one in gaussian(10, 300, 100)]
    assert 0.55 < sum(one.draws_low <= math.ceil(truth) <= one.draws_high for one in many) / 300 < 0.9
    assert all(one.draws_low <= one.draws_needed <= one.draws_high for one in many)


def test_a_bias_that_no_draws_overcome():
    one = found(gaussian(11, 40_000), cosine=0.999)
    assert KNOWN["cosine"] < 0.999
    assert [one.draws_needed, one.draws_high] == [math.inf] * 2


def test_what_is_exact():
    one = found(TRUTH[None])
    assert [one.cosine_one, one.cosine_mean, one.cosine] == [pytest.approx(1.0)] * 3
    assert [one.projection, one.norm_ratio, one.draws_needed] == [1.0, 1.0, 1.0]
    assert [one.bias, one.bias_error, one.variance, one.projection_error] == [0.0] * 4


def test_what_is_scaled_reversed_or_nothing():
    scaled, turned, nothing = found(1.02 * TRUTH[None]), found(-TRUTH[None]), found(0 * TRUTH[None])
    assert (scaled.projection, scaled.norm_ratio) == (pytest.approx(1.02), pytest.approx(1.02))
    assert (scaled.bias, scaled.cosine, scaled.draws_needed) == (pytest.approx(0.02), pytest.approx(1.0), 1.0)
    assert (turned.cosine, turned.cosine_one, turned.projection) == (pytest.approx(-1), pytest.approx(-1), -1.0)
    assert (turned.bias, turned.draws_needed) == (pytest.approx(2.0), math.inf)
    assert math.isnan(nothing.cosine)
    assert (nothing.projection, nothing.bias, nothing.draws_needed) == (0.0, 1.0, math.inf)


def test_a_noisy_estimate_with_its_sign_reversed_never_gets_there():
    one = found(-gaussian(12, 1_000))
    assert one.cosine < -0.9
    assert [one.draws_needed, one.draws_low, one.draws_high] == [math.inf] * 3


def test_a_truth_that_is_drawn_with_the_same_randomness():
    """What noise the two share is in neither the bias nor its error."""
    truths = TRUTH + normal(13, 50, 12)
    same = found(truths, truths)
    assert (same.bias, same.bias_error, same.projection, same.projection_error) == (0.0, 0.0, 1.0, pytest.approx(0))
    many = [found(1.1 * (TRUTH + one), TRUTH + one) for one in normal(14, 200, 50, 12)]
    off = torch.tensor([one.projection - 1.1 for one in many]).double()
    assert off.abs().max() < 1e-9
    squares = torch.tensor([one.bias_square for one in many]).double()
    assert squares.mean() == pytest.approx(0.01, rel=1e-6)


def test_the_curve():
    draws = gaussian(15, 3_000)
    one = found(draws)
    curve = comparison.curve(draws, TRUTH[None], one)
    assert curve["draws"] == [1, 3, 10, 30, 100, 300, 1000, 3000]
    assert curve["predicted"] == pytest.approx(curve["measured"], abs=0.03)
    assert curve["measured"][0] == pytest.approx(one.cosine_one)
    assert curve["measured"][-1] == pytest.approx(one.cosine_mean)
    assert comparison.curve(TRUTH[None], TRUTH[None], found(TRUTH[None])) == {}
