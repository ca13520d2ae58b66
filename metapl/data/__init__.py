"""Data: from files to batches.

Inside: `sources` (where data comes from), `formats` (how files are read) and `augment` (views on the device); the
examples of a data set, their split into labelled, unlabelled and validation parts, batches as a function of the step,
and the form by which fresh examples are read when the training data is gone.

Floor 3: imports `core`, `files` and `registry`; methods, training and everything above may import it.
"""
