"""Workers whose time is over: their trials hand over, and nothing that was reported is lost."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from distributed import Client, LocalCluster, Nanny, Security, SpecCluster

from daskhpo import Study
from daskhpo.core.events import AttemptLost, Failed, Launched, Reported, Saved
from daskhpo.engine.session import study_records
from daskhpo.executors.dask.shutdown import RESERVE_SECONDS
from daskhpo.schedulers import FIFO

pytestmark = pytest.mark.cluster

cloudpickle.register_pickle_by_value(sys.modules[__name__])


def count(config: Any, trial: Any) -> None:
    """Units of 50 ms; goes on from its state."""
    start = trial.checkpoint["n"] if trial.checkpoint else 0
    assert start == trial.resource
    for n in range(start + 1, trial.max_t + 1):
        time.sleep(0.05)
        trial.report({"loss": 1 / n, "pid": os.getpid()}, state=lambda n=n: {"n": n})


def records(study: Study, kind: type) -> list[Any]:
    return [record for record in study_records(study.path) if isinstance(record, kind)]


def check_nothing_was_lost(study: Study) -> None:
    """Each unit was told once, no machine was blamed, and somebody handed over."""
    assert records(study, AttemptLost) == records(study, Failed) == []
    told = [(r.trial, step.resource) for r in records(study, Reported) for step in r.steps]
    assert len(told) == len(set(told))
    assert any(r.preempted for r in records(study, Reported))
    assert (study.result().trials().status == "completed").all()


def names(client: Client) -> set[str]:
    return {worker["name"] for worker in client.scheduler_info(-1)["workers"].values()}


def pids_of(study: Study) -> set[int]:
    return {int(step.metrics["pid"]) for r in records(study, Reported) for step in r.steps}


@pytest.fixture
def tls_cluster() -> Iterator[LocalCluster]:
    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        dashboard_address="127.0.0.1:0",
        security=Security.temporary(),
        protocol="tls",
    ) as cluster:
        yield cluster


@pytest.mark.parametrize("fixture", ["own_cluster", "tls_cluster"])
def test_on_sigterm_a_trial_hands_over_and_goes_on_elsewhere(
    fixture: str, request: pytest.FixtureRequest, make_study: Any, wait_for: Any
) -> None:
    cluster = request.getfixturevalue(fixture)
    study = make_study(count, FIFO(60))
    with Client(cluster, set_as_default=False) as client:
        handle = study.start(num_trials=4, client=client, progress=False)
        wait_for(lambda: len(pids_of(study)) == 2, "reports of both workers")
        victim = min(pids_of(study))
        os.kill(victim, signal.SIGTERM)
        wait_for(lambda: len(client.scheduler_info(-1)["workers"]) == 1, "the worker to retire")
        handle.wait()
    check_nothing_was_lost(study)
    (preempted,) = [r for r in records(study, Reported) if r.preempted]
    saved = [r.ref.resource for r in records(study, Saved) if r.trial == preempted.trial]
    again = [r for r in records(study, Launched) if r.trial == preempted.trial][1]
    assert again.resource in saved
    assert 0 < again.resource < 60


def hurried(config: Any, trial: Any) -> None:
    """The first worker learns that its job ends in two seconds and what must be kept free."""
    with suppress(FileExistsError), open(Path(config["place"]) / "first", "x") as first:
        first.write(str(os.getpid()))
        os.environ["SLURM_JOB_END_TIME"] = str(time.time() + RESERVE_SECONDS + 2)
        assert trial.remaining_walltime() > RESERVE_SECONDS
    count(config, trial)


def test_before_its_job_ends_a_trial_hands_over_and_its_worker_retires(
    own_cluster: LocalCluster, make_study: Any, wait_for: Any, tmp_path: Path
) -> None:
    study = make_study(hurried, FIFO(80), space={"x": 1, "place": str(tmp_path)})
    with Client(own_cluster, set_as_default=False) as client:
        handle = study.start(num_trials=3, client=client, progress=False)
        wait_for(lambda: len(client.scheduler_info(-1)["workers"]) == 1, "the worker to retire")
        handle.wait()
    check_nothing_was_lost(study)
    assert int((tmp_path / "first").read_text()) in pids_of(study)


def test_an_idle_worker_leaves_in_time_too(make_study: Any, wait_for: Any) -> None:
    end = time.time() + RESERVE_SECONDS + 15
    workers = {
        name: {"cls": Nanny, "options": {"nthreads": 1, "env": env}}
        for name, env in {"stays": {}, "goes": {"SLURM_JOB_END_TIME": str(end)}}.items()
    }
    with LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as cluster:
        assert isinstance(cluster, SpecCluster)
        cluster.worker_spec.update(workers)
        cluster.sync(cluster._correct_state)
        study = make_study(count, FIFO(1000))  # one trial, so one slot waits
        with Client(cluster, set_as_default=False) as client:
            handle = study.start(num_trials=1, client=client, progress=False)
            wait_for(lambda: names(client) == {"stays"}, "the other worker to go")
            assert time.time() < end
            handle.stop()
            handle.wait()
    assert records(study, AttemptLost) == records(study, Failed) == []


def test_code_that_raises_as_its_worker_is_terminated_has_not_failed(
    own_cluster: LocalCluster, make_study: Any, wait_for: Any, tmp_path: Path
) -> None:
    def train(config: Any, trial: Any) -> None:
        waits = tmp_path / "waits"
        for n in range(trial.resource + 1, trial.max_t + 1):
            if n == 3 and not waits.exists():
                waits.write_text(str(os.getpid()))
                while not trial.should_stop():
                    time.sleep(0.01)
                raise RuntimeError("DataLoader worker was killed by signal: Terminated")
            trial.report({"loss": 1 / n}, state=lambda n=n: {"n": n})

    study = make_study(train, FIFO(4))
    handle = study.start(num_trials=1, client=own_cluster, checkpoint="every:1", progress=False)
    wait_for(lambda: (tmp_path / "waits").exists() and (tmp_path / "waits").read_text(), "unit 3")
    os.kill(int((tmp_path / "waits").read_text()), signal.SIGTERM)
    frame = handle.wait().trials()
    assert (frame.status == "completed").all()
    assert records(study, Failed) == []
    (lost,) = records(study, AttemptLost)
    assert not lost.blame
    assert "DataLoader" in lost.reason
    assert [r.resource for r in records(study, Launched)] == [0, 2]
