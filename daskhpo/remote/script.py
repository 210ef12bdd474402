"""The batch script of a controller job, as text."""

from __future__ import annotations

import re
import shlex
import sys

from daskhpo.cluster.times import slurm_time
from daskhpo.remote.submission import (
    ControllerJob,
    JobDirectory,
    Submission,
    WorkerJobs,
    WorkerSteps,
)


def controller_script(submission: Submission, folder: JobDirectory) -> str:
    """Return the script that ``sbatch`` receives."""
    command = [sys.executable, "-m", "daskhpo.cli.submitted_job", str(folder.study)]
    lines = [
        "#!/usr/bin/env bash",
        *(f"#SBATCH {line}" for line in _directives(submission, folder)),
        *submission.job.prologue,
        f"exec {shlex.join(command)}",  # Slurm's signals reach Python, not a waiting shell
    ]
    return "\n".join(lines) + "\n"


def controller_job_name(study: str) -> str:
    """Return the name of a study's controller job."""
    return f"daskhpo-{_plain(study)}"


def worker_job_name(study: str, submission: str) -> str:
    """Return the name of all worker jobs of a submission.

    By this name a later job of the chain finds worker jobs that a killed one left.
    """
    return f"daskhpo-{_plain(study)}-workers-{submission}"


def _directives(submission: Submission, folder: JobDirectory) -> list[str]:
    job = submission.job
    log = "%A_%a.log" if job.n_jobs > 1 else "%j.log"
    lines = [
        f"--job-name={controller_job_name(folder.study.name)}",
        f"--chdir={_quoted(submission.folder)}",
        f"--output={_quoted(str(folder.path).replace('%', '%%') + '/' + log)}",
        "--open-mode=append",
        f"--time={slurm_time(job.walltime)}",
    ]
    if job.queue is not None:
        lines.append(f"--partition={job.queue}")
    if job.account is not None:
        lines.append(f"--account={job.account}")
    lines += _resource_directives(job, submission.workers)
    if job.n_jobs > 1:  # one at a time
        lines.append(f"--array=1-{job.n_jobs}%1")
    return [*lines, *job.directives]


def _resource_directives(job: ControllerJob, workers: WorkerJobs | WorkerSteps) -> list[str]:
    """Return the options that request the job's nodes, CPUs, memory and GPUs."""
    match workers:
        case WorkerJobs():
            room = [f"--cpus-per-task={job.cores}", f"--mem={job.memory}"]
            return ["--nodes=1", "--ntasks=1", *room]
        case WorkerSteps():
            n = workers.per_node
            lines = [
                f"--nodes={workers.nodes}",
                f"--ntasks-per-node={n}",
                f"--cpus-per-task={workers.cores}",
                f"--mem={n * workers.megabytes}M",
            ]
            return lines + ([f"--gres=gpu:{n * workers.gpus}"] if workers.gpus else [])


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name)


def _quoted(text: str) -> str:
    return f'"{text}"' if re.search(r"\s", text) else text
