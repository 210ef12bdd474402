"""Workers that fall silent without a word: how soon that is noticed, and what follows."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed import Client, LocalCluster

from daskhpo import Study
from daskhpo.core.errors import StudyFailed
from daskhpo.core.events import AttemptLost, Launched, Reported
from daskhpo.engine.session import study_records
from daskhpo.schedulers import FIFO
from daskhpo.space import Real

HERE, THERE = "10.213.77.1", "10.213.77.2"
NOWHERE = "02:00:00:00:00:01"  # an address of hardware that is not there
WORKER = (sys.executable, "-m", "distributed.cli.dask_worker")
SPACE_NAME, NEAR, FAR = "daskhpo-test", "daskhpo-near", "daskhpo-far"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@pytest.fixture
def network() -> Iterator[Callable[[], None]]:
    """A network with one other host; calling it makes that host fall silent."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and `ip`, for a network of its own")
    subprocess.run(["ip", "netns", "del", SPACE_NAME], capture_output=True)
    try:
        ip("netns", "add", SPACE_NAME)
        ip("link", "add", NEAR, "type", "veth", "peer", "name", FAR, "netns", SPACE_NAME)
        ip("addr", "add", f"{HERE}/24", "dev", NEAR)
        ip("link", "set", NEAR, "up")
        for words in (
            ("addr", "add", f"{THERE}/24", "dev", FAR),
            ("link", "set", FAR, "up"),
            ("link", "set", "lo", "up"),
        ):
            ip("-n", SPACE_NAME, *words)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespace can be made here: {error.stderr}")

    def silence() -> None:
        """Send all packets between both hosts to nowhere; no end is told."""
        ip("neigh", "replace", THERE, "lladdr", NOWHERE, "dev", NEAR, "nud", "permanent")
        to_here = ("neigh", "replace", HERE, "lladdr", NOWHERE, "dev", FAR, "nud", "permanent")
        ip("-n", SPACE_NAME, *to_here)

    yield silence
    ip("netns", "del", SPACE_NAME)  # the link goes with it


def until(condition: Callable[[], Any]) -> Any:
    """Wait for a condition, and return what it found."""
    for _ in range(2400):
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen")


def train(config: Any, trial: Any) -> None:
    for _ in range(trial.resource, trial.max_t):
        time.sleep(0.1)
        trial.report({"loss": config["x"]}, state=lambda: 1)


def records(study: Study, kind: type) -> list[Any]:
    try:
        return [record for record in study_records(study.path) if isinstance(record, kind)]
    except FileNotFoundError:
        return []


def test_a_host_that_falls_silent_loses_its_trial_to_another(
    network: Callable[[], None], tmp_path: Path
) -> None:
    with LocalCluster(
        n_workers=0, threads_per_worker=1, host=HERE, dashboard_address=None, processes=True
    ) as cluster:
        command = [
            *("ip", "netns", "exec", SPACE_NAME, *WORKER, cluster.scheduler_address),
            *("--nthreads", "1", "--no-dashboard", "--host", THERE),
        ]
        with (tmp_path / "worker.log").open("wb") as log:
            worker = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path)
        try:
            with Client(cluster, set_as_default=False) as client:
                client.wait_for_workers(1, timeout=60)
                space = {"x": Real(0, 1)}
                study = Study(train, space, "loss", scheduler=FIFO(50), storage=tmp_path, name="s")
                handle = study.start(num_trials=1, client=client, progress=False)
                until(lambda: records(study, Launched))
                cluster.scale(1)
                client.wait_for_workers(2, timeout=60)
                network()
                silent_at = time.monotonic()
                lost = until(lambda: records(study, AttemptLost))
                print(f"noticed after {time.monotonic() - silent_at:.0f} s: {lost[0].reason}")
                result = handle.wait()
                assert result.trials()["resource"].tolist() == [50]
                assert result.trial(0).attempt == 2
        finally:
            worker.kill()
            worker.wait()


class Processes:
    """A scheduler and two workers with nannies, each a process of its own."""

    def __init__(self, folder: Path) -> None:
        file = folder / "scheduler.json"
        where = ["--scheduler-file", str(file), "--no-dashboard"]
        module = "distributed.cli.dask_scheduler"
        address = ["--host", "127.0.0.1", "--port", "0"]
        self.scheduler = subprocess.Popen([sys.executable, "-m", module, *where, *address])
        until(file.exists)
        self.nannies = [subprocess.Popen([*WORKER, *where, "--nthreads", "1"]) for _ in range(2)]
        self.client = Client(scheduler_file=str(file), set_as_default=False)
        self.client.wait_for_workers(2, timeout=60)

    def close(self) -> None:
        for process in (*self.nannies, self.scheduler):
            process.kill()
            process.wait()
        self.client.close(timeout=5)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    made = Processes(tmp_path)
    yield made
    made.close()


def test_a_nanny_that_dies_takes_its_worker_along_and_the_study_continues(
    processes: Processes, tmp_path: Path
) -> None:
    space = {"x": Real(0, 1)}
    study = Study(train, space, "loss", scheduler=FIFO(30), storage=tmp_path, name="s")
    handle = study.start(num_trials=4, client=processes.client, progress=False)
    until(lambda: len(records(study, Launched)) == 2)
    workers = psutil.Process(processes.nannies[0].pid).children(recursive=True)
    processes.nannies[0].kill()
    until(lambda: not any(worker.is_running() for worker in workers))
    assert handle.wait().trials()["resource"].tolist() == [30] * 4


def test_a_scheduler_that_dies_ends_the_study_with_the_way_to_resume(
    processes: Processes, tmp_path: Path
) -> None:
    space = {"x": Real(0, 1)}
    study = Study(train, space, "loss", scheduler=FIFO(30), storage=tmp_path, name="s")
    handle = study.start(num_trials=2, client=processes.client, progress=False)
    until(lambda: records(study, Reported))
    processes.scheduler.kill()
    with pytest.raises(StudyFailed, match="resume"):
        handle.wait()
    n_reported = len(study.result().history())
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        result = study.resume(client=cluster, progress=False)
    assert result.trials()["resource"].tolist() == [30] * 2
    assert len(result.history()) == 60 >= n_reported > 0
