"""Meta-gradient estimators: from a lesson, a learner and an exam to the feedback.

A new one is a file here and a line in `ESTIMATORS`; it is then selectable (`metapl train --grad NAME:key=value`),
listed (`metapl grads`) and held to its claim by the shared tests. See `docs/estimators.md`.
"""

from collections.abc import Callable

from metapl.estimators.exact import exact
from metapl.estimators.first_order import first_order
from metapl.estimators.none import none
from metapl.estimators.score import score
from metapl.estimators.unroll import unroll
from metapl.types import Estimator

ESTIMATORS: dict[str, Callable[..., Estimator]] = {
    "exact": exact,
    "first-order": first_order,
    "none": none,
    "score": score,
    "unroll": unroll,
}

__all__ = ["ESTIMATORS", "exact", "first_order", "none", "score", "unroll"]
