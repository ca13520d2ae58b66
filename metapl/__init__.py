"""metapl: Meta Pseudo Labels and other meta-learning as pure functions on torch.func.

Examples:
    >>> from metapl import estimators
    >>> estimators.exact().claim
    'exact'
"""

__version__ = "0.1.0"
