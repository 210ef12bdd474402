"""Entry point of ``python -m daskhpo.cli``."""

import sys

from daskhpo.cli import main

if __name__ == "__main__":
    sys.exit(main())
