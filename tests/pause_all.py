"""A scheduler that pauses every trial once, so that a test knows what goes on where."""

from __future__ import annotations

from typing import Any

from daskhpo.core.scheduler import Scheduler
from daskhpo.core.types import Pause, Resume, Start, Status, Stop, Wait


class PauseAll(Scheduler):
    """All trials are paused after one unit, and then trained to the end."""

    def __init__(self, max_t: int = 3) -> None:
        self.max_t = max_t

    def next_action(self, trials: Any, can_start: bool) -> Any:
        if can_start:
            return Start(until=1)
        paused = (trial.id for trial in trials.values() if trial.status is Status.PAUSED)
        return next((Resume(number, self.max_t) for number in paused), Wait())

    def on_report(self, trial: Any, report: Any) -> Any:
        return Pause() if report.resource == 1 else Stop("fully trained")

    def on_launch(self, trial: Any) -> None: ...

    def on_end(self, trial: Any) -> None: ...
