"""Checks for estimators of your own: those that metapl's estimators pass.

Floor 4: imports `core`, `nn`, `optim` and `registry`, but no estimator and no method; nothing in metapl imports it.

Examples:
    >>> from metapl import estimators
    >>> from metapl.testing import check_estimator
    >>> check_estimator(estimators.exact)

Nothing of `metapl.estimators` is used for the truth: it comes from finite differences, in float64, of plain steps by
`torch.autograd`, and from enumeration of all labels.
"""

from metapl.testing.cases import finite_differences
from metapl.testing.checks import check_estimator

__all__ = ["check_estimator", "finite_differences"]
