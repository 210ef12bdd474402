"""Demand: tasks for which Dask's scheduler wants the workers that a study lacks."""

from __future__ import annotations

import math
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from distributed import LocalCluster

from daskhpo.executors.dask.demand import MOST_WORKERS, n_waiting_tasks, removable
from daskhpo.schedulers import FIFO


def wanted(n_tasks: int, held: int, n_workers: int, n_threads: int) -> int:
    """Workers that ``Scheduler.adaptive_target`` wants, for tasks that take very long."""
    n = n_tasks + held
    return math.ceil(n / n_threads * n_workers) if n_workers else n


@pytest.mark.parametrize("missing", [1, 2, 7, 33])
@pytest.mark.parametrize(
    ("held", "threads"),
    [(0, []), (1, [1]), (3, [1, 1, 1]), (2, [4, 4]), (0, [8]), (2, [1, 2, 7]), (5, [3] * 5)],
)
def test_dask_wants_what_the_study_has_and_lacks(
    missing: int, held: int, threads: list[int]
) -> None:
    n_tasks = n_waiting_tasks(missing, held, len(threads), sum(threads))
    assert wanted(n_tasks, held, len(threads), sum(threads)) == held + missing


@pytest.mark.parametrize("missing", [0, -1, -math.inf])
def test_a_study_that_lacks_nothing_asks_for_nothing(missing: float) -> None:
    assert n_waiting_tasks(missing, 3, 3, 12) == 0


def test_a_study_without_limit_asks_for_some_more_than_it_has() -> None:
    assert wanted(n_waiting_tasks(math.inf, 5, 5, 5), 5, 5, 5) == 5 + MOST_WORKERS


def test_a_study_with_one_trial_left_and_no_threads_anywhere_still_asks() -> None:
    assert n_waiting_tasks(1, 0, 1, 0) == 1


@pytest.mark.parametrize(
    ("names", "held", "removable_names"),
    [
        ([0, 1, 2], {1}, [0, 2]),
        (["tcp://1.2.3.4:80", "gpu-1", "gpu-2"], {"gpu-1"}, ["tcp://1.2.3.4:80", "gpu-2"]),
        (["SLURMCluster-0", "SLURMCluster-1"], {"SLURMCluster-0"}, ["SLURMCluster-1"]),
        (["c-0-0", "c-0-1", "c-1-0", "c-1-1"], {"c-0-1"}, ["c-1-0", "c-1-1"]),
        (["c-0-0", "c-0-1"], {}, ["c-0-0", "c-0-1"]),
    ],
)
def test_a_worker_is_closed_if_no_worker_of_its_job_is_needed(
    names: list[Any], held: set[Any], removable_names: list[Any]
) -> None:
    workers = [SimpleNamespace(name=name, address=f"at {name}") for name in names]
    left = removable(workers, workers, {f"at {name}" for name in held}.__contains__)
    assert [worker.name for worker in left] == removable_names
    assert removable(workers[:1], workers, lambda address: True) == []


@pytest.mark.cluster
def test_an_adaptive_cluster_grows_and_shrinks_with_a_study(
    make_study: Any, tmp_path: Path, wait_for: Any
) -> None:
    def train(config: Any, trial: Any) -> None:
        while trial.id == 0 and not (tmp_path / "go on").exists():
            time.sleep(0.02)  # the worker of the other trial is closed meanwhile
        trial.report({"loss": float(trial.id)})

    with LocalCluster(
        n_workers=0, threads_per_worker=2, dashboard_address="127.0.0.1:0"
    ) as cluster:
        scheduler = cluster.scheduler
        handle = make_study(train, FIFO(1)).start(num_trials=2, client=cluster, progress=False)
        wait_for(lambda: len(scheduler.unrunnable) == 2, "two tasks that wait for workers")
        assert [scheduler.check_idle() for _ in range(3)] == [None] * 3  # no idle-timeout
        cluster.adapt(minimum=0, maximum=9, interval="100ms")
        wait_for(lambda: handle.status().get("completed") == 1, "all but one to be trained")
        wait_for(lambda: len(scheduler.workers) == 1, "the worker that is not needed to go")
        assert handle.status() == {"running": 1, "completed": 1}
        (tmp_path / "go on").touch()
        frame = handle.wait().trials()
        wait_for(lambda: not scheduler.workers and not scheduler.tasks, "all workers to go")
    assert frame.reason.tolist() == ["fully trained"] * 2
