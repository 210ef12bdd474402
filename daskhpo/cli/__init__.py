"""The command line: ``daskhpo run | resume | submit | attach | stop | status | best | ...``."""

from daskhpo.cli.app import main

__all__ = ["main"]
