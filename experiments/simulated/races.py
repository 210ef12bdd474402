"""Studies in virtual time: one, or many in parallel processes."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from daskhpo.core.domains import Integer
from daskhpo.core.events import Record, Reported
from daskhpo.core.space import Space
from daskhpo.core.types import CheckpointPolicy, Limits, Status
from daskhpo.engine.coordinator import Problem
from daskhpo.searchers import RandomSearch
from daskhpo.simulation.stats import SimulationStats
from daskhpo.virtual.executor import SimulatedExecutor
from daskhpo.virtual.replay import simulate
from experiments.simulated.methods import EVERYTHING
from experiments.simulated.tables import SHARED, all_tasks

K = 6


@dataclass(frozen=True)
class Race:
    """A study of one method on one task.

    Attributes
    ----------
    trainings : budget in full trainings, of all workers together.
    share : the study ends once a trial is among this share of best configurations; None: it runs
        for the whole budget, and the best six trials are tracked.
    """

    task: str
    method: str
    workers: int
    seed: int
    trainings: float
    share: float | None = None


@dataclass(frozen=True)
class Ran:
    """The outcome of a race. The unit of time is one full training by one worker.

    Attributes
    ----------
    reached : time at which the target was reached; inf: never.
    started : number of trials.
    finished : number of trials that were trained to the end or stopped.
    top : pairs of time and mean loss of the best six, one per change.
    """

    race: Race
    reached: float
    started: int
    finished: int
    top: tuple[tuple[float, float], ...] = field(repr=False)

    def top_by(self, time: float) -> float:
        """Return the mean loss of the best six at a time; inf before there are six."""
        n = bisect.bisect_right(self.top, time, key=lambda step: step[0])
        return self.top[n - 1][1] if n else math.inf

    def time_to(self, loss: float) -> float:
        """Return the time until the mean of the best six is ``loss``; inf: never."""
        return next((time for time, mean in self.top if mean <= loss), math.inf)


class Following:
    """A journal that also tracks the best six trials."""

    def __init__(self, stats: SimulationStats) -> None:
        self._stats = stats
        self._steps: list[tuple[float, int, float]] = []

    def append(self, record: Record) -> None:
        """Process the next record."""
        self._stats.append(record)
        if isinstance(record, Reported):
            loss = self._stats.progress.objective.loss
            self._steps += [(s.seconds, record.trial, loss(s.metrics)) for s in record.steps]

    def flush(self) -> None:
        pass

    def top(self) -> Iterator[tuple[float, float]]:
        """Yield seconds and mean loss of the best six, at each change."""
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
    """Run one race; for ``own`` and ``shared`` see :func:`tables.all_tasks`."""
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
    stats = SimulationStats(curves.objective, target)
    following = Following(stats) if target is None else None
    executor = SimulatedExecutor(curves.numbered, curves.objective, race.workers)
    simulate(problem, executor, limits, CheckpointPolicy("never"), following or stats)
    steps = following.top() if following else ()
    return Ran(
        race,
        stats.reached / task.full,
        stats.progress.n_trials,
        stats.progress.counts[Status.COMPLETED] + stats.progress.counts[Status.STOPPED],
        tuple((at / task.full, mean) for at, mean in steps),
    )


def run_all(
    races: Sequence[Race], own: tuple[Path, ...], shared: Path, processes: int
) -> Iterator[Ran]:
    """Run all races in ``processes`` processes; yield outcomes in the given order."""
    run_one = partial(run, own=own, shared=shared)
    if processes == 1:
        yield from map(run_one, races)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from pool.map(run_one, races, chunksize=16)
