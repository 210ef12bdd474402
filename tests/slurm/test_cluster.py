"""Studies whose workers are jobs of a real Slurm."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from daskhpo import Study
from daskhpo.cluster import autoscaler, slurm_cluster
from daskhpo.cluster.shell import CommandFailed
from daskhpo.core.events import AttemptLost, Failed, Reported
from daskhpo.engine.session import study_records
from daskhpo.schedulers import FIFO
from daskhpo.space import Real
from tests.slurm.slurm import Slurm, until

pytestmark = pytest.mark.slurm

cloudpickle.register_pickle_by_value(sys.modules[__name__])

JOB = {"cores": 1, "memory": "900MB", "walltime": "10m"}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoscaler, "WORKER_CHECK_SECONDS", 0.5)
    monkeypatch.setattr(autoscaler, "SQUEUE_SECONDS", 1.0)


@pytest.fixture
def cluster_of(slurm: Slurm, tmp_path: Path) -> Any:
    """Makes clusters; what they write goes to the test's folder."""

    def make(jobs: int, **words: Any) -> Any:
        places = {"log_directory": str(tmp_path / "logs"), "shared_temp_directory": str(tmp_path)}
        return slurm_cluster(jobs, **places | JOB | words)

    return make


@pytest.fixture
def make_study(tmp_path: Path) -> Any:
    def make(trainable: Any, scheduler: Any) -> Study:
        return Study(
            trainable, {"x": Real(0, 1)}, "loss", scheduler=scheduler, storage=tmp_path, name="s"
        )

    return make


def whereabouts(config: Any, trial: Any, go_on: Path | None = None) -> None:
    """Says where it runs; units of 0.1 s, from its state if there is one.

    ``go_on``: before there is such a file, nobody comes to the end.
    """
    assert trial.device == "cuda:0"
    start = trial.checkpoint["n"] if trial.checkpoint else 0
    place = {
        "node": int(os.environ["SLURMD_NODENAME"][1:]),
        "device": int(os.environ["CUDA_VISIBLE_DEVICES"]),
        "pid": os.getpid(),
        "job": int(os.environ["SLURM_JOB_ID"]),
    }
    for n in range(start + 1, trial.max_t + 1):
        time.sleep(0.1)
        while go_on is not None and n == trial.max_t and not go_on.exists():
            time.sleep(0.05)
        trial.report({"loss": 1 / n, **place}, state=lambda n=n: {"n": n})


def records(study: Study, kind: type) -> list[Any]:
    return [record for record in study_records(study.path) if isinstance(record, kind)]


def completed(study: Study, cluster: Any, num_trials: int, gpu: float = 1) -> Any:
    """The trials of a study, all of which must have been completed."""
    result = study.run(num_trials, client=cluster, resources={"gpu": gpu}, progress=False)
    frame = result.trials()
    assert (frame.status == "completed").all()
    return frame


def test_four_jobs_of_one_gpu_train_on_four_devices(cluster_of: Any, make_study: Any) -> None:
    study = make_study(whereabouts, FIFO(20))
    with cluster_of(4) as cluster:
        assert cluster.scheduler_address.startswith("tls://127.0.0.1")
        frame = completed(study, cluster, 8)
    assert len(set(zip(frame.node, frame.device, strict=True))) == 4
    assert frame.groupby("pid")[["node", "device"]].nunique().max().max() == 1


def test_workers_of_a_whole_node_are_pinned_apart(cluster_of: Any, make_study: Any) -> None:
    study = make_study(whereabouts, FIFO(10))
    with cluster_of(1, gpus_per_job=2, cores=2, memory="1800MB") as cluster:
        frame = completed(study, cluster, 6)
    assert frame.job.nunique() == 1
    assert set(frame.device) == {0, 1}
    assert frame.pid.nunique() == 2
    assert frame.groupby("pid").device.nunique().max() == 1


