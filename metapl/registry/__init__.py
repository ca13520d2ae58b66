"""Names that a user types, and what they stand for: the floor that everything stands on.

Inside: the notation `NAME:key=value,…` and its parser, the entry points by which other packages add constructors, the
question whether code that a file names may be imported, what torchrun says of its processes, and the one error that a
user is meant to read. Nothing here imports torch, so that `metapl --help` is quick.

Floor 1: imports nothing of metapl; every other folder may import it.
"""
