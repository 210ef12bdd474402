"""The time that trials have spent in slots, and when it is used up."""

from __future__ import annotations

import heapq
import math

from daskhpo.core.types import TrialId

ROUNDING = 1e-6  # of times in the journal, in seconds


class TrialTimes:
    """Time in slots of trials that have not ended, over all their attempts.

    Times are seconds of the study, as the journal holds them, so that a replay finds the same.

    Attributes
    ----------
    limit : seconds that a trial may use; inf: no limit.
    """

    def __init__(self) -> None:
        self.limit = math.inf
        self._used: dict[TrialId, float] = {}  # by earlier attempts
        self._launched: dict[TrialId, float] = {}  # of those that hold a slot
        self._due: list[tuple[float, TrialId, float]] = []  # a heap: end, trial, its launch

    def launch(self, trial: TrialId, now: float) -> None:
        """A trial gets a slot."""
        self._launched[trial] = now
        if self.limit < math.inf:
            end = now + self.limit - self._used.get(trial, 0.0)
            heapq.heappush(self._due, (end, trial, now))

    def leave(self, trial: TrialId, now: float) -> None:
        """A trial leaves its slot, and may get another one."""
        self._used[trial] = self.used(trial, now)
        del self._launched[trial]

    def forget(self, trial: TrialId) -> None:
        """A trial has ended, or begins anew."""
        self._used.pop(trial, None)
        self._launched.pop(trial, None)

    def used(self, trial: TrialId, now: float) -> float:
        """Return the seconds that a trial has used."""
        return self._used.get(trial, 0.0) + now - self._launched.get(trial, now)

    def is_up(self, trial: TrialId, now: float) -> bool:
        """Return True if a trial has used its time."""
        return self.used(trial, now) >= self.limit - ROUNDING

    @property
    def next_end(self) -> float | None:
        """When the next trial in a slot will have used its time; None: none will."""
        while self._due and self._launched.get(self._due[0][1]) != self._due[0][2]:
            heapq.heappop(self._due)  # it has left that slot
        return self._due[0][0] if self._due else None

    def pop_ended(self, now: float) -> list[TrialId]:
        """Return the trials in slots that have used their time; each launch comes once."""
        ended = []
        while (end := self.next_end) is not None and end <= now:
            ended.append(heapq.heappop(self._due)[1])
        return ended

    @property
    def in_slots(self) -> frozenset[TrialId]:
        """Trials that hold a slot."""
        return frozenset(self._launched)