def test_two_trials_share_a_gpu_in_two_processes(cluster_of: Any, make_study: Any) -> None:
    study = make_study(whereabouts, FIFO(10))
    with cluster_of(1, trials_per_gpu=2, cores=2, memory="1800MB") as cluster:
        frame = completed(study, cluster, 6, gpu=0.5)
    assert frame.pid.nunique() == 2
    assert frame.device.nunique() == 1


# -- jobs that end -------------------------------------------------------------------------------


def check_no_epoch_was_lost(study: Study) -> None:
    assert records(study, Failed) == []
    told = [(r.trial, step.resource) for r in records(study, Reported) for step in r.steps]
    assert len(told) == len(set(told)), "something was trained again"
    assert (study.result().trials().status == "completed").all()


def jobs_of(study: Study) -> set[int]:
    return {int(step.metrics["job"]) for r in records(study, Reported) for step in r.steps}


def leaves_soon(config: Any, trial: Any) -> None:
    assert 0 < trial.remaining_walltime() <= 60  # as Slurm told the worker
    whereabouts(config, trial)


def test_a_study_outlives_the_walltime_of_its_jobs(
    slurm: Slurm, cluster_of: Any, make_study: Any
) -> None:
    study = make_study(leaves_soon, FIFO(450))  # 45 s, in jobs of a minute
    with cluster_of(2, walltime="1m") as cluster:
        study.run(num_trials=2, client=cluster, resources={"gpu": 1}, progress=False)
    check_no_epoch_was_lost(study)
    assert records(study, AttemptLost) == []
    assert len(jobs_of(study)) >= 3
    assert "TIMEOUT" not in slurm.command("scontrol", "show", "job")  # they left by themselves


def test_a_cancelled_job_hands_its_trial_over_and_another_job_comes(
    slurm: Slurm,
    cluster_of: Any,
    make_study: Any,
    tmp_path: Path,
    warnings: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        autoscaler, "WORKER_CHECK_SECONDS", 2.0
    )  # the job has come and gone in between

    def train(config: Any, trial: Any) -> None:
        whereabouts(config, trial, go_on=tmp_path / "another came")

    study = make_study(train, FIFO(80))
    with cluster_of(2) as cluster:
        handle = study.start(num_trials=4, client=cluster, resources={"gpu": 1}, progress=False)
        until(lambda: len(jobs_of(study)) == 2, "reports from two jobs")
        slurm.command("scancel", str(min(jobs_of(study))))
        until(lambda: len(jobs_of(study)) == 3, "a report from another job")
        (tmp_path / "another came").touch()
        handle.wait()
    assert not [one for one in warnings if "before its workers connected" in one]
    check_no_epoch_was_lost(study)
    assert records(study, AttemptLost) == []
    assert len(jobs_of(study)) == 3


def test_a_killed_worker_comes_back_in_its_job_and_no_trial_fails(
    cluster_of: Any, make_study: Any, tmp_path: Path
) -> None:
    def train(config: Any, trial: Any) -> None:
        whereabouts(config, trial, go_on=tmp_path / "it came back")

    study = make_study(train, FIFO(60))
    with cluster_of(2) as cluster:
        handle = study.start(
            num_trials=4, client=cluster, resources={"gpu": 1}, checkpoint="every:5", progress=False
        )
        until(lambda: len(pids_of(study)) == 2, "reports of two workers")
        os.kill(min(pids_of(study)), signal.SIGKILL)
        until(lambda: len(pids_of(study)) == 3, "a report from the new process")
        (tmp_path / "it came back").touch()
        handle.wait()
    assert (study.result().trials().status == "completed").all()
    assert sum(one.blame for one in records(study, AttemptLost)) == 1
    assert records(study, Failed) == []
    assert len(pids_of(study)) == 3
    assert len(jobs_of(study)) == 2
    assert study.result().cost()["retrained_units"] <= 6


