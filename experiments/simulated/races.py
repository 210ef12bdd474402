"""One study in virtual time, and many of them side by side."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from daskhpo.core.events import Record, Reported
from daskhpo.core.objective import Objective
from daskhpo.core.space import Integer, Space
from daskhpo.core.types import CheckpointPolicy, Limits, Status
from daskhpo.engine.coordinator import Problem
from daskhpo.searchers import RandomSearch
from daskhpo.simulation.executor import SimulatedExecutor
from daskhpo.simulation.simulation import simulate
from daskhpo.simulation.stats import SimulationStats
from experiments.simulated.methods import EVERYTHING
from experiments.simulated.tables import SHARED, all_tasks

K = 6


@dataclass(frozen=True)
class Race:
    """A study of a method on a task.

    Attributes
    ----------
    trainings : when it ends at the latest, in full trainings of all workers together.
    share : it ends when a trial is as good as this share of all configurations become; None: it
        lasts, and the best six are followed.
    """

    task: str
    method: str
    workers: int
    seed: int
    trainings: float
    share: float | None = None


@dataclass(frozen=True)
class Ran:
    """What came of it. Times are in full trainings: 1 is how long one worker needs for one.

    Attributes
    ----------
    reached : when the target was; inf: never.
    finished : trials that were trained to the end, or stopped.
    top : (time, mean loss of the best six): a step at each change.
    """

    race: Race
    reached: float
    started: int
    finished: int
    top: tuple[tuple[float, float], ...] = field(repr=False)

    def top_by(self, time: float) -> float:
        """Mean loss of the best six at a time; inf before there are six."""
        place = bisect.bisect_right(self.top, time, key=lambda step: step[0])
        return self.top[place - 1][1] if place else math.inf

    def time_to(self, loss: float) -> float:
        """When the mean of the best six was as low as that; inf: never."""
        return next((time for time, mean in self.top if mean <= loss), math.inf)


class Following(SimulationStats):
    """A tally that also follows the best six trials."""

    def __init__(self, objective: Objective) -> None:
        super().__init__(objective)
        self._losses = objective
        self._steps: list[tuple[float, int, float]] = []

    def append(self, record: Record) -> None:
        """Take in the next record."""
        super().append(record)
        if isinstance(record, Reported):
            loss = self._losses.loss
            self._steps += [(s.seconds, record.trial, loss(s.metrics)) for s in record.steps]

    def top(self) -> Iterator[tuple[float, float]]:
        """Seconds, and the mean loss of the best six: one step for each change of it."""
        best: dict[int, float] = {}
        leaders: list[tuple[float, int]] = []
        for seconds, trial, loss in sorted(self._steps):
            if loss >= best.get(trial, math.inf):
                continue
            best[trial] = loss
            if len(leaders) == K and loss >= leaders[-1][0]:
                continue
            leaders = sorted([pair for pair in leaders if pair[1] != trial] + [(loss, trial)])[:K]
            if len(leaders) == K:
                yield seconds, sum(pair[0] for pair in leaders) / K


def run(race: Race, own: tuple[Path, ...] = (), shared: Path = SHARED) -> Ran:
    """Play one race; for ``own`` and ``shared`` see :func:`tables.all_tasks`."""
    task = next(task for task in all_tasks(own, shared) if task.name == race.task)
    curves = task.curves
    problem = Problem(
        Space({"curve": Integer(0, len(curves) - 1)}),
        curves.objective,
        EVERYTHING[race.method].scheduler(curves.max_t),
        RandomSearch(),
        race.seed,
    )
    seconds = race.trainings * task.full / race.workers
    target = None if race.share is None else task.target(race.share)
    limits = Limits(time_budget=seconds, target=target)
    following = Following(curves.objective) if target is None else None
    tally = following or SimulationStats(curves.objective, target)
    executor = SimulatedExecutor(curves.numbered, curves.objective, race.workers)
    simulate(problem, executor, limits, CheckpointPolicy("never"), tally)
    steps = following.top() if following else ()
    return Ran(
        race,
        tally.reached / task.full,
        tally.n_trials,
        tally.ended[Status.COMPLETED] + tally.ended[Status.STOPPED],
        tuple((at / task.full, mean) for at, mean in steps),
    )


def run_all(
    races: Sequence[Race], own: tuple[Path, ...], shared: Path, processes: int
) -> Iterator[Ran]:
    """Play all races, in so many processes; in the order that they were given."""
    play_one = partial(run, own=own, shared=shared)
    if processes == 1:
        yield from map(play_one, races)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from pool.map(play_one, races, chunksize=16)
