"""Data: the form of examples, splits and loaders; `formats` read files, `augment` makes views, `sources` are data sets.

May import the core, files, models and the registry. Training and all above it may import it.
"""
