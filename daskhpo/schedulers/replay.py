"""Training once more with a schedule that was found before."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import Any

from daskhpo.core.scheduler import Scheduler
from daskhpo.core.space import Space
from daskhpo.core.types import (
    Action,
    Config,
    Decision,
    Discard,
    Exploit,
    Pause,
    Report,
    Resume,
    ScheduleSegment,
    Start,
    Status,
    Stop,
    Trial,
    TrialId,
    Wait,
)

MAX_RETURNS = 3  # as often as this a trial may go back before it comes further than ever


class PBTReplay(Scheduler):
    """Trains each trial with a recorded schedule: its hyperparameters change as they did there.

    The space holds the schedule's first value of each hyperparameter that changes, as a constant:
    ``Study(trainable, space=schedule.initial, scheduler=PBTReplay(schedule), ...)``. The others
    may be searched. Where a value changes the trial pauses, and goes on from its state with the
    next configuration, as a member of the population did. Several trials train with the same
    schedule and seeds of their own.

    Parameters
    ----------
    schedule : contiguous pieces from 0 on, such as :meth:`daskhpo.Result.schedule` gives. Other
        hyperparameters than those that change are left out of account.

    Raises
    ------
    TypeError, ValueError : it is no schedule; from ``setup``: the space does not begin as the
        schedule does.

    References
    ----------
    Jaderberg et al. 2017, *Population Based Training of Neural Networks*, Sec. 4.3, on whether
    the schedule or the training's way to it makes the difference.
    """

    def __init__(self, schedule: Iterable[ScheduleSegment]) -> None:
        pieces = list(schedule)
        if not pieces or not all(isinstance(piece, ScheduleSegment) for piece in pieces):
            raise TypeError(f"schedule={schedule!r} must be a schedule, as Result.schedule() gives")
        ends = [0, *(piece.until for piece in pieces)]
        if [piece.start for piece in pieces] != ends[:-1] or sorted({*ends}) != ends:
            raise ValueError(f"pieces of a schedule must be contiguous from 0 on, not {pieces}")
        first = pieces[0].config
        self.mutates = tuple(
            name for name in first if any(piece.config.get(name) != first[name] for piece in pieces)
        )
        self._starts: list[int] = []
        self._values: list[dict[str, Any]] = []  # of what changes, from each start on
        for piece in pieces:
            values = {name: piece.config[name] for name in self.mutates}
            if not self._values or values != self._values[-1]:
                self._starts.append(piece.start)
                self._values.append(values)
        self.max_t = pieces[-1].until
        self._furthest: dict[TrialId, int] = {}
        self._n_returns: dict[TrialId, int] = {}  # since it came to its furthest resource

    def __repr__(self) -> str:
        steps = dict(zip(self._starts, self._values, strict=True))
        return f"PBTReplay({steps!r}, max_t={self.max_t})"

    def setup(self, space: Space, seed: int) -> None:
        for name, value in self._values[0].items():
            if name not in space.constants or space.constants[name] != value:
                there = repr(space[name]) if name in space else "missing"
                raise ValueError(
                    f"{name} is {there} in the space, but the schedule begins with {value!r}; "
                    "give space=schedule.initial, or put that value there"
                )

    def next_action(self, trials: Mapping[TrialId, Trial], can_start: bool) -> Action:
        paused = [trial for trial in trials.values() if trial.status is Status.PAUSED]
        if not paused:
            return Start(until=self._next_stop(0)) if can_start else Wait()
        trial = min(paused, key=lambda trial: trial.id)
        if self._n_returns.get(trial.id, 0) > MAX_RETURNS:
            return Discard(
                trial.id,
                f"its states were gone when they were needed, {MAX_RETURNS + 1} times; a schedule "
                "needs a trainable that can be saved, and any checkpoint policy but 'never'",
            )
        resource = trial.newest.resource if trial.newest else 0
        config = self._config(trial.config, resource)
        if config != trial.config or trial.decided_at > resource:
            return Exploit(trial.id, trial.id, config)
        return Resume(trial.id, self._next_stop(resource))

    def on_launch(self, trial: Trial) -> None:
        pass

    def on_exploit(self, trial: Trial, source: TrialId) -> None:
        if trial.resource < self._furthest.get(trial.id, 0):
            self._n_returns[trial.id] = self._n_returns.get(trial.id, 0) + 1

    def on_rollback(self, trial: Trial) -> bool:
        return True

    def on_report(self, trial: Trial, report: Report) -> Decision:
        if report.resource >= self.max_t:
            return Stop("fully trained")
        if report.resource > self._furthest.get(trial.id, 0):
            self._furthest[trial.id] = report.resource
            self._n_returns.pop(trial.id, None)
        return Pause()

    def on_end(self, trial: Trial) -> None:
        self._furthest.pop(trial.id, None)
        self._n_returns.pop(trial.id, None)

    def _config(self, config: Config, resource: int) -> dict[str, Any]:
        """The configuration of the next unit after so many."""
        place = bisect_right(self._starts, resource) - 1
        return {**config, **self._values[place]}

    def _next_stop(self, resource: int) -> int:
        """Where the values that hold after so many units hold no more."""
        place = bisect_right(self._starts, resource)
        return self._starts[place] if place < len(self._starts) else self.max_t
