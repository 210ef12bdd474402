"""Studies in Slurm jobs of their own: they need nobody who is logged in."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from daskhpo import load_study
from daskhpo.cluster.jobs import is_over, jobs_named, jobs_of
from daskhpo.core.errors import StudyLocked, StudyNotRunning
from daskhpo.core.events import AttemptLost, Reported, SessionStarted, StopRequested
from daskhpo.engine.lock import SILENT_SECONDS, StudyLock, holder_of
from daskhpo.engine.session import study_records
from daskhpo.remote.attach import AttachedStudy, run_status
from daskhpo.remote.script import worker_job_name
from daskhpo.remote.submission import JobDirectory
from tests.slurm.slurm import until

pytestmark = pytest.mark.slurm

FILE = """
import os, time
from daskhpo import Study
from daskhpo.schedulers import FIFO
from daskhpo.space import Real

def train(config, trial):
    n = trial.checkpoint or 0
    for _ in range(trial.resource, trial.max_t):
        n += 1
        time.sleep({seconds})
        while n > 5 and not os.path.exists({go!r}):
            time.sleep(0.05)
        trial.report(
            {{"loss": config["x"] + 1 / n, "n": n, "gpu": int(os.environ["CUDA_VISIBLE_DEVICES"])}},
            state=lambda n=n: n,
        )

study = Study(train, {{"x": Real(0, 1)}}, "loss", scheduler=FIFO(10), storage="runs", name="first")
"""
TWO_JOBS = ["--memory", "500MB", "--workers", "jobs=2", "cores=1", "memory=500MB", "walltime=5m"]
TWO_GPUS = ["--one-allocation", "--workers", "gpus_per_job=2", "memory=1GB"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, 0.05)
    return tmp_path


def write(folder: Path, seconds: float, go: str = "/") -> None:
    """The study's file; its trials wait in their sixth unit until there is a file ``go``."""
    (folder / "tune.py").write_text(FILE.format(seconds=seconds, go=go))


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}