def pids_of(study: Study) -> set[int]:
    return {int(step.metrics["pid"]) for r in records(study, Reported) for step in r.steps}


def test_jobs_go_elsewhere_while_a_node_is_drained(
    slurm: Slurm, cluster_of: Any, make_study: Any
) -> None:
    study = make_study(whereabouts, FIFO(70))
    with cluster_of(2) as cluster:
        handle = study.start(num_trials=4, client=cluster, resources={"gpu": 1}, progress=False)
        until(lambda: len(jobs_of(study)) == 2, "reports from two jobs")
        first = study.result().trials().iloc[0]
        node = f"n{int(first.node)}"
        slurm.command("scontrol", "update", f"node={node}", "state=drain", "reason=test")
        try:
            before = jobs_of(study)
            slurm.command("scancel", *map(str, before))  # the administrators clear it out
            handle.wait()
        finally:
            slurm.command("scontrol", "update", f"node={node}", "state=resume")
    check_no_epoch_was_lost(study)
    later = study.result().history()
    later = later[~later.job.isin(before)]
    assert len(later)
    assert int(first.node) not in set(later.node)


# -- how many jobs -------------------------------------------------------------------------------


def test_gpu_hours_are_never_exceeded_and_end_the_study(
    slurm: Slurm, cluster_of: Any, make_study: Any
) -> None:
    study = make_study(whereabouts, FIFO(100_000))
    with cluster_of(3, walltime="1m", max_gpu_hours=2 / 60) as cluster:  # two jobs of a minute
        assert len(slurm.jobs()) == 2
        result = study.run(num_trials=3, client=cluster, resources={"gpu": 1}, progress=False)
        assert cluster.autoscaler.gpu_hours <= 2 / 60
    assert result.stop_reason == "the GPU-hours are spent"
    assert len(jobs_of(study)) == 2
    assert records(study, Failed) == records(study, AttemptLost) == []


def test_jobs_that_the_study_has_no_use_for_are_given_back(
    slurm: Slurm, cluster_of: Any, make_study: Any
) -> None:
    study = make_study(whereabouts, FIFO(1000))
    with cluster_of(3, idle_timeout=2) as cluster:
        handle = study.start(num_trials=1, client=cluster, resources={"gpu": 1}, progress=False)
        until(lambda: len(jobs_of(study)) == 1, "a report")
        until(lambda: len(slurm.jobs()) == 1, "two jobs are given back")
        assert set(slurm.jobs()) == {str(min(jobs_of(study)))}
        handle.stop()
        handle.wait()
        until(lambda: not slurm.jobs(), "the last one is given back, too")
        assert records(study, AttemptLost) == []


def test_a_job_that_is_refused_is_an_error_at_once(
    slurm: Slurm, cluster_of: Any, tmp_path: Path
) -> None:
    with pytest.raises(CommandFailed, match="invalid partition specified: nosuch"):
        cluster_of(4, queue="nosuch")
    assert slurm.jobs() == {}
    assert not list(tmp_path.glob("tls-*"))  # nor is a key left


def test_jobs_that_end_before_their_workers_come_are_not_submitted_on_and_on(
    slurm: Slurm, cluster_of: Any, warnings: list[str]
) -> None:
    with cluster_of(1, job_script_prologue=["echo the module is missing", "exit 3"]):
        until(lambda: warnings, "a warning")
        assert "ended (FAILED) before its workers connected" in warnings[0]
        assert "the module is missing" in warnings[0]
        assert "retrying in 30 s" in warnings[0]
        assert slurm.jobs() == {}


def test_closing_a_cluster_cancels_its_jobs(slurm: Slurm, cluster_of: Any) -> None:
    with cluster_of(2):
        assert len(slurm.jobs()) == 2
    until(lambda: not slurm.jobs(), "no job is left")


# -- who may connect -----------------------------------------------------------------------------


