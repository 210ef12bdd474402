"""A study in virtual time, and recorded curves under another scheduler."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from daskhpo.core.domains import Integer
from daskhpo.core.events import Failed, Record, Reported, SessionStarted, Suggested
from daskhpo.core.objective import Objective
from daskhpo.core.random import rng
from daskhpo.core.scheduler import Scheduler
from daskhpo.core.space import Space
from daskhpo.core.types import CheckpointPolicy, Limits, TrialId
from daskhpo.engine.coordinator import Coordinator, Problem
from daskhpo.engine.drive import drive
from daskhpo.engine.protocols import Journal
from daskhpo.schedulers.fifo import FIFO
from daskhpo.searchers import RandomSearch
from daskhpo.virtual.executor import SimulatedExecutor
from daskhpo.virtual.recorded import RecordedCurve


def simulate(
    problem: Problem,
    executor: SimulatedExecutor,
    limits: Limits,
    policy: CheckpointPolicy,
    journal: Journal,
) -> None:
    """Run a study to its end in virtual time; ``journal`` receives all records."""
    coordinator = Coordinator(problem, journal)
    with contextlib.closing(coordinator.searcher):
        executor.perform(coordinator.handle(SessionStarted(limits, policy, 0.0)))
        drive(coordinator, executor, journal)


@dataclass(frozen=True, slots=True)
class Replayed:
    """Cost of a scheduler on recorded curves, in one order of the trials.

    Attributes
    ----------
    seconds_to_target : until the first unit as good as the target; inf: not reached.
    slot_seconds : training of all trials together.
    beyond : share of units after the end of a recorded curve.
    """

    seconds_to_target: float
    slot_seconds: float
    beyond: float


def replay(
    curves: Sequence[RecordedCurve],
    objective: Objective,
    scheduler: Scheduler,
    num_workers: int,
    order: int,
    target: float,
) -> Replayed:
    """Start each curve once, as a trial of a study under a scheduler.

    Parameters
    ----------
    order : number of an order of the trials, see `problem_in_order`.
    target : value of the metric to reach.
    """
    problem = replace(problem_in_order(len(curves), objective, order), scheduler=scheduler)
    tally = _Tally(curves, objective, target)
    executor = SimulatedExecutor(lambda config: curves[config["curve"]], objective, num_workers)
    simulate(problem, executor, Limits(num_trials=len(curves)), CheckpointPolicy(), tally)
    return Replayed(tally.reached, tally.slot_seconds, tally.n_beyond / max(tally.n_units, 1))


def problem_in_order(n_curves: int, objective: Objective, order: int) -> Problem:
    """Return a problem whose configurations are ``{"curve": n}``, each once, shuffled."""
    numbers = rng(order, "order of trials").permutation(n_curves).tolist()
    searcher = RandomSearch(points_to_evaluate=[{"curve": number} for number in numbers])
    space = Space({"curve": Integer(0, n_curves - 1)})
    return Problem(space, objective, FIFO(1), searcher, order)


class _Tally:
    """A journal that adds up what was trained."""

    def __init__(
        self, curves: Sequence[RecordedCurve], objective: Objective, target: float
    ) -> None:
        self._curves, self._objective, self._target = curves, objective, target
        self._curve_of: dict[TrialId, RecordedCurve] = {}
        self._done: dict[TrialId, int] = {}
        self.reached, self.slot_seconds = math.inf, 0.0
        self.n_units = self.n_beyond = 0

    def append(self, record: Record) -> None:
        match record:
            case Suggested(trial, config):
                self._curve_of[trial] = self._curves[config["curve"]]
                self._done[trial] = 0
            case Reported(trial, steps=steps) if steps:
                self._train(trial, steps[-1].resource)
                recorded = self._curve_of[trial].n_units
                self.n_units += len(steps)
                self.n_beyond += sum(step.resource > recorded for step in steps)
                loss_of, target = self._objective.loss, self._target
                for step in steps:
                    if self._objective.reached(loss_of(step.metrics), target):
                        self.reached = min(self.reached, step.seconds)
            case Failed(trial):
                self._train(trial, self._done[trial] + 1)

    def flush(self) -> None:
        pass

    def _train(self, trial: TrialId, until: int) -> None:
        curve, done = self._curve_of[trial], self._done[trial]
        self.slot_seconds += curve.seconds(until) - (curve.seconds(done) if done else 0.0)
        self._done[trial] = until
