"""Meta-gradient estimators: from an instance of a bilevel problem to (an estimate of) its meta-gradient.

A new one is a file here and a line in `ESTIMATORS`. It is then selectable (`metapl train --grad NAME:key=value`),
listed (`metapl grads`) and held to its claim by the shared tests. See `docs/estimators.md`.

Beside them is what they share: `instances` (what is asked of an instance), `one_step`, `many_steps`, `route` (from the
inner gradient to θ) and `watch`.

Floor 4: imports `core`, `nn`, `optim` and `registry`; training, studies and the command line may import it. Methods do
not: an estimator is an argument of theirs.
"""

from collections.abc import Callable

from metapl.core.types import Estimator
from metapl.estimators.difference import difference
from metapl.estimators.evograd import evograd
from metapl.estimators.evolution import antithetic, evolution
from metapl.estimators.exact import exact
from metapl.estimators.first_order import first_order
from metapl.estimators.forward import forward
from metapl.estimators.gumbel import gumbel
from metapl.estimators.higher import higher
from metapl.estimators.implicit import implicit
from metapl.estimators.none import none
from metapl.estimators.placebo import placebo
from metapl.estimators.sama import sama
from metapl.estimators.score import score
from metapl.estimators.taylor import taylor
from metapl.estimators.truncated import truncated
from metapl.estimators.unadapted import unadapted
from metapl.estimators.unroll import unroll
from metapl.registry.entry_points import Registry

ESTIMATORS: dict[str, Callable[..., Estimator]] = {
    "difference": difference,
    "evograd": evograd,
    "evolution": evolution,
    "exact": exact,
    "first-order": first_order,
    "forward": forward,
    "gumbel": gumbel,
    "higher": higher,
    "implicit": implicit,
    "none": none,
    "placebo": placebo,
    "sama": sama,
    "score": score,
    "taylor": taylor,
    "truncated": truncated,
    "unadapted": unadapted,
    "unroll": unroll,
}
"""The estimators of metapl by name."""

AVAILABLE = Registry(ESTIMATORS, "metapl.estimators")
"""`ESTIMATORS`, and what installed packages declare under the entry point group `metapl.estimators`."""

__all__ = [
    "AVAILABLE",
    "ESTIMATORS",
    "antithetic",
    "difference",
    "evograd",
    "evolution",
    "exact",
    "first_order",
    "forward",
    "gumbel",
    "higher",
    "implicit",
    "none",
    "placebo",
    "sama",
    "score",
    "taylor",
    "truncated",
    "unadapted",
    "unroll",
]