def daskhpo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, which is over when this returns."""
    return subprocess.run(
        [sys.executable, "-m", "daskhpo.cli", *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def submit(folder: Path, *arguments: str) -> str:
    """Submit the study; the number of its job."""
    done = daskhpo(folder, "submit", "tune.py:study", *arguments)
    assert done.returncode == 0, done.stderr
    number = JobDirectory(folder / "runs/first").number()
    assert number is not None
    assert f"job {number} will run {folder / 'runs/first'}" in done.stdout
    return number


def records(folder: Path, kind: type) -> list:
    return [r for r in study_records(folder / "runs/first") if isinstance(r, kind)]


def reported(folder: Path) -> set[tuple[int, int, float]]:
    """All that was reported: trial, resource, loss."""
    return {
        (record.trial, step.resource, step.metrics["loss"])
        for record in records(folder, Reported)
        for step in record.steps
    }


def log(folder: Path) -> str:
    return "\n".join(path.read_text() for path in (folder / "runs/first/job").glob("*.log"))


def ends_well(folder: Path, n_trials: int, seconds: float = 60.0) -> None:
    """The study comes to its end with all its trials, each unit reported once, and no job stays."""
    path = folder / "runs/first"
    until(lambda: not run_status(path), f"{path} is over; it said: {log(folder)}", seconds)
    result = load_study(path)
    assert (result.trials()["status"] == "completed").all(), log(folder)
    assert len(result.trials()) == n_trials
    history = result.history()
    assert (history.resource == history.n).all(), "a state was not that of its trial"
    for _, of_trial in history.groupby("trial"):
        assert sorted(of_trial.resource) == list(range(1, 11))


def test_a_study_goes_on_after_its_user_has_left_and_each_step_has_a_gpu(slurm, folder):
    write(folder, 0.2, go=f"{folder}/go")
    number = submit(folder, "--num-trials", "6", "--walltime", "5m", *TWO_GPUS)
    path = folder / "runs/first"
    until(lambda: records(folder, Reported), f"a trial reports; {log(folder)}")

    status = daskhpo(folder, "status", "runs/first").stdout
    assert f"job       {number} RUNNING on n" in status
    assert "workers   2 slots, in the same job" in status
    assert "dashboard ssh -N -L 8787:127.0.0.1:" in status
    tls = path / "job" / "tls"
    private = [tls / "key.pem", tls / "certificate.pem", path / "job" / "scheduler.json"]
    assert {p.stat().st_mode & 0o777 for p in private} == {0o600}
    assert {p.stat().st_mode & 0o777 for p in (path, path / "job", tls)} == {0o700}
    assert json.loads(private[2].read_text())["address"].startswith("tls://")

    with subprocess.Popen(
        [sys.executable, "-m", "daskhpo.cli", "attach", "runs/first"],
        cwd=folder,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    ) as follower:
        assert follower.stderr is not None
        follower.stderr.readline()  # it follows now
        follower.send_signal(signal.SIGINT)
        assert "first continues; stop it with" in follower.stderr.read()
    assert follower.returncode == 0
    (folder / "go").touch()
    attached = daskhpo(folder, "attach", "runs/first")
    assert attached.returncode == 0, attached.stderr
    assert "6 of 6" in attached.stderr
    ends_well(folder, 6)
    history = load_study(path).history()
    assert set(history.gpu) == {0, 1}
    assert not private[2].exists()


def test_workers_are_jobs_and_those_of_a_killed_head_are_cancelled(slurm, folder):
    write(folder, 0.2, go=f"{folder}/go")
    words = ["--num-trials", "8", "--walltime", "5m", "--chain", "2"]
    number = submit(folder, *words, *TWO_JOBS)
    name = worker_job_name("first", number)
    until(lambda: len(reported(folder)) > 4, f"the first link reports; {log(folder)}")
    seen = reported(folder)
    orphans = {job.number for job in jobs_named(name)}
    assert orphans
    assert "slots; jobs: " in daskhpo(folder, "status", "runs/first").stdout
    (tls,) = (folder / "runs/first/job").glob("tls-*")
    assert tls.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in tls.iterdir()} == {0o600}
    holder = holder_of(folder / "runs/first")
    assert holder is not None
    os.kill(holder["pid"], signal.SIGKILL)
    (folder / "go").touch()
    until(
        lambda: len(records(folder, SessionStarted)) == 2, f"the next link goes on; {log(folder)}"
    )
    left = {job.number for job in jobs_named(name) if job.state != "COMPLETING"}
    assert not left & orphans
    ends_well(folder, 8)
    assert seen <= reported(folder), "something that was reported is lost"
    until(lambda: not jobs_named(name), "the workers' jobs are given back")


def test_a_head_that_slurm_kills_is_followed_by_the_next_link(slurm, folder):
    write(folder, 0.15)
    words = ["--num-trials", "6", "--walltime", "5m", "--chain", "4", "--checkpoint", "every:2"]
    number = submit(folder, *words, *TWO_GPUS)
    until(lambda: len(reported(folder)) > 4, f"the first link reports; {log(folder)}")
    seen = reported(folder)
    slurm.command("scancel", "--signal=KILL", f"{number}_1")
    ends_well(folder, 6)
    assert len(records(folder, SessionStarted)) == 2
    assert seen <= reported(folder), "something that was reported is lost"
    assert jobs_of(number) == [], "a link that was not needed any more is still there"


@pytest.mark.timeout(300)  # up to three walltimes, and the start of three jobs
def test_a_head_stops_before_its_walltime_ends_and_the_next_link_goes_on(slurm, folder):
    write(folder, 1.0)
    number = submit(folder, "--num-trials", "10", "--walltime", "60s", "--chain", "3", *TWO_GPUS)
    path = folder / "runs/first"
    until(
        lambda: len(records(folder, SessionStarted)) == 2,
        f"the second link goes on; {log(folder)}",
        90,
    )
    before = list(study_records(path))
    first = before[: [isinstance(r, SessionStarted) for r in before].index(True, 1)]
    kinds = {type(record) for record in first}
    assert StopRequested in kinds
    assert not [r for r in first if isinstance(r, AttemptLost) and r.blame], "a trial was cut off"
    assert load_study(path).trials()["status"].isin(["completed", "queued", "running"]).all()
    state = slurm.command("scontrol", "--oneliner", "show", "job", f"{number}_1")
    assert "JobState=COMPLETED" in state, "Slurm had to end it"
    ends_well(folder, 10, 150)


def test_stop_ends_a_study_and_its_chain(slurm, folder):
    number = submit(folder, "--num-trials", "900", "--walltime", "5m", "--chain", "3", *TWO_GPUS)
    until(lambda: records(folder, Reported), f"a trial reports; {log(folder)}")
    stop = daskhpo(folder, "stop", "runs/first")
    assert stop.returncode == 0, stop.stderr
    assert "first: stopped, because daskhpo stop" in stop.stderr
    result = load_study(folder / "runs/first")
    assert result.stop_reason == "daskhpo stop"
    assert not (result.trials()["status"] == "failed").any()
    assert jobs_of(number) == []
    status = daskhpo(folder, "status", "runs/first").stdout
    assert "state     not running; stopped, because daskhpo stop" in status
    assert daskhpo(folder, "stop", "runs/first").returncode == 2


def test_a_job_that_waits_is_cancelled_by_stop(slurm, folder):
    # three GPUs on a node are more than there are: with two nodes drained it would wait
    for node in slurm.nodes:
        slurm.command("scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=test")
    try:
        number = submit(folder, "--num-trials", "9", "--walltime", "5m", "--chain", "2", *TWO_GPUS)
        assert "state     waiting for its job" in daskhpo(folder, "status", "runs/first").stdout
        again = daskhpo(
            folder, "submit", "tune.py:study", "--num-trials", "9", "--walltime", "5m", *TWO_GPUS
        )
        assert again.returncode == 2
        assert f"runs/first is already submitted as job {number}_1 (PENDING)" in again.stderr
        study = AttachedStudy(folder / "runs/first")
        assert study.status() == {}
        study.stop()
        until(lambda: not jobs_of(number), "the jobs are cancelled")
        with pytest.raises(StudyNotRunning):
            study.stop()
    finally:
        for node in slurm.nodes:
            slurm.command("scontrol", "update", f"NodeName={node}", "State=RESUME")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--queue", "nosuch"], "invalid partition specified: nosuch"),
        (
            ["--queue", "debug", "--walltime", "1h"],
            "longer than partition debug allows, 0-00:05:00",
        ),
        (["--directive=--gres=gpu:9"], "Requested node configuration is not available"),
    ],
    ids=["partition", "walltime", "resources"],
)
def test_what_slurm_refuses_is_said_and_nothing_is_left(slurm, folder, words, message):
    done = daskhpo(
        folder,
        "submit",
        "tune.py:study",
        "--num-trials",
        "9",
        "--walltime",
        "5m",
        *TWO_GPUS,
        *words,
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "runs/first").exists()


def test_the_lock_of_a_job_that_is_over_is_taken_over_before_it_expires(slurm, tmp_path):
    script = f"#!/bin/sh\necho > {tmp_path}/begun\nsleep 600\n"
    number = slurm.command(
        "sbatch", "--parsable", "--mem=100", "--output=/dev/null", f"--wrap={script}"
    )
    number = number.strip()
    until((tmp_path / "begun").exists, "the job runs")
    path = tmp_path / "lock.json"
    path.write_text(json.dumps({"token": "t", "host": "far away", "pid": 1, "job": f"{number}.0"}))
    age = path.stat().st_mtime - SILENT_SECONDS - 5
    os.utime(path, (age, age))
    with pytest.raises(StudyLocked, match="far away"):
        StudyLock(tmp_path, job_is_over=is_over)
    slurm.command("scancel", number)
    until(lambda: is_over(f"{number}.0"), "the job is over")
    assert is_over("999999.0"), "Slurm has forgotten it"
    StudyLock(tmp_path, job_is_over=is_over).release()
