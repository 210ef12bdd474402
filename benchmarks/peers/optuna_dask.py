"""Cases of Optuna with its Dask storage: a study on two Dask workers.

Run by ``overhead.py``; by hand: ``python benchmarks/peers/optuna_dask.py CASE``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import measuring
import optuna
from distributed import Client, LocalCluster, wait
from measuring import UNITS
from optuna_integration import DaskStorage
from optuna_journal import NeverPrunes, Reports, ends, first_unit, halving, one_unit, sleeps


def work(study: Any, make: Callable[[], Any], n_trials: int) -> None:
    """Run one worker's share of the trials."""
    objective = make()
    study.optimize(objective, n_trials=n_trials)
    if isinstance(objective, Reports):
        measuring.note("gaps", objective.gaps)


def run(objective: Any, pruner: Any, n_trials: int, during: Any = None) -> list[Any]:
    make = objective if isinstance(objective, type) else lambda: objective
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0")
    with cluster, Client(cluster) as client:
        study = optuna.create_study(
            storage=DaskStorage(), sampler=optuna.samplers.RandomSampler(), pruner=pruner
        )
        shares = [
            client.submit(work, study, make, n_trials // 2, workers=[worker], pure=False)
            for worker in client.scheduler_info(n_workers=-1)["workers"]
        ]
        if during is not None:
            during()
        wait(shares)
        for share in shares:
            share.result()
        return study.trials


def trials() -> dict[str, float]:
    return {"trials": measuring.steady_rate(ends(run(one_unit, None, 300)))}


def reports() -> dict[str, float]:
    rate = measuring.steady_rate(ends(run(Reports, NeverPrunes(), 40)))
    median, p99 = measuring.median_and_p99(measuring.notes("gaps"))
    return {"reports": rate * UNITS, "latency": median * 1e3, "latency_p99": p99 * 1e3}


def asha() -> dict[str, float]:
    return {"asha": measuring.steady_rate(ends(run(Reports, halving(), 100)))}


def start() -> dict[str, float]:
    run(first_unit, None, 2)
    return {"start": measuring.started_after()}


def memory() -> dict[str, float]:
    found: dict[str, float] = {}
    run(sleeps, None, 2, during=lambda: found.update(memory=measuring.idle_memory()))
    return found


if __name__ == "__main__":
    measuring.run_case(
        {"trials": trials, "reports": reports, "asha": asha, "start": start, "memory": memory}
    )
