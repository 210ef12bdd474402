"""Use of the slots' time in a study: each second is in one place."""

from __future__ import annotations

from collections.abc import Sequence

from daskhpo.core.events import Step
from daskhpo.core.types import TrialId


class TrialTime:
    """Seconds of one trial, by purpose.

    Attributes
    ----------
    useful : in slots, for units that it had not reported before. A unit lasts from the one before,
        or from the launch: building the model is part of the first.
    lost : in slots, for units that it had reported before and that no state held; and since its
        last unit when its worker was lost, its code raised, or the study died.
    saving : in slots, from its last unit until its state was saved, or its slot was free.
    queued : without a slot, ready to continue.
    accounted : study time up to which its time in the slot is in one of the other attributes.
    queued_since : study time since which it is queued; None: it is not.
    """

    __slots__ = ("accounted", "lost", "queued", "queued_since", "saving", "useful")

    def __init__(self) -> None:
        self.useful = self.lost = self.saving = self.queued = self.accounted = 0.0
        self.queued_since: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds in slots, in total."""
        return self.useful + self.lost + self.saving

    def train(self, n_again: int, steps: Sequence[Step], now: float) -> None:
        """Record reported units, the first ``n_again`` of which had been reported before."""
        if n_again:
            self.lost += self._account(steps[n_again - 1].seconds, now)
        self.useful += self._account(steps[-1].seconds, now)

    def _account(self, until: float, now: float) -> float:
        """Account for the time until a unit's end, and return it."""
        if until > now:  # a worker's clock may be ahead
            until = now
        seconds = until - self.accounted
        if seconds <= 0:
            return 0.0
        self.accounted = until
        return seconds

    def save(self, now: float) -> None:
        """Record that its state was saved, or its slot is free."""
        self.saving += now - self.accounted
        self.accounted = now

    def lose(self, now: float) -> None:
        """Record that its training since the last report is lost."""
        self.lost += now - self.accounted
        self.accounted = now


class SlotTime:
    """Time of all slots of a study, and the trials that hold one.

    The number of slots is the recorded one, or the number of trials that hold a slot if that is
    larger: a slot that is released keeps its trial for a while.

    Attributes
    ----------
    now : seconds since the study began; it does not run back if records are out of order.
    n_slots : number of slots that serve the study now.
    total : slot-seconds of all slots, with or without a trial.
    idle : slot-seconds of slots without a trial.
    unavailable : seconds without any slot.
    holding : time of each trial that holds a slot now, by id.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.n_slots = 0
        self.total = self.idle = self.unavailable = 0.0
        self.holding: dict[TrialId, TrialTime] = {}

    @property
    def unreported(self) -> float:
        """Slot-seconds since the last unit of each trial that holds a slot now."""
        return sum(self.now - time.accounted for time in self.holding.values())

    def advance(self, seconds: float) -> None:
        """Advance the clock."""
        passed = seconds - self.now
        self.now = seconds
        n_held = len(self.holding)
        n_slots = max(self.n_slots, n_held)
        self.total += n_slots * passed
        self.idle += (n_slots - n_held) * passed
        if n_slots == 0:
            self.unavailable += passed

    def launch(self, number: TrialId, time: TrialTime) -> None:
        """Give a slot to a trial."""
        if time.queued_since is not None:
            time.queued += self.now - time.queued_since
            time.queued_since = None
        time.accounted = self.now
        self.holding[number] = time

    def release(self, number: TrialId, time: TrialTime, *, queued: bool) -> None:
        """Mark a trial as having no slot; ``queued``: it is ready to continue."""
        self.holding.pop(number, None)
        if time.queued_since is not None:
            time.queued += self.now - time.queued_since
        time.queued_since = self.now if queued else None
