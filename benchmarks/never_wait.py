"""Measure the idle time of slots during suggestions, with and without prefetch.

python benchmarks/never_wait.py [--slots N] [--seconds S] > benchmarks/results/never_wait.md

Only the training is simulated. Coordinator, scheduler, searcher and the searcher's thread run in
real time; segments take the seconds of a simulation's learning curves.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one core for the model, one for the coordinator

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush
from typing import Any

import numpy as np
from showing import about, load, table
from simulation import SEED, SPACE, Enough, PowerLaw

from daskhpo.core.commands import Command, Release, Train
from daskhpo.core.events import Event, SessionStarted, SlotsChanged, Step, Trained
from daskhpo.core.objective import Objective
from daskhpo.core.searcher import Searcher
from daskhpo.core.space import Space
from daskhpo.core.types import CheckpointPolicy, Limits, TrialId
from daskhpo.engine.coordinator import Coordinator, Problem
from daskhpo.engine.drive import drive
from daskhpo.engine.prefetch import PrefetchedAdvice, PrefetchingSearcher
from daskhpo.results.result import Result
from daskhpo.schedulers import ASHA
from daskhpo.searchers import RandomSearch
from daskhpo.searchers.gp.search import GPSearch
from daskhpo.simulation.simulation import ResultJournal

THINKING = 0.1  # seconds of computation per suggestion


class Numpy(RandomSearch):
    """A searcher that computes for 0.1 s in LAPACK, like a Gaussian process."""

    def setup(self, space: Space, seed: int) -> None:
        super().setup(space, seed)
        a = np.random.default_rng(seed).random((200, 200))
        self._matrix = a @ a.T + 200 * np.eye(200)

    def suggest(self, trial: TrialId) -> dict[str, Any]:
        end = time.perf_counter() + THINKING
        while time.perf_counter() < end:
            np.linalg.cholesky(self._matrix)
        return super().suggest(trial)


class Python(RandomSearch):
    """A searcher that computes for 0.1 s in Python, so other threads wait for the GIL."""

    def suggest(self, trial: TrialId) -> dict[str, Any]:
        end = time.perf_counter() + THINKING
        while time.perf_counter() < end:
            sum(range(100))
        return super().suggest(trial)


class RealTime:
    """An executor in real time; a unit takes its curve's seconds divided by ``speed``.

    Attributes
    ----------
    idle : slot-seconds between the end of a segment and the command for the next one.
    answers : seconds from the end of each segment to the command that follows from it.
    started : seconds from the start until all slots worked.
    """

    def __init__(self, n_slots: int, speed: float, seconds: float) -> None:
        self._n_slots, self._speed, self._length = n_slots, speed, seconds
        self._runs: dict[TrialId, tuple[Train, PowerLaw, float]] = {}  # with the time of its end
        self._ends: list[tuple[float, TrialId]] = []
        self._free: list[float] = []  # start of each free slot's idle time
        self._waiting: dict[TrialId, float] = {}  # time of the report
        self._first = True
        self.idle, self.answers, self.started = 0.0, list[float](), float("nan")
        self._zero = time.monotonic()

    def now(self) -> float:
        return time.monotonic() - self._zero

    def poll(self, deadline: float | None) -> Sequence[Event]:
        if self._first:
            self._first, self._free = False, [self.now()] * self._n_slots
            return [SlotsChanged(self._n_slots, self.now())]
        if self.now() > self._length:
            self.idle += sum(self.now() - since for since in self._free)
            raise Enough
        events: list[Event] = []
        while not events:
            time.sleep(max(0.0, self._ends[0][0] - self.now()))
            while self._ends and self._ends[0][0] <= self.now():
                due, trial = heappop(self._ends)
                job, curve, _ = self._runs[trial]
                units = range(job.resource + 1, job.until + 1)
                steps = tuple(Step(r, {"loss": curve.metric(r)}, due) for r in units)
                events.append(Trained(trial, job.attempt, steps, self.now()))
                self._waiting[trial] = due
        return events

    def perform(self, commands: Iterable[Command]) -> None:
        now = self.now()
        for command in commands:
            match command:
                case Train(trial, launch=launch):
                    since = self._free.pop() if launch else self._answer(trial, now)
                    self.idle += now - since
                    self._train(command, now)
                case Release(trial):
                    self._free.append(self._answer(trial, now))
        if not self._free and not self.started >= 0:
            self.started = now

    def close(self) -> None:
        pass

    def _answer(self, trial: TrialId, now: float) -> float:
        due = self._waiting.pop(trial)
        self.answers.append(now - due)
        return due

    def _train(self, job: Train, now: float) -> None:
        curve = PowerLaw(job.config)
        seconds = (curve.seconds(job.until) - curve.seconds(job.resource)) / self._speed
        self._runs[job.trial] = (job, curve, now + seconds)
        heappush(self._ends, (now + seconds, job.trial))


def study(searcher: Searcher, ahead: bool, n_slots: int, speed: float, seconds: float) -> list[Any]:
    """Run a study for ``seconds``; return a row of the table."""
    space, objective = Space(SPACE), Objective("loss")
    result = Result((), objective)
    journal = ResultJournal(result)
    coordinator = Coordinator(Problem(space, objective, ASHA(27), searcher, SEED), journal)
    thread = PrefetchingSearcher(coordinator.searcher, space, SEED) if ahead else None
    if thread is not None:
        coordinator.searcher, coordinator.advisor = thread, PrefetchedAdvice(thread)
    executor = RealTime(n_slots, speed, seconds)
    coordinator.handle(SessionStarted(Limits(), CheckpointPolicy("never"), 0.0))
    try:
        drive(coordinator, executor, journal)
    except Enough:
        took = executor.now()
    finally:
        if thread is not None:
            thread.close()
    cost = result.cost()
    quantiles = statistics.quantiles(executor.answers, n=100)
    return [
        "prefetched" if ahead else "on demand",
        result.num_trials,
        f"{executor.idle:.1f}",
        f"{100 * executor.idle / (n_slots * took):.2f}",
        f"{cost['search_seconds']:.1f}" if ahead else "",
        f"{100 * cost['fallback_trials'] / result.num_trials:.0f}",
        f"{1e3 * executor.started:.0f}",
        f"{1e3 * quantiles[49]:.1f}",
        f"{1e3 * quantiles[98]:.1f}",
    ]


SEARCHERS: dict[str, Callable[[], Searcher]] = {
    "100 ms in LAPACK": Numpy,
    "100 ms in Python": Python,
    "`GPSearch()`": GPSearch,
}
HEAD = [
    "searcher",
    "suggestions",
    "trials",
    "idle: slot-s",
    "of all: %",
    "recorded: slot-s",
    "fallbacks: %",
    "all slots work after: ms",
    "answer, median: ms",
    "99 %: ms",
]


NOTES = """\
*Idle*: slot-seconds from the end of a segment to the command for the next one, for any reason;
*recorded*: slot-seconds of waiting for the searcher, as recorded in the journal. With
`RandomSearch()` the idle time is that of the engine alone. The two searchers with 100 ms per
suggestion cannot keep up when 64 slots start at the same time: most of their fallbacks are those.
"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--slots", type=int, default=64)
    arguments.add_argument("--seconds", type=float, default=60.0)
    options = arguments.parse_args()
    print("# Never wait: measured\n")
    print(about("python benchmarks/never_wait.py", ["numpy", "scipy"]))
    print(f"- {options.slots} slots for {options.seconds:.0f} s, ASHA(27), seed {SEED}\n")
    for speed in (2.0, 10.0):
        units = " to ".join(f"{bound / speed:.0f}" for bound in (10.0, 100.0))
        print(f"## A unit of training takes {units} s\n")
        rows = [["`RandomSearch()`", *study(RandomSearch(), False, options.slots, speed, 20.0)]]
        for name, make in SEARCHERS.items():
            for ahead in (False, True):
                row = study(make(), ahead, options.slots, speed, options.seconds)
                rows.append([name, *row])
        print(table(HEAD, rows) + "\n", flush=True)
    print(NOTES)
    print(load())


if __name__ == "__main__":
    main()
