"""A journal that counts what happens in a simulated study, and keeps no records."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

from daskhpo.core.events import (
    AttemptLost,
    Deleted,
    Ended,
    Failed,
    Held,
    Launched,
    Record,
    Reported,
    Saved,
    SlotsChanged,
    StopRequested,
    Suggested,
)
from daskhpo.core.objective import Objective
from daskhpo.core.types import Config, Status, TrialId


class SimulationStats:
    """Counters of a study, much faster than a :class:`daskhpo.Result`.

    Parameters
    ----------
    objective : metric and mode of the study.
    target : value of the metric for ``reached``; None: no target.
    curve : source of recorded curves, to count extrapolated units; None: curves are not recorded.

    Attributes
    ----------
    n_trials : trials started.
    ended : numbers of ended trials, by status.
    n_units, n_extrapolated : units trained; those of them after the end of a recorded curve.
    n_preemptions : preemptions in mid-segment.
    busy_seconds, slot_seconds : slot-seconds held by trials; slot-seconds in all.
    seconds : time of the last record.
    n_files, n_bytes : checkpoints written in all.
    most_files, most_bytes : maximum of stored checkpoints at one time.
    reached : seconds of the first step as good as the target; inf: not reached.
    stopped : True if the study received a stop request.
    """

    def __init__(
        self,
        objective: Objective,
        target: float | None = None,
        curve: Callable[[Config], Any] | None = None,
    ) -> None:
        self._objective, self._target, self._curve = objective, target, curve
        self.n_trials = self.n_units = self.n_extrapolated = self.n_preemptions = 0
        self.n_files = self.n_bytes = self.most_files = self.most_bytes = 0
        self.busy_seconds = self.slot_seconds = self.seconds = 0.0
        self.ended: Counter[Status] = Counter()
        self.reached = math.inf
        self.stopped = False
        self._recorded: dict[TrialId, int] = {}  # recorded units of a trial's curve
        self._since: dict[TrialId, float] = {}  # time up to which a trial's slot is counted
        self._stored: dict[int, int] = {}  # bytes by checkpoint id
        self._stored_bytes = 0
        self._n_slots, self._slots_since = 0, 0.0

    @property
    def n_ended(self) -> int:
        """Number of trials that ended, with any status."""
        return self.ended.total()

    def append(self, record: Record) -> None:
        """Count the next record."""
        match record:
            case Reported(trial, steps=steps):
                self._hold(trial, record.seconds)
                self.n_preemptions += record.preempted
                if steps:
                    self._train(record)
            case Suggested(trial, config):
                self.n_trials += 1
                if self._curve is not None:
                    self._recorded[trial] = self._curve(config).n_units
            case Launched(trial):
                self._since[trial] = record.seconds
            case Held(trial) | AttemptLost(trial) | Failed(trial):
                self._hold(trial, record.seconds)
            case Ended(trial, status):
                self.ended[status] += 1
                self._since.pop(trial, None)
                self._recorded.pop(trial, None)
            case Saved(ref=ref):
                self.n_files += 1
                self.n_bytes += ref.n_bytes
                self._stored[ref.id] = ref.n_bytes
                self._stored_bytes += ref.n_bytes
                self.most_files = max(self.most_files, len(self._stored))
                self.most_bytes = max(self.most_bytes, self._stored_bytes)
            case Deleted(checkpoint_id):
                self._stored_bytes -= self._stored.pop(checkpoint_id)
            case SlotsChanged(n_slots):
                self._count_slots(record.seconds)
                self._n_slots = n_slots
            case StopRequested():
                self.stopped = True
        self.seconds = record.seconds

    def flush(self) -> None:
        """Count the slots up to the last record; all else is counted already."""
        self._count_slots(self.seconds)

    def _hold(self, trial: TrialId, seconds: float) -> None:
        if trial in self._since:
            self.busy_seconds += seconds - self._since[trial]
            self._since[trial] = seconds

    def _train(self, record: Reported) -> None:
        first, last = record.steps[0].resource, record.steps[-1].resource
        self.n_units += last - first + 1
        if self._curve is not None:
            self.n_extrapolated += max(0, last - max(self._recorded[record.trial], first - 1))
        if self._target is None:
            return
        for step in record.steps:
            loss = self._objective.loss(step.metrics)
            if self._objective.reached(loss, self._target):
                self.reached = min(self.reached, step.seconds)

    def _count_slots(self, seconds: float) -> None:
        self.slot_seconds += self._n_slots * (seconds - self._slots_since)
        self._slots_since = seconds
