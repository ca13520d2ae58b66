"""`python -m metapl`, and what torchrun starts."""

import sys
from importlib.util import find_spec

if __name__ == "__main__":
    if find_spec("metapl.cli") is None:  # it stands elsewhere in the sources, and is put in its place when installed
        sys.stderr.write(
            "metapl: the sources in the current folder hide the package that is installed: run the command metapl, "
            "go to another folder, or install the sources with pip install -e .\n"
        )
        sys.exit(2)
    from metapl.cli.main import main

    main()
