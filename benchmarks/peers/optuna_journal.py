"""Cases of Optuna with its journal file: two processes that share a study.

Run by ``overhead.py``; by hand: ``python benchmarks/peers/optuna_journal.py CASE``.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measuring
import optuna
from measuring import UNITS
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

optuna.logging.set_verbosity(optuna.logging.ERROR)


class NeverPrunes(optuna.pruners.BasePruner):
    """A pruner that never prunes and costs nothing, to time only the reports."""

    def prune(self, study: Any, trial: Any) -> bool:
        return False


def halving() -> optuna.pruners.BasePruner:
    return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)


def one_unit(trial: Any) -> float:
    return float(trial.suggest_float("x", 0, 1))


class Reports:
    """An objective that reports 27 times and records the times until the answers."""

    def __init__(self) -> None:
        self.gaps: list[float] = []

    def __call__(self, trial: Any) -> float:
        x = float(trial.suggest_float("x", 0, 1))
        for unit in range(1, UNITS + 1):
            before = time.perf_counter()
            trial.report(x, unit)
            is_over = trial.should_prune()
            self.gaps.append(time.perf_counter() - before)
            if is_over:
                raise optuna.TrialPruned
        return x


def first_unit(trial: Any) -> float:
    x = one_unit(trial)
    measuring.note("first", [time.time()])
    return x


def sleeps(trial: Any) -> float:
    measuring.note("first", [time.time()])
    time.sleep(4)
    return 0.0


def storage(path: Path) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(path)))


def work(path: Path, make: Callable[[], Any], pruner: Any, seed: int, n_trials: int) -> None:
    """Run one process's share of the trials."""
    objective = make()
    study = optuna.load_study(
        study_name="study",
        storage=storage(path),
        sampler=optuna.samplers.RandomSampler(seed),
        pruner=pruner,
    )
    study.optimize(objective, n_trials=n_trials)
    if isinstance(objective, Reports):
        measuring.note("gaps", objective.gaps)


def run(make: Callable[[], Any], pruner: Any, n_trials: int, during: Any = None) -> list[Any]:
    path = measuring.folder() / "journal.log"
    study = optuna.create_study(study_name="study", storage=storage(path))
    processes = [
        multiprocessing.get_context("spawn").Process(
            target=work, args=(path, make, pruner, seed, n_trials // 2)
        )
        for seed in range(2)
    ]
    for process in processes:
        process.start()
    if during is not None:
        during()
    for process in processes:
        process.join()
    return study.trials


def ends(trials: list[Any]) -> list[float]:
    return [trial.datetime_complete.timestamp() for trial in trials]


def one() -> Callable[[Any], float]:
    return one_unit


def trials() -> dict[str, float]:
    rate = measuring.steady_rate(ends(run(one, optuna.pruners.NopPruner(), 700)))
    return {"trials": rate}


def reports() -> dict[str, float]:
    rate = measuring.steady_rate(ends(run(Reports, NeverPrunes(), 80)))
    median, p99 = measuring.median_and_p99(measuring.notes("gaps"))
    return {"reports": rate * UNITS, "latency": median * 1e3, "latency_p99": p99 * 1e3}


def asha() -> dict[str, float]:
    return {"asha": measuring.steady_rate(ends(run(Reports, halving(), 300)))}


def one_first() -> Callable[[Any], float]:
    return first_unit


def start() -> dict[str, float]:
    run(one_first, None, 2)
    return {"start": measuring.started_after()}


def sleeper() -> Callable[[Any], float]:
    return sleeps


def memory() -> dict[str, float]:
    found: dict[str, float] = {}
    run(sleeper, None, 2, during=lambda: found.update(memory=measuring.idle_memory()))
    return found


def decisions() -> dict[str, float]:
    """Time the pruner's answer to a first report, in memory, after many trials."""
    found = {}
    for n in (10_000, 100_000):
        study = optuna.create_study(pruner=halving(), sampler=optuna.samplers.RandomSampler(0))
        study.add_trials(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState.PRUNED,
                value=i / n,
                intermediate_values={1: i / n},
                system_attrs={"completed_rung_0": i / n},
            )
            for i in range(n)
        )
        seconds = []
        for _ in range(7):
            trial = study.ask()
            trial.report(0.5, 1)
            before = time.perf_counter()
            trial.should_prune()
            seconds.append(time.perf_counter() - before)
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        found[f"decision_{n}"] = statistics.median(seconds) * 1e6
    return found


if __name__ == "__main__":
    measuring.run_case(
        {
            "trials": trials,
            "reports": reports,
            "asha": asha,
            "start": start,
            "memory": memory,
            "decisions": decisions,
        }
    )
