"""The command line, one file a verb. Torch is imported inside the verbs, so that `--help` is quick."""
