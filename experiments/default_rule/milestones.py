"""A journal of what a study had found by when."""

from __future__ import annotations

import math
from collections.abc import Sequence

from daskhpo.core.events import Record, Reported, Suggested
from daskhpo.core.objective import Objective


class Milestones:
    """The times at which targets were reached, and the best losses by given times.

    Parameters
    ----------
    objective : metric of the study; it is minimised.
    targets : losses.
    moments : seconds.

    Attributes
    ----------
    reached : seconds until each target; inf: not reached.
    best : best loss by each moment; inf: none.
    n_trials : trials that were suggested.
    """

    def __init__(
        self, objective: Objective, targets: Sequence[float], moments: Sequence[float]
    ) -> None:
        self._metric = objective.metric
        self._targets, self._moments = targets, moments
        self.reached = [math.inf] * len(targets)
        self.best = [math.inf] * len(moments)
        self.n_trials = 0

    def append(self, record: Record) -> None:
        """Process the next record."""
        if isinstance(record, Reported):
            for step in record.steps:
                self.add(step.metrics[self._metric], step.seconds)
        self.n_trials += isinstance(record, Suggested)

    def add(self, loss: float, seconds: float) -> None:
        """Add a loss at a time; the order of times does not matter."""
        if not math.isfinite(loss):
            return
        for number, target in enumerate(self._targets):
            if loss <= target:
                self.reached[number] = min(self.reached[number], seconds)
        for number, moment in enumerate(self._moments):
            if seconds <= moment:
                self.best[number] = min(self.best[number], loss)

    def flush(self) -> None:
        pass
