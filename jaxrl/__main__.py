"""`python -m jaxrl`."""

import sys

from jaxrl.runs.cli import main

if __name__ == "__main__":
    sys.exit(main())
