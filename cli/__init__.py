"""The command line, one file a verb. Torch is imported inside the verbs, so that `--help` is quick.

The folder stands at the top of the repository and is installed as `metapl.cli`.

Floor 8: imports every other folder; nothing imports it.
"""
