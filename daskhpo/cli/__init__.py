"""The command line: ``daskhpo run | resume | status | submit | ...``."""

from daskhpo.cli.app import main

__all__ = ["main"]
