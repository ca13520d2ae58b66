"""Measures: of a classifier, of an estimate, and of what a call costs.

Inside: `metrics` (accuracy, negative log-likelihood, calibration error, confusions), `quality` (cosine, bias and
variance of an estimate, from its draws) and `cost` (operations, memory, time).

Floor 3: imports `core` and `registry`; methods, training and everything above may import it.
"""
