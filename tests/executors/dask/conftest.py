"""Real Dask clusters for tests: worker processes, and a scheduler in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, LocalCluster

from daskhpo import Study
from daskhpo.schedulers import FIFO
from daskhpo.space import Real
from tests.executors.dask.lease_tools import Lease


def _wait_for(condition: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
    """Wait until a condition is true and return its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for {what}"
        time.sleep(0.01)
    return value


@pytest.fixture
def wait_for() -> Callable[..., Any]:
    """``wait_for(condition, what, seconds=60)``: tests wait for conditions, never for times."""
    return _wait_for


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Two worker processes that the tests of a module share."""
    with LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster


@pytest.fixture
def own_cluster() -> Iterator[LocalCluster]:
    """Two worker processes for one test, which may kill them."""
    with LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[Client]:
    with Client(cluster, set_as_default=False) as client:
        yield client


@pytest.fixture
def foreign_scheduler(tmp_path: Path) -> Iterator[str]:
    """Address of a ``dask scheduler`` with two workers, all in processes of their own."""
    file = tmp_path / "scheduler.json"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    options = ["--scheduler-file", str(file), "--host", "127.0.0.1", "--port", "0"]
    processes = [
        subprocess.Popen([*command, *options, "--no-dashboard"], env=environment, cwd=tmp_path)
    ]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--nthreads", "1"]
    options = ["--scheduler-file", str(file), "--no-dashboard"]
    processes += [
        subprocess.Popen([*worker, *options], env=environment, cwd=tmp_path) for _ in range(2)
    ]
    try:
        _wait_for(file.exists, "the scheduler")
        with Client(scheduler_file=str(file), set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
            address = client.scheduler.address
        yield address
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.wait(30)


@pytest.fixture
def make_study(tmp_path: Path) -> Callable[..., Study]:
    """Makes a study of one real hyperparameter ``x`` in a temporary directory."""

    def make(trainable: Any, scheduler: Any = None, name: str = "study", **options: Any) -> Study:
        options = {"space": {"x": Real(0, 1)}, "metric": "loss", "storage": tmp_path} | options
        return Study(trainable, scheduler=scheduler or FIFO(3), name=name, **options)

    return make


@pytest.fixture
def lease() -> Iterator[Callable[..., Lease]]:
    """``lease(trainable, *commands, **options)``: a lease on a scripted channel."""
    made: list[Lease] = []

    def make(trainable: Any, *commands: Any, **options: Any) -> Lease:
        made.append(Lease(trainable, *commands, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()
