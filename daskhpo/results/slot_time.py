"""Use of the slots' time in a study, from its records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from daskhpo.core.events import (
    AttemptLost,
    Ended,
    Exploited,
    Failed,
    Held,
    Launched,
    Record,
    Reported,
    RolledBack,
    SessionStarted,
    SlotsChanged,
    Step,
    Suggested,
)
from daskhpo.core.types import Status, TrialId


@dataclass(slots=True)
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
    n_retrained : units that were trained again because no state held them.
    is_trained : True if the trial in its slot holds at least one unit of training.
    """

    useful: float = 0.0
    lost: float = 0.0
    saving: float = 0.0
    queued: float = 0.0
    n_retrained: int = 0
    is_trained: bool = False
    _now: float = 0.0  # all time before is accounted for
    _queued_at: float | None = None
    _furthest: int = 0  # largest resource that it has reported since its last exploit

    @property
    def seconds(self) -> float:
        """Seconds in slots, in total."""
        return self.useful + self.lost + self.saving

    def wait(self, now: float, *, ready: bool) -> None:
        """Record that the trial has no slot; ``ready``: it is queued for one."""
        if self._queued_at is not None:
            self.queued += now - self._queued_at
        self._queued_at = now if ready else None

    def launch(self, resource: int, now: float) -> None:
        """Record a launch from a state with ``resource`` units."""
        self.wait(now, ready=False)
        self._now, self.is_trained = now, resource > 0

    def train(self, steps: tuple[Step, ...], now: float) -> None:
        """Record reported units, each with the time of its end."""
        for step in steps:
            seconds = max(0.0, min(step.seconds, now) - self._now)
            if step.resource <= self._furthest:
                self.lost += seconds
                self.n_retrained += 1
            else:
                self.useful += seconds
                self._furthest = step.resource
            self._now += seconds
            self.is_trained = True

    def save(self, now: float) -> None:
        """Record that its state was saved, or its slot is free."""
        self.saving += now - self._now
        self._now = now

    def lose(self, now: float) -> None:
        """Record that its training since the last report is lost."""
        self.lost += now - self._now
        self._now = now

    def exploit(self, resource: int) -> None:
        """Restart the progress counter after an exploit."""
        self._furthest = resource

    def unaccounted(self, now: float) -> float:
        """Return the seconds in its slot that are not accounted for yet."""
        return now - self._now


class _Trial(Protocol):
    status: Status
    time: TrialTime


class SlotTime:
    """Time of all slots of a study, updated record by record.

    The number of slots is the recorded one, or the number of trials that hold a slot if that is
    larger: a slot that is released keeps its trial for a while.

    Attributes
    ----------
    n_slots : number of slots that serve the study now.
    total : slot-seconds of all slots, with or without a trial.
    idle : slot-seconds of slots without a trial.
    unavailable : seconds without any slot.
    """

    def __init__(self) -> None:
        self.n_slots = 0
        self.total = self.idle = self.unavailable = 0.0
        self._now = 0.0
        self._holding: dict[TrialId, TrialTime] = {}
        self._takes_states = True

    @property
    def unreported(self) -> float:
        """Slot-seconds since the last unit of each trial that holds a slot now."""
        return sum(time.unaccounted(self._now) for time in self._holding.values())

    def apply(self, record: Record, trials: Mapping[TrialId, _Trial]) -> None:
        """Process the next record; ``trials`` have their statuses after it."""
        self._advance(record.seconds)
        match record:
            case SlotsChanged(n_slots):
                self.n_slots = n_slots
            case SessionStarted():
                for time in self._holding.values():
                    time.lose(self._now)
                for number in list(self._holding):
                    self._release(number, trials[number])
                self.n_slots, self._takes_states = 0, record.policy.write != "never"
            case Launched(number, _, resource):
                self._holding[number] = trials[number].time
                trials[number].time.launch(resource, self._now)
            case Reported(number):
                trial = trials[number]
                trial.time.train(record.steps, self._now)
                has_state = record.decision is not None or trial.time.is_trained
                if trial.status is not Status.RUNNING and not (has_state and self._takes_states):
                    trial.time.save(self._now)
                    self._release(number, trial)
            case Held(number):
                trial = trials[number]
                trial.time.save(self._now)
                if trial.status is not Status.RUNNING:
                    self._release(number, trial)
            case AttemptLost(number) | Failed(number):
                trials[number].time.lose(self._now)
                self._release(number, trials[number])
            case Ended(number):
                if number in self._holding:
                    trials[number].time.save(self._now)
                self._release(number, trials[number])
            case Exploited(number, source, _, resource) if source != number:
                trials[number].time.exploit(resource)
            case Suggested(number) | RolledBack(number):
                self._release(number, trials[number])

    def _release(self, number: TrialId, trial: _Trial) -> None:
        """Mark a trial as having no slot."""
        self._holding.pop(number, None)
        trial.time.wait(self._now, ready=trial.status is Status.QUEUED)

    def _advance(self, seconds: float) -> None:
        """Advance the clock; it does not run back if records are out of order."""
        passed = max(0.0, seconds - self._now)
        self._now += passed
        n_slots = max(self.n_slots, len(self._holding))
        self.total += n_slots * passed
        self.idle += (n_slots - len(self._holding)) * passed
        if n_slots == 0:
            self.unavailable += passed
