"""Measure the time of decisions, in a simulated study and of each scheduler.

python benchmarks/simulation.py [--workers N] [--segments N]
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from daskhpo.core.domains import Real
from daskhpo.core.events import SessionStarted
from daskhpo.core.objective import Objective
from daskhpo.core.scheduler import Scheduler
from daskhpo.core.space import Space
from daskhpo.core.types import (
    CheckpointPolicy,
    Continue,
    Discard,
    Limits,
    Pause,
    Report,
    Resume,
    Start,
    Status,
    Stop,
    Trial,
)
from daskhpo.engine.coordinator import Coordinator, Problem
from daskhpo.engine.drive import drive
from daskhpo.results.result import Result
from daskhpo.schedulers import (
    ASHA,
    FIFO,
    AsyncHyperband,
    Hyperband,
    MedianStopping,
    SuccessiveHalving,
)
from daskhpo.searchers import RandomSearch
from daskhpo.simulation.simulation import ResultJournal
from daskhpo.virtual.executor import SimulatedExecutor

SEED = 0
SPACE = {"floor": Real(0.0, 1.0), "speed": Real(0.2, 1.2), "step": Real(10.0, 100.0, log=True)}


class PowerLaw:
    """A learning curve that falls to its floor; all units take the same time."""

    __slots__ = ("_floor", "_speed", "_step")

    def __init__(self, config: Any) -> None:
        self._floor, self._speed, self._step = config["floor"], config["speed"], config["step"]

    def metric(self, resource: int) -> float:
        return float(self._floor + self._speed / resource)

    def seconds(self, resource: int) -> float:
        return float(self._step * resource)


class Enough(Exception):
    """The study has reached its limit of segments or seconds."""


class CountingExecutor(SimulatedExecutor):
    """An executor that ends the study after ``limit`` events; most are segments."""

    n_segments = limit = 0

    def poll(self, deadline: float | None) -> Any:
        self.n_segments += 1
        if self.n_segments > self.limit:
            raise Enough
        return super().poll(deadline)


def simulate(scheduler: Scheduler, n_workers: int, n_segments: int) -> list[Any]:
    """Run a study for ``n_segments`` segments; return a row of the table."""
    objective = Objective("loss")
    problem = Problem(Space(SPACE), objective, scheduler, RandomSearch(), SEED)
    result = Result((), objective)
    journal = ResultJournal(result)
    executor = CountingExecutor(PowerLaw, objective, n_workers)
    executor.limit = n_segments
    coordinator = Coordinator(problem, journal)
    began, cpu = time.perf_counter(), time.process_time()
    executor.perform(coordinator.handle(SessionStarted(Limits(), CheckpointPolicy(), 0.0)))
    try:
        drive(coordinator, executor, journal)
    except Enough:
        cpu, wall = time.process_time() - cpu, time.perf_counter() - began
    return [
        type(scheduler).__name__,
        result.num_trials,
        n_segments,
        f"{wall:.1f}",
        f"{cpu:.1f}",
        f"{cpu / n_segments * 1e6:.0f}",
        f"{peak_mb():.0f}",
    ]


def peak_mb() -> float:
    """Return the largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def decision_time(scheduler: Scheduler, n_trials: int) -> float:
    """Return the median microseconds from a report to the slot's next segment.

    It is measured over the last fifth of ``n_trials`` trials, of which 100 run at a time.
    """
    generator = np.random.default_rng(SEED)
    trials: dict[int, Trial] = {}
    running: deque[int] = deque()
    n_started = 0
    times: list[float] = []
    while n_started < n_trials:
        began = time.perf_counter()
        if len(running) >= 100:
            trial = trials[running.popleft()]
            losses = tuple(generator.random(trial.until - trial.resource).tolist())
            trial = trial._replace(
                resource=trial.until, best_loss=min(trial.best_loss, *losses), losses=()
            )
            report = Report(trial.until, losses, trial.best_loss)
            began = time.perf_counter()
            match scheduler.on_report(trial, report):
                case Continue(until):
                    trials[trial.id] = trial._replace(until=until)
                    running.append(trial.id)
                case Pause():
                    trials[trial.id] = trial._replace(status=Status.PAUSED)
                case Stop():
                    del trials[trial.id]
                    scheduler.on_end(trial._replace(status=Status.STOPPED))
        if len(running) < 100:
            match scheduler.next_action(trials, True):
                case Start(until, bracket):
                    trial = Trial(n_started, {}, Status.RUNNING, until, bracket)
                    n_started += 1
                case Resume(number, until):
                    trial = trials[number]._replace(status=Status.RUNNING, until=until)
                case Discard(number):
                    scheduler.on_end(trials.pop(number)._replace(status=Status.STOPPED))
                    continue
            trials[trial.id] = trial
            running.append(trial.id)
            scheduler.on_launch(trial)
        if n_started > 0.8 * n_trials:
            times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e6


def table(head: list[str], rows: list[list[Any]]) -> str:
    lines: list[list[Any]] = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


SCHEDULERS: dict[str, Callable[[], Scheduler]] = {
    "FIFO": lambda: FIFO(81),
    "ASHA, stopping": lambda: ASHA(81),
    "ASHA, promotion": lambda: ASHA(81, variant="promotion"),
    "AsyncHyperband": lambda: AsyncHyperband(81),
    "SuccessiveHalving": lambda: SuccessiveHalving(81),
    "Hyperband": lambda: Hyperband(81),
    "MedianStopping of FIFO": lambda: MedianStopping(FIFO(81)),
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--workers", type=int, default=10_000)
    arguments.add_argument("--segments", type=int, default=1_000_000)
    options = arguments.parse_args()
    print("# Simulation: measured\n")
    print("Written by `python benchmarks/simulation.py`. CPU seconds are of the process.\n")
    print(f"Python {platform.python_version()}, numpy {np.__version__}")
    print(f"on {platform.system()} {platform.machine()}, {os.cpu_count()} CPUs; seed {SEED}.\n")
    print(f"## A whole study on {options.workers:,} virtual workers\n")
    head = ["scheduler", "trials", "segments", "wall: s", "CPU: s", "CPU per segment: µs"]
    row = simulate(ASHA(max_t=81), options.workers, options.segments)
    print(table([*head, "peak memory: MB"], [row]), flush=True)
    print("\n## From a report to the decision and the next segment: µs, median\n")
    rows = []
    for name, make in SCHEDULERS.items():
        medians = [decision_time(make(), n_trials) for n_trials in (10_000, 100_000)]
        rows.append([name, *(f"{median:.1f}" for median in medians)])
    print(table(["scheduler", "10,000 trials", "100,000 trials"], rows))


if __name__ == "__main__":
    main()