def test_a_client_without_the_certificate_is_refused(cluster_of: Any, tmp_path: Path) -> None:
    from distributed import Client, Security

    with cluster_of(1) as cluster:
        address = cluster.scheduler_address
        (folder,) = tmp_path.glob("tls-*")
        for path in (folder, *folder.iterdir()):
            assert path.stat().st_mode & 0o077 == 0, path
        script = cluster.job_script()
        assert str(folder / "key.pem") in script
        assert "PRIVATE KEY" not in script
        strangers = [Security.temporary(), None]
        for security in strangers:
            where = address if security else address.replace("tls://", "tcp://")
            with pytest.raises((OSError, TimeoutError)):
                Client(where, security=security, timeout=3, set_as_default=False)
        with Client(cluster, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=60)
        logs = "".join(p.read_text() for p in (tmp_path / "logs").iterdir())
        assert "PRIVATE KEY" not in logs
    assert (tmp_path / "logs").stat().st_mode & 0o777 == 0o700


# -- the job script ------------------------------------------------------------------------------


def test_the_job_script_says_all_that_a_job_is(cluster_of: Any, tmp_path: Path) -> None:
    with cluster_of(
        1,
        queue="debug",
        gpus_per_job=2,
        trials_per_gpu=2,
        cores=4,
        memory="4GB",
        walltime="90s",
        job_extra_directives=["#SBATCH --comment=tuning", "--exclusive"],
        job_script_prologue=["module load cuda"],
        local_directory="$TMPDIR",
    ) as cluster:
        lines = cluster.job_script().splitlines()
    directives = [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH")]
    assert set(directives) == {
        "-J daskhpo-workers",
        "-p debug",
        "-n 1",
        "--cpus-per-task=4",
        "--mem=4G",
        "-t 0-00:02:00",
        f"--output={tmp_path}/logs/daskhpo-workers-%j.log",
        "--gres=gpu:2",
        "--no-requeue",
        "--comment=tuning",
        "--exclusive",
    }
    assert lines.index("module load cuda") == len(lines) - 2
    words = lines[-1].split()
    assert words[:4] == ["exec", sys.executable, "-m", "daskhpo.executors.dask.slurm_worker"]
    options = dict(zip(words[5::2], words[6::2], strict=True))
    assert options | {"--tls-ca-file": "", "--tls-cert": "", "--tls-key": ""} == {
        "--name": "dummy-name",
        "--nthreads": "1",
        "--memory-limit": "0.93GiB",
        "--death-timeout": "300",
        "--local-directory": "$TMPDIR",
        "--gpus": "2",
        "--trials-per-gpu": "2",
        "--processes": "4",
        "--walltime": "120",
        "--protocol": "tls://",
        "--tls-ca-file": "",
        "--tls-cert": "",
        "--tls-key": "",
    }


# -- containers ----------------------------------------------------------------------------------

STAND_IN = f"""#!/bin/sh
# apptainer exec [options] IMAGE COMMAND...: another PATH and home, as in a container
while [ "${{1##*.}}" != sif ]; do case "$1" in exec|--nv|--bind=*) shift;; *) exit 9;; esac; done
image=$1; shift
export APPTAINER_CONTAINER=$image HOME=/nonexistent
export PATH={Path(sys.executable).parent}:/usr/bin:/bin
exec "$@"
"""


def where(config: Any, trial: Any) -> None:
    inside = os.environ.get("APPTAINER_CONTAINER", "")
    trial.report({"loss": 1.0, "is_inside": float(inside.endswith("my image.sif"))})


def test_workers_run_in_a_container(
    cluster_of: Any, make_study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in: no container runtime is here."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "apptainer").write_text(STAND_IN)
    (tmp_path / "bin" / "apptainer").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    image = tmp_path / "my image.sif"
    image.touch()
    with cluster_of(1, container=str(image)) as cluster:
        frame = completed(make_study(where, FIFO(1)), cluster, 2)
    assert frame.is_inside.tolist() == [1.0, 1.0]
