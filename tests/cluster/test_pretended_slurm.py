"""Clusters on a pretended Slurm whose commands misbehave."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daskhpo.cluster import autoscaler, jobs, registry, slurm_cluster
from daskhpo.cluster.commands import CONFIGURATION
from daskhpo.cluster.shell import CommandFailed
from tests.cluster.pretended import PretendedSlurm

pytestmark = pytest.mark.cluster


@pytest.fixture
def slurm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., PretendedSlurm]]:
    """Makes a pretended Slurm that is found on the PATH; its jobs start no process."""
    made = []

    def make(**faults: float) -> PretendedSlurm:
        slurm = PretendedSlurm(tmp_path / "slurm", **faults)
        monkeypatch.setenv("PATH", slurm.path)
        made.append(slurm)
        return slurm

    monkeypatch.setattr(autoscaler, "WORKER_CHECK_SECONDS", 0.2)
    monkeypatch.setattr(autoscaler, "SQUEUE_SECONDS", 0.2)
    monkeypatch.setattr(autoscaler, "SUBMIT_RETRY_SECONDS", 0.2)
    monkeypatch.setattr(registry, "RETRY_SECONDS", (0.1, 0.1, 0.1))
    monkeypatch.setattr(jobs, "SEARCH_SECONDS", 2.0)
    monkeypatch.setattr(jobs, "SEARCH_POLL_SECONDS", 0.1)
    yield make
    for slurm in made:
        slurm.close()


@pytest.fixture
def cluster_of(tmp_path: Path) -> Any:
    def make(n: int, **words: Any) -> Any:
        usual = {"cores": 1, "memory": "500MB", "gpus_per_job": 0, "walltime": "10m"}
        places = {
            "log_directory": str(tmp_path / "logs"),
            "shared_temp_directory": str(tmp_path / "tls"),
        }
        return slurm_cluster(n, **places | usual | words)

    return make


def looks(cluster: Any, slurm: PretendedSlurm, n: int) -> None:
    """Wait until the autoscaler has asked the queue ``n`` times more."""
    calls = []
    look = autoscaler._look

    def counted(known: Any) -> Any:
        calls.append(1)
        return look(known)

    autoscaler._look = counted
    try:
        slurm.wait_for(lambda: len(calls) > n)
    finally:
        autoscaler._look = look


@pytest.mark.parametrize(
    "faults",
    [
        {"banners": 1.0},
        {"squeue_hides": 0.6},
        {"squeue_cached": 1.0, "scontrol_silent": 1.0},
        {"squeue_fails": 0.7, "scontrol_fails": 0.7},
        {"squeue_hides": 1.0},
    ],
    ids=lambda faults: "+".join(faults),
)
def test_jobs_that_are_there_are_not_replaced(
    slurm: Any, cluster_of: Any, faults: dict[str, float]
) -> None:
    there = slurm(**faults)
    there.add_foreign(3)
    there.add_foreign(12)
    with cluster_of(2) as cluster:
        there.wait_for(lambda: there.most_running == 2)
        looks(cluster, there, 4)
        assert len(there.jobs) == 2
    there.wait_for(lambda: there.alive == [])
    assert set(there.cancelled) == {4711, 4712}


def test_a_job_that_ended_is_replaced(slurm: Any, cluster_of: Any) -> None:
    there = slurm(banners=0.5)
    with cluster_of(1) as cluster:
        there.wait_for(lambda: there.most_running == 1)
        looks(cluster, there, 1)
        there.end(4711)
        there.wait_for(lambda: there.alive == [4712])
    there.wait_for(lambda: there.alive == [])


def test_a_job_that_no_source_shows_any_more_is_cancelled_before_it_is_replaced(
    slurm: Any, cluster_of: Any
) -> None:
    there = slurm()
    with cluster_of(1) as cluster:
        there.wait_for(lambda: there.most_running == 1)
        looks(cluster, there, 1)
        there.misbehave(squeue_hides=1.0, scontrol_silent=1.0)
        there.wait_for(lambda: 4712 in there.alive)
        assert 4711 in there.cancelled
        assert there.alive == [4712]
    assert there.most_running == 1


def test_a_job_whose_submission_seemed_to_fail_is_found(slurm: Any, cluster_of: Any) -> None:
    there = slurm(sbatch_times_out=1.0)
    with cluster_of(1) as cluster:
        assert [job.id for job in cluster.autoscaler._jobs.values()] == ["4711"]
        assert len(there.jobs) == 1
    there.wait_for(lambda: there.alive == [])


def test_a_job_that_nobody_can_see_is_said(
    slurm: Any, cluster_of: Any, warnings: list[str]
) -> None:
    there = slurm(sbatch_times_out=1.0, squeue_hides=1.0, scontrol_silent=1.0)
    with pytest.raises(CommandFailed, match="Socket timed out"):
        cluster_of(1)
    assert any("check squeue --me" in line for line in warnings), warnings
    assert len(there.alive) == 1


def test_a_job_that_appears_before_the_end_is_cancelled(
    slurm: Any, cluster_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "SEARCH_SECONDS", 0.0)
    there = slurm()
    with cluster_of(2):
        there.wait_for(lambda: there.most_running == 2)
        there.misbehave(sbatch_times_out=1.0, squeue_hides=1.0)
        there.end(4711)
        there.wait_for(lambda: 4713 in there.alive)
        there.misbehave()
        there.wait_for(lambda: 4713 in there.cancelled)
    there.wait_for(lambda: there.alive == [])


def test_what_scancel_refuses_at_first_is_cancelled_later(slurm: Any, cluster_of: Any) -> None:
    there = slurm(scancel_fails=0.6)
    with cluster_of(3):
        there.wait_for(lambda: there.most_running == 3)
    there.wait_for(lambda: there.alive == [])


def test_what_cannot_be_cancelled_is_said(slurm: Any, cluster_of: Any, warnings: list[str]) -> None:
    there = slurm(scancel_fails=1.0)
    with cluster_of(1):
        pass
    assert any("scancel 4711" in line for line in warnings), warnings
    assert there.alive == [4711]


def test_a_requeued_job_is_not_another(slurm: Any, cluster_of: Any) -> None:
    there = slurm(preempted=3.0)
    with cluster_of(1, job_extra_directives=["--requeue"]) as cluster:
        there.wait_for(lambda: there.jobs[0]["state"] == "COMPLETING")
        looks(cluster, there, 6)
        assert len(there.jobs) == 1
    there.wait_for(lambda: there.alive == [])


def test_variables_of_others_do_not_hide_jobs(
    slurm: Any, cluster_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "SQUEUE_PARTITION": "debug",
        "SBATCH_TIMELIMIT": "1",
        "SLURM_JOB_ID": "77",
        "SLURM_GPUS_PER_NODE": "2",
        "LOGNAME": "somebody",
    }.items():
        monkeypatch.setenv(name, value)
    there = slurm()
    with cluster_of(1) as cluster:
        looks(cluster, there, 4)
        (job,) = there.jobs
    others = ("SQUEUE_", "SBATCH_", "SLURM_")
    left = {name for name in job["environ"] if name.startswith(others)}
    assert left <= CONFIGURATION  # of a Slurm that other tests have started
