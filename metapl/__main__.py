"""`python -m metapl`, and what torchrun starts."""

from metapl.cli.main import main

main()
