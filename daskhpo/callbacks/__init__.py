"""Callbacks, which follow a study while it runs."""

from daskhpo.callbacks.base import Callback
from daskhpo.callbacks.console import ConsoleProgress
from daskhpo.callbacks.csv import CSVLogger
from daskhpo.callbacks.values import FrozenReport, FrozenTrial, StudyInfo, StudySummary

__all__ = [
    "CSVLogger",
    "Callback",
    "ConsoleProgress",
    "FrozenReport",
    "FrozenTrial",
    "StudyInfo",
    "StudySummary",
]
