"""One run: from a configuration to the folder that it leaves.

Inside: the configuration and its presets, the objects that are built of it (`experiment`), the phases of a run, the
training loop, many seeds as one vectorised program (`population`), checkpoints, loggers, and the run folder with the
checks that its files pass when they are read again.

Floor 5: imports every floor below; studies, serving, reporting and the command line may import it.
"""
