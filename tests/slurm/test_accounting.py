"""What jobs have cost, by the records of a real Slurm that keeps accounts."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest
from distributed import Client, LocalCluster

from daskhpo import Study
from daskhpo.cli import main
from daskhpo.cluster.accounting import slurm_cost
from daskhpo.cluster.shell import CommandFailed, call
from daskhpo.schedulers import FIFO
from daskhpo.space import Real
from tests.slurm.slurm import until

pytestmark = pytest.mark.slurm


def submit(*options: str, script: str) -> str:
    argv = ["sbatch", "--parsable", "--mem=100", "--output=/dev/null", *options]
    return call(argv, text=f"#!/bin/sh\n{script}\n").strip()


def over(slurm, *jobs):
    """What jobs have cost, when the records say that all are over."""
    until(lambda: not set(jobs) & set(slurm.jobs()), "the jobs are over")

    def costs():
        told = slurm_cost(jobs)
        living = [cost for cost in told if cost.state in ("PENDING", "RUNNING", "COMPLETING")]
        return None if living or {cost.job for cost in told} != set(jobs) else told

    return until(costs, "the records are written")


def test_each_job_has_its_time_its_gpus_and_its_end(slurm_with_accounts, tmp_path):
    good = submit("--gres=gpu:2", script=f"while [ ! -e {tmp_path}/go ]; do sleep 0.1; done")
    until(lambda: slurm_with_accounts.jobs()[good] == "RUNNING", "the job runs")
    waiting = submit("--gres=gpu:1", "--account=guests", script="exit 3")
    until(lambda: slurm_cost([waiting]), "the waiting job is in the records")
    (now,) = slurm_cost([waiting])
    assert (now.state, now.waited, now.n_gpus, now.gpu_hours) == ("PENDING", None, 0, 0.0)
    until(lambda: slurm_cost([good])[0].seconds >= 1, "the running job is charged")
    (tmp_path / "go").touch()
    first, second = over(slurm_with_accounts, good, waiting)
    assert (first.job, first.state, first.exit_code, first.n_gpus) == (good, "COMPLETED", "0:0", 2)
    assert first.gpu_hours == 2 * first.seconds / 3600 > 0
    assert (first.account, first.partition, first.nodes) == ("lab", "gpu", "n1")
    assert (second.state, second.exit_code, second.account) == ("FAILED", "3:0", "guests")
    assert second.waited >= 1


def test_a_job_that_is_cancelled_in_the_queue_has_cost_nothing(slurm_with_accounts):
    job = submit("--begin=now+1hour", script="true")
    slurm_with_accounts.command("scancel", job)
    (cost,) = over(slurm_with_accounts, job)
    assert (cost.state, cost.seconds, cost.n_gpus, cost.nodes) == ("CANCELLED", 0.0, 0, "")


def test_a_job_that_is_started_again_is_told_run_by_run(slurm_with_accounts, tmp_path):
    script = f"echo >> {tmp_path}/runs; [ $SLURM_RESTART_COUNT ] || sleep 600"
    job = submit("--requeue", script=script)
    until(lambda: (tmp_path / "runs").exists(), "it runs")
    slurm_with_accounts.command("scontrol", "requeue", job)
    until(lambda: slurm_with_accounts.jobs().get(job) == "PENDING", "it is back in the queue")
    # Slurm lets a job wait for two minutes that it has put back.
    slurm_with_accounts.command("scontrol", "update", f"JobId={job}", "StartTime=now")
    runs = over(slurm_with_accounts, job)
    assert [run.job for run in runs] == [job, job]
    assert runs[0].state == "REQUEUED"


def test_numbers_that_slurm_does_not_know_are_left_out(slurm_with_accounts):
    assert slurm_cost(["4000000"]) == []
    assert slurm_cost([]) == []


def test_a_slurm_that_keeps_no_accounts_says_so(slurm):
    with pytest.raises(CommandFailed, match="accounting storage is disabled"):
        slurm_cost(["1"])


WORKER = """\
cd {folder}
export PYTHONPATH={path}
exec {python} -m distributed.cli.dask_worker {address} --nthreads 1 --no-nanny --no-dashboard \
    --local-directory {folder}
"""


def train(config, trial):
    came = Path(config["folder"])
    (came / f"trial-{trial.id}").touch()
    until(lambda: len(list(came.glob("trial-*"))) >= 2, "both workers have a trial")
    for _ in range(trial.resource, trial.max_t):
        trial.report({"loss": config["x"]})


def test_a_study_knows_its_jobs_and_what_they_cost(slurm_with_accounts, tmp_path, capsys):
    with LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0", host="127.0.0.1") as cluster:
        path = os.pathsep.join(p for p in sys.path if p)
        places = {"folder": tmp_path, "path": path, "python": sys.executable}
        script = WORKER.format(**places, address=cluster.scheduler_address)
        jobs = [submit("--gres=gpu:1", "--mem=2000", script=script) for _ in range(2)]
        space = {"x": Real(0, 1), "folder": str(tmp_path)}
        study = Study(train, space, "loss", scheduler=FIFO(3), storage=tmp_path)
        with Client(cluster, set_as_default=False) as client:
            until(lambda: len(cluster.scheduler.workers) == 2, "both workers have come")
            result = study.run(6, client=client, progress=False)
    assert sorted(result.jobs) == jobs
    costs = over(slurm_with_accounts, *jobs)
    assert [cost.n_gpus for cost in costs] == [1, 1]
    assert sum(cost.seconds for cost in costs) + 2 >= result.cost()["device_seconds"]

    assert main(["cost", str(study.path)]) == 0
    printed = capsys.readouterr().out
    assert all(re.search(rf"^  {job} .* 1 .*lab$", printed, re.MULTILINE) for job in jobs)
    assert "GPU-hours" in printed
    assert main(["cost", str(study.path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {job["job"]: job["n_gpus"] for job in told["slurm"]} == dict.fromkeys(jobs, 1)
