"""The first trials of a session: if all fail alike, so will all others."""

from __future__ import annotations

from collections.abc import Iterable

from daskhpo.core.tracebacks import headline, kind
from daskhpo.core.types import Trial, TrialId


class FirstFailures:
    """The failures of a session's first trials.

    Errors are the same if they differ in numbers only. A trial that reached a decision and could be
    saved, or that has trained further than those that failed, shows that the code can work.

    Parameters
    ----------
    n : number of trials that must fail; 0: any number may.
    """

    def __init__(self, n: int) -> None:
        self._n = n
        self._first: dict[TrialId, str | None] = {}  # the first n trials, and their errors
        self._furthest = 0  # resource at which one failed
        self._works = False

    def on_launch(self, trial: TrialId) -> None:
        """Note that a trial was launched, perhaps again."""
        if len(self._first) < self._n:
            self._first.setdefault(trial)

    def on_success(self) -> None:
        """Note that a decision about a trial was carried out in its slot."""
        self._works = True

    def on_failure(self, trial: Trial, error: str) -> None:
        """Note that a trial failed for good; ``error`` is its traceback."""
        self._furthest = max(self._furthest, trial.resource)
        if self._first.get(trial.id, "") is None:
            self._first[trial.id] = error

    def reason_to_stop(self, living: Iterable[Trial]) -> str | None:
        """Return why the study cannot work, or None.

        Parameters
        ----------
        living : trials that have not ended.
        """
        errors = [error for error in self._first.values() if error is not None]
        if self._works or not self._n or len(errors) < self._n:
            return None
        if len({kind(error) for error in errors}) > 1:
            return None
        if any(trial.resource > self._furthest for trial in living):
            return None
        which = f"the first {self._n} trials" if self._n > 1 else "the first trial"
        return f"{which} failed with {headline(errors[0])}"
