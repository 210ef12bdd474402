"""A journal that keeps no records, only what tables of simulations need."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from daskhpo.core.events import Record, Reported, Suggested
from daskhpo.core.objective import Objective
from daskhpo.core.types import Config, TrialId
from daskhpo.results.progress import StudyProgress


class SimulationStats:
    """Progress of a simulated study, with two facts that the records do not say.

    Parameters
    ----------
    objective : metric and mode of the study.
    target : value of the metric for ``reached``, without an end of the study; None: no target.
    curve : source of recorded curves, to count extrapolated units; None: curves are not recorded.

    Attributes
    ----------
    progress : the study so far; ended trials are forgotten.
    reached : seconds of the first unit as good as the target; inf: not reached.
    n_extrapolated : units after the end of a recorded curve.
    """

    def __init__(
        self,
        objective: Objective,
        target: float | None = None,
        curve: Callable[[Config], Any] | None = None,
    ) -> None:
        self.progress = StudyProgress(objective, keep_ended=False)
        self.reached = math.inf
        self.n_extrapolated = 0
        self._target, self._curve = target, curve
        self._recorded: dict[TrialId, int] = {}  # recorded units of a trial's curve

    @property
    def busy_seconds(self) -> float:
        """Slot-seconds held by trials."""
        return self.progress.slot_time.total - self.progress.slot_time.idle

    @property
    def extrapolated(self) -> float:
        """Share of units after the end of a recorded curve."""
        return self.n_extrapolated / max(self.progress.n_units, 1)

    def append(self, record: Record) -> None:
        """Process the next record."""
        self.progress.apply(record)
        if isinstance(record, Reported):
            if self._curve is not None:
                self._count_extrapolated(record)
            if self._target is not None:
                self._compare(record, self._target)
        elif self._curve is not None and isinstance(record, Suggested):
            self._recorded[record.trial] = self._curve(record.config).n_units

    def flush(self) -> None:
        pass

    def _count_extrapolated(self, record: Reported) -> None:
        recorded = self._recorded[record.trial]
        self.n_extrapolated += sum(step.resource > recorded for step in record.steps)

    def _compare(self, record: Reported, target: float) -> None:
        objective = self.progress.objective
        for step in record.steps:
            if objective.reached(objective.loss(step.metrics), target):
                self.reached = min(self.reached, step.seconds)
