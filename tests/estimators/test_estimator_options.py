"""The options of the estimators: what is refused when they are made, and that the bounds are where they are said."""

import math

import pytest

from metapl import estimators
from metapl.registry.errors import InputError

NOT_POSITIVE = (0.0, -0.1, math.nan)
REFUSED = [
    *((estimators.difference, {"radius": radius}, "must be positive") for radius in NOT_POSITIVE),
    *((estimators.sama, {"radius": radius}, "must be positive") for radius in NOT_POSITIVE),
    *((estimators.gumbel, {"temperature": temperature}, "must be positive") for temperature in NOT_POSITIVE),
    *((estimators.evolution, {"sigma": sigma}, "must be positive") for sigma in NOT_POSITIVE),
    *((estimators.evolution, {"pairs": pairs}, "must be at least 1") for pairs in (0, -1)),
    *((estimators.evograd, {"children": children}, "must be an even number") for children in (0, 1, 3, -2)),
    *((estimators.evograd, {"sigma": sigma}, "must both be positive") for sigma in NOT_POSITIVE),
    *((estimators.evograd, {"temperature": heat}, "must both be positive") for heat in NOT_POSITIVE),
    *((estimators.exact, {"fraction": fraction}, r"must lie in \(0, 1\]") for fraction in (0.0, 1.01, math.nan)),
    *((estimators.exact, {"method": method}, "'replay', 'mixed' or 'reverse'") for method in ("first-order", "")),
    *((estimators.first_order, {"baseline": one}, r"must lie in \[0, 1\)") for one in (-0.1, 1.0, math.nan)),
    *((estimators.first_order, {"draws": draws}, "must be at least 1") for draws in (0, -1)),
    (estimators.first_order, {"reduction": "max"}, "must be 'sum' or 'mean'"),
    *((estimators.forward, {"directions": directions}, "must be at least 1") for directions in (0, -1)),
    (estimators.implicit, {"solver": "lu"}, "'cg', 'neumann' or 'fixed-point'"),
    *((estimators.implicit, {"iterations": iterations}, "must be at least 1") for iterations in (0, -1)),
    (estimators.implicit, {"damping": -0.1}, "damping must be at least 0"),
    *((estimators.implicit, {"rate": rate}, "rate positive") for rate in NOT_POSITIVE),
    (estimators.placebo, {"kind": "noise"}, "must be signs or examples"),
    (estimators.taylor, {"sign": "minus"}, "must be 'paper' or 'released'"),
    *((estimators.truncated, {"steps": steps}, "must be at least 1") for steps in (0, -1)),
]


@pytest.mark.parametrize(("make", "options", "message"), REFUSED)
def test_what_lies_outside_is_refused_and_named(make, options, message):
    (name,) = options
    with pytest.raises(ValueError, match=rf"^{make.__name__}\(.*{name}=.*{message}") as found:
        make(**options)
    assert "\n" not in str(found.value)


AT_THE_BOUND = [
    (estimators.difference, {"radius": 1e-9}),
    (estimators.sama, {"radius": 1e-9}),
    (estimators.gumbel, {"temperature": 1e-9}),
    (estimators.evolution, {"sigma": 1e-9, "pairs": 1}),
    (estimators.evograd, {"children": 2, "sigma": 1e-9, "temperature": 1e-9}),
    (estimators.exact, {"fraction": 1e-9}),
    (estimators.exact, {"fraction": 1.0, "route": "reverse"}),
    (estimators.first_order, {"baseline": 0.0, "draws": 1, "reduction": "sum"}),
    (estimators.forward, {"directions": 1}),
    (estimators.implicit, {"iterations": 1, "damping": 0.0, "rate": 1e-9}),
    (estimators.truncated, {"steps": 1}),
]


@pytest.mark.parametrize(("make", "options"), AT_THE_BOUND)
def test_the_bounds_themselves_are_taken(make, options):
    assert make(**options).claim


@pytest.mark.parametrize("make", [estimators.exact, estimators.gumbel, estimators.score, estimators.placebo])
def test_a_route_that_there_is_not_is_refused(make):
    with pytest.raises(InputError, match="unknown route 'sideways'"):
        make(route="sideways")
