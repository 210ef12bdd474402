"""All reports of a study, as they arrived, with the generations that trained them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from daskhpo.core.events import Launched, Record, Reported
from daskhpo.core.objective import Objective
from daskhpo.core.types import Metrics, TrialId
from daskhpo.engine.extension import extensions
from daskhpo.engine.session import study_records
from daskhpo.results.columns import metric_columns
from daskhpo.results.lineage import Generation, Lineage
from daskhpo.results.progress import StudyProgress

if TYPE_CHECKING:
    import pandas as pd


class Reports:
    """Every unit of training that was reported.

    Parameters
    ----------
    progress : the same study, which has processed each record before :meth:`apply`.

    Attributes
    ----------
    lineage : the study's generations.
    launched : trial, attempt and time (seconds since the study began) of each launch.
    is_new : by report: its trial had not reported this unit before.
    generation : by report: number of the generation that trained the unit.
    """

    def __init__(self, progress: StudyProgress) -> None:
        self._progress = progress
        self.lineage = Lineage()
        self.launched: list[tuple[TrialId, int, float]] = []
        self.is_new: list[bool] = []
        self.generation: list[int] = []
        self._trial: list[int] = []
        self._attempt: list[int] = []
        self._resource: list[int] = []
        self._seconds: list[float] = []
        self._metrics: list[Metrics] = []

    def apply(self, record: Record) -> None:
        """Process the next record of the study."""
        if not isinstance(record, Reported):
            self.lineage.apply(record)
            if isinstance(record, Launched):
                self.launched.append((record.trial, record.attempt, record.seconds))
            return
        generation = self.lineage.current[record.trial]
        n_again = len(record.steps) - len(self._progress.new_steps)
        self.is_new += [n >= n_again for n in range(len(record.steps))]
        for step in record.steps:
            self._trial.append(record.trial)
            self._attempt.append(record.attempt)
            self._resource.append(step.resource)
            self._seconds.append(step.seconds)
            self._metrics.append(step.metrics)
            self.generation.append(generation)

    def frame(self) -> pd.DataFrame:
        """Return all reports as they arrived, one row a unit."""
        import pandas as pd

        columns = {
            "trial": self._trial,
            "attempt": self._attempt,
            "resource": self._resource,
            "seconds": self._seconds,
        }
        frame = pd.DataFrame(columns)
        return pd.concat([frame, metric_columns(self._metrics, columns, frame.index)], axis=1)

    def time_of(self, loss: float) -> float | None:
        """Return the time of the first unit with at most this loss; None: there is none."""
        loss_of = self._progress.objective.loss
        times = zip(self._seconds, self._metrics, strict=True)
        return min((at for at, metrics in times if loss_of(metrics) <= loss), default=None)

    def improvements(self) -> Iterable[tuple[float, TrialId, float]]:
        """Yield time, trial and loss of each report that is its trial's best so far."""
        best: dict[TrialId, float] = {}
        for n in sorted(range(len(self._seconds)), key=self._seconds.__getitem__):
            trial, loss = self._trial[n], self._progress.objective.loss(self._metrics[n])
            if loss < best.get(trial, math.inf):
                best[trial] = loss
                yield self._seconds[n], trial, loss

    def by_generation(self) -> list[GenerationReports]:
        """Return resource and loss of the reports of each generation."""
        reports: list[GenerationReports] = [[] for _ in self.lineage.generations]
        loss_of = self._progress.objective.loss
        for number, resource, metrics in zip(
            self.generation, self._resource, self._metrics, strict=True
        ):
            reports[number].append((resource, loss_of(metrics)))
        return reports

    def ancestry(self, trial: TrialId | None) -> list[tuple[Generation, int]]:
        """Return the generations that led to a trial's newest state, each with its end.

        None: the trial whose ancestry has the best report.

        Raises
        ------
        ValueError : the trial has reported nothing, or no trial has a state.
        """
        reports = self.by_generation()
        if trial is not None:
            number = self.lineage.current[trial]
        else:
            trained = [n for n in self.lineage.current.values() if self._until(n, reports)]
            if not trained:
                raise ValueError("no trial has a state to follow: all train from the start again")
            number = min(trained, key=lambda number: self._standing(number, reports))
        ancestry = self.lineage.ancestry(number, self._until(number, reports))
        if not ancestry:
            number = self.lineage.generations[number].trial
            raise ValueError(f"trial {number} has reported nothing: it has no schedule")
        return ancestry

    def _until(self, number: int, reports: list[GenerationReports]) -> int:
        """Return the units of training that a generation's last state holds."""
        if reports[number]:
            return reports[number][-1][0]
        return self.lineage.generations[number].start

    def _standing(self, number: int, reports: list[GenerationReports]) -> tuple[float, int, float]:
        """Return a generation's sort key: best loss of its ancestry, length, last loss."""
        until = self._until(number, reports)
        losses = [
            loss
            for generation, end in self.lineage.ancestry(number, until)
            for resource, loss in reports[generation.number]
            if resource <= end
        ]
        return min(losses), -until, losses[-1]


GenerationReports = list[tuple[int, float]]  # resource, loss


def read_reports(directory: Path, objective: Objective, n_records: int) -> Reports:
    """Return the reports of a study among its first records.

    Raises
    ------
    FileNotFoundError : the journal no longer has so many.
    """
    progress = StudyProgress(objective, keep_ended=bool(extensions(directory)))
    reports, n_read = Reports(progress), 0
    for record in islice(study_records(directory), n_records):
        progress.apply(record)
        reports.apply(record)
        n_read += 1
    if n_read < n_records:
        raise FileNotFoundError(
            f"{directory} no longer has the journal that this result was read from: the study "
            "was moved or removed. Load it where it is now: load_study(path)"
        )
    return reports
