"""The cost of the default rule: refits, decisions between them, and memory.

python -m benchmarks.default_rule [--trials 10000]
"""

from __future__ import annotations

import argparse
import statistics
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

from daskhpo.core.domains import Integer, Real
from daskhpo.core.events import Record, SessionStarted
from daskhpo.core.objective import Objective
from daskhpo.core.space import Space
from daskhpo.core.types import CheckpointPolicy, Limits
from daskhpo.engine.coordinator import Coordinator, Problem
from daskhpo.engine.drive import drive
from daskhpo.schedulers import GuardedASHA
from daskhpo.searchers import ForestSearch
from daskhpo.virtual.executor import SimulatedExecutor

SPACE = Space({f"x{i}": Real(0.0, 1.0) for i in range(6)} | {"layers": Integer(1, 40)})
MAX_T, N_SLOTS = 50, 4


class Curve:
    """A loss that depends on the configuration, early and late in different ways."""

    def __init__(self, config: Any) -> None:
        self._late = sum((config[f"x{i}"] - 0.5) ** 2 for i in range(6))
        self._early = config["x0"] + config["layers"] / 40

    def metric(self, resource: int) -> float:
        return float(self._late + self._early / resource)

    def seconds(self, resource: int) -> float:
        return float(resource)


class Timed:
    """Measures calls, in milliseconds of CPU time."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.times: list[float] = []

    def __call__(self, *arguments: Any) -> Any:
        began = time.thread_time()
        result = self._function(*arguments)
        self.times.append(1e3 * (time.thread_time() - began))
        return result


class Silent:
    """A journal that keeps nothing."""

    def append(self, record: Record) -> None:
        pass

    def flush(self) -> None:
        pass


def study(limits: Limits) -> dict[str, float]:
    """Run a study in virtual time; return what it cost."""
    problem = Problem(SPACE, Objective("loss"), GuardedASHA(MAX_T), ForestSearch(), 0)
    coordinator = Coordinator(problem, Silent())
    searcher, scheduler = coordinator.searcher, coordinator.scheduler
    assert isinstance(searcher, ForestSearch)
    asked = Timed(scheduler.next_action)
    reported = Timed(scheduler.on_report)
    chosen = Timed(searcher.choose)
    fits: list[tuple[int, float]] = []
    firsts: set[int] = set()  # choices that score all trials again, after a fit

    def lesson() -> Any:
        found = ForestSearch.lesson(searcher)
        if found is None:
            return None

        def compute() -> Any:
            timed = Timed(found)
            forest = timed()
            fits.append((forest.n_rows, timed.times[0]))
            firsts.add(len(chosen.times))
            return forest

        return compute

    for part, name, timed in (
        (scheduler, "next_action", asked),
        (scheduler, "on_report", reported),
        (searcher, "choose", chosen),
        (searcher, "lesson", lesson),
    ):
        vars(part)[name] = timed
    executor = SimulatedExecutor(Curve, problem.objective, N_SLOTS)
    began = time.process_time()
    executor.perform(coordinator.handle(SessionStarted(limits, CheckpointPolicy(), 0.0)))
    drive(coordinator, executor, Silent())
    small = [ms for n, ms in fits if 250 <= n <= 500]
    between = [ms for n, ms in enumerate(chosen.times) if n not in firsts]
    after = [ms for n, ms in enumerate(chosen.times) if n in firsts]
    return {
        "trials": coordinator.ledger.n_trials,
        "CPU seconds": time.process_time() - began,
        "refits": len(fits),
        "refit at 250 to 500 rows, median ms": statistics.median(small) if small else 0.0,
        "last refit, ms": fits[-1][1],
        "rows at the last refit": fits[-1][0],
        "next_action, median ms": statistics.median(asked.times),
        "next_action, 99 % ms": statistics.quantiles(asked.times, n=100)[98],
        "on_report, 99 % ms": statistics.quantiles(reported.times, n=100)[98],
        "choice between refits, median ms": statistics.median(between),
        "choice between refits, 99 % ms": statistics.quantiles(between, n=100)[98],
        "first choice after a refit, median ms": statistics.median(after),
        "first choice after a refit, largest ms": max(after),
    }


def memory(n_trials: int) -> float:
    """Return the MB that a study's objects take at its end."""
    problem = Problem(SPACE, Objective("loss"), GuardedASHA(MAX_T), ForestSearch(), 0)
    tracemalloc.start()
    coordinator = Coordinator(problem, Silent())
    executor = SimulatedExecutor(Curve, problem.objective, N_SLOTS)
    limits = Limits(n_trials)
    executor.perform(coordinator.handle(SessionStarted(limits, CheckpointPolicy(), 0.0)))
    drive(coordinator, executor, Silent())
    held = tracemalloc.get_traced_memory()[0] / 1e6
    tracemalloc.stop()
    return held


def main() -> None:
    """Print the costs of a short study and of a long one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=10_000)
    options = parser.parse_args()
    study(Limits(30))  # imports
    short = study(Limits(time_budget=80.0 * MAX_T))  # 80 full trainings of each slot
    long = study(Limits(options.trials))
    print(f"| | 4 workers × 80 trainings | {options.trials:,} trials |\n|---|---:|---:|")
    for name in short:
        print(f"| {name} | {short[name]:,.3g} | {long[name]:,.3g} |")
    sizes = {n: memory(n) for n in (options.trials // 4, options.trials)}
    for n, size in sizes.items():
        print(f"\nmemory at the end of {n:,} trials: {size:.1f} MB")


if __name__ == "__main__":
    main()
