"""`python -m metapl`, and what torchrun starts."""

from metapl.cli.main import main

if __name__ == "__main__":
    main()
