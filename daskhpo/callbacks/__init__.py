"""Callbacks, which follow a study while it runs."""

from daskhpo.callbacks.base import Callback
from daskhpo.callbacks.console import ConsoleProgress
from daskhpo.callbacks.csv import CSVLogger

__all__ = ["CSVLogger", "Callback", "ConsoleProgress"]
