"""Requests of people to a running study: trials to end, configurations to add."""

from __future__ import annotations

from collections import deque

from daskhpo.core.events import Edit, Enqueued, TrialPauseRequested, TrialStopRequested
from daskhpo.core.types import Config, TrialId


class Edits:
    """Requests of people that are recorded, until they are carried out.

    Each request has a name, by which one that comes again is known: the process that runs the study
    reads all of them again after a crash.

    Attributes
    ----------
    unwanted : trials to end, and why; each may still be in a slot.
    paused : trials to launch no more, until a person resumes them.
    configs : configurations to start, in order.
    """

    def __init__(self) -> None:
        self._known: set[str] = set()
        self.unwanted: dict[TrialId, str] = {}
        self.paused: set[TrialId] = set()
        self.configs: deque[Config] = deque()

    def is_known(self, request: str) -> bool:
        """Return True if a request was recorded before."""
        return request in self._known

    def add(self, event: Edit) -> None:
        """Add a request that was recorded."""
        self._known.add(event.request)
        match event:
            case TrialStopRequested(trial, reason):
                self.unwanted.setdefault(trial, reason)
            case TrialPauseRequested(trial, paused=True):
                self.paused.add(trial)
            case TrialPauseRequested(trial):
                self.paused.discard(trial)
            case Enqueued(config):
                self.configs.append(config)
