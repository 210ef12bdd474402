"""Entry point of ``python -m daskhpo.cli``."""

import sys

from daskhpo.cli.app import main

sys.exit(main())
