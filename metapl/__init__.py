"""metapl: Meta Pseudo Labels and other meta-learning as pure functions on torch.func.

Examples:
    >>> from metapl import estimators
    >>> estimators.exact().claim
    'exact'
"""

from metapl.registry import moved

__version__ = "0.2.0"

moved.install()
