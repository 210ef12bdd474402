"""Callbacks: what follows a study while it runs."""

from daskhpo.callbacks.console import ConsoleProgress
from daskhpo.callbacks.csv import CSVLogger
from daskhpo.study.callback import Callback

__all__ = ["CSVLogger", "Callback", "ConsoleProgress"]
