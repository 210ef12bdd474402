"""Training with a recorded schedule of hyperparameters."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from daskhpo.core.arguments import check_list, shown
from daskhpo.core.errors import InvalidArgument
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

MAX_RETURNS = 3  # rollbacks in a row that a trial may have without progress


class PBTReplay(Scheduler):
    """Scheduler that trains each trial with a recorded schedule of hyperparameters.

    The space has each hyperparameter that changes as a constant, with the schedule's first value:
    ``Study(trainable, space=schedule.initial, scheduler=PBTReplay(schedule), ...)``. The others
    may be searched. Where a value changes the trial pauses, and continues from its state with the
    next configuration, as a member of the population did. Several trials train with the same
    schedule, each with its own seed.

    Parameters
    ----------
    schedule : contiguous pieces from 0 on, such as :meth:`daskhpo.Result.schedule` returns.
        Hyperparameters that do not change are ignored.

    Raises
    ------
    TypeError, ValueError : not a schedule; from ``setup``: the space's constants are not the
        schedule's first values.

    References
    ----------
    Jaderberg et al. 2017, *Population Based Training of Neural Networks*, Sec. 4.3, on whether
    the schedule itself or the training that found it makes the difference.
    """

    def __init__(self, schedule: Iterable[ScheduleSegment]) -> None:
        pieces = check_list("schedule", schedule, of="its pieces, as Result.schedule() returns")
        if not pieces or not all(isinstance(piece, ScheduleSegment) for piece in pieces):
            raise InvalidArgument(
                f"schedule={shown(schedule)} must be a schedule, such as Result.schedule() returns"
            )
        ends = [0, *(piece.until for piece in pieces)]
        if [piece.start for piece in pieces] != ends[:-1] or sorted({*ends}) != ends:
            raise ValueError(f"pieces of a schedule must be contiguous from 0 on, got {pieces}")
        first = pieces[0].config
        self.mutates = tuple(
            name for name in first if any(piece.config.get(name) != first[name] for piece in pieces)
        )
        self._starts: list[int] = []
        self._values: list[dict[str, Any]] = []  # of self.mutates, from each start on
        for piece in pieces:
            values = {name: piece.config[name] for name in self.mutates}
            if not self._values or values != self._values[-1]:
                self._starts.append(piece.start)
                self._values.append(values)
        self.max_t = pieces[-1].until
        self._furthest: dict[TrialId, int] = {}
        self._n_returns: dict[TrialId, int] = {}  # rollbacks since its furthest resource

    def __repr__(self) -> str:
        steps = dict(zip(self._starts, self._values, strict=True))
        return f"PBTReplay({steps!r}, max_t={self.max_t})"

    def setup(self, space: Space, seed: int) -> None:
        for name, value in self._values[0].items():
            if name not in space.constants or space.constants[name] != value:
                there = repr(space[name]) if name in space else "missing"
                raise ValueError(
                    f"{name} is {there} in the space, but the schedule begins with {value!r}; "
                    "give space=schedule.initial, or set it to that value"
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

    def on_retry(self, trial: Trial) -> bool:
        return True

    def on_extend(self, max_t: int, ended: Sequence[Trial]) -> NoReturn:
        raise InvalidArgument(
            f"max_t={max_t}: the schedule of PBTReplay ends at {self.max_t}, and says nothing of "
            "later units. Begin a study with a longer schedule"
        )

    def _config(self, config: Config, resource: int) -> dict[str, Any]:
        """Return the configuration of the unit that follows ``resource`` units."""
        place = bisect_right(self._starts, resource) - 1
        return {**config, **self._values[place]}

    def _next_stop(self, resource: int) -> int:
        """Return the end of the schedule's piece that follows ``resource`` units."""
        place = bisect_right(self._starts, resource)
        return self._starts[place] if place < len(self._starts) else self.max_t
