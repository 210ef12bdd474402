"""The command line: ``daskhpo run | resume | status | submit | ...``."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; see `daskhpo.cli.app.main`."""
    try:
        from daskhpo.cli import app  # this takes a while, in which Ctrl-C may come
    except KeyboardInterrupt:
        print("daskhpo: interrupted", file=sys.stderr)
        return 130
    return app.main(arguments)


__all__ = ["main"]
