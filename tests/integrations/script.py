"""A trial without a study: the test says after which unit it is left, and continues it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from daskhpo.checkpoints.codec import decode_row, snapshot


class Left(BaseException):
    """The trial was left at a report."""


class ScriptedTrial:
    """A :class:`daskhpo.trainable.TrialContext` that is left after its unit ``until``."""

    device = "cpu"
    devices = ("cpu",)

    def __init__(self, config: Any, until: int, resource: int = 0, checkpoint: Any = None) -> None:
        self.id, self.seed, self.max_t, self.config = 0, 3, 5, config
        self.resource, self.checkpoint, self._until = resource, checkpoint, until
        self.reports: list[dict[str, float]] = []

    def report(self, metrics: Any, state: Callable[[], Any] | None = None) -> None:
        self.reports.append(dict(metrics))
        self.resource += 1
        self.checkpoint = None
        if self.resource == self._until:
            if state is not None:
                row = snapshot(state(), 0, self.resource)  # as a checkpoint holds it
                self.checkpoint = decode_row(row.buffer, row.layout)
            if self.resource < self.max_t:
                raise Left

    def complete(self) -> None:
        raise AssertionError

    def should_stop(self) -> bool:
        return False

    def remaining_walltime(self) -> float | None:
        return None


def run(function: Callable[[Any, Any], Any], config: Any, *stops: int) -> list[dict[str, float]]:
    """Return the reports of a trial that is left after each of ``stops``, and then continues."""
    reports, resource, checkpoint = [], 0, None
    for until in (*stops, 5):
        trial = ScriptedTrial(config, until, resource, checkpoint)
        with contextlib.suppress(Left):
            function(config, trial)
        reports += trial.reports
        resource, checkpoint = trial.resource, trial.checkpoint
    return reports
