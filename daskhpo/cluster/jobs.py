"""What Slurm says of jobs."""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from daskhpo.cluster.shell import CommandFailed, CommandMissing, call
from daskhpo.cluster.times import parse_slurm_time

SQUEUE_FORMAT = "%A|%F|%i|%T|%L|%N|%r"
TERMINAL_STATES = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
}


@dataclass(frozen=True)
class SlurmJob:
    """A job that is not over, as Slurm tells.

    Attributes
    ----------
    number : its own one.
    submission : of the job array that it belongs to; else its own number.
    name : as people write it: ``"123"``, or ``"123_4"`` in an array.
    state, reason : in Slurm's words.
    seconds_left : till its walltime ends; None: without end, or Slurm does not say.
    nodes : where it runs; empty before.
    """

    number: str
    submission: str
    name: str
    state: str
    seconds_left: float | None
    nodes: str
    reason: str

    @property
    def is_pending(self) -> bool:
        """Whether it has not begun yet."""
        return not self.nodes

    @property
    def description(self) -> str:
        """In one line: ``job 123 RUNNING on n1``."""
        how = f"({self.reason})" if self.is_pending else f"on {self.nodes}"
        return f"job {self.name} {self.state} {how}"


def jobs_of(submission: str) -> list[SlurmJob]:
    """Jobs of one submission that are not over: several if it is an array.

    Raises
    ------
    CommandMissing, CommandFailed : there is no Slurm here, or it does not answer.
    """
    try:
        return _listed("--jobs", submission)
    except CommandFailed as error:
        if "Invalid job id" in error.output:  # it was over long ago
            return []
        raise


def jobs_named(name: str) -> list[SlurmJob]:
    """Your own jobs of this name that are not over."""
    return _listed("--user", getpass.getuser(), "--name", name)


def cancel(submission: str, *, waiting_only: bool = False) -> None:
    """Cancel a job, or all of an array."""
    call(["scancel", *(["--state=PENDING"] if waiting_only else []), submission])


def cancel_named(name: str) -> None:
    """Cancel your own jobs of this name, if there are any."""
    call(["scancel", "--user", getpass.getuser(), "--name", name])


def submit_script(script: str) -> str:
    """Submit a batch script; the job's number.

    Raises
    ------
    CommandMissing, CommandFailed : there is no Slurm here; it refuses the job, and says why.
    """
    printed = call(["sbatch", "--parsable"], text=script)
    return printed.strip().splitlines()[-1].partition(";")[0]  # the cluster's name may follow


def is_over(job: str) -> bool:
    """Whether a job, named as a study's lock names it (``"123.0"``), is over for certain."""
    number, _, restarts = job.partition(".")
    try:
        told = call(["scontrol", "--oneliner", "show", "job", number])
    except CommandMissing:
        return False
    except CommandFailed as error:
        return "Invalid job id" in error.output
    for line in told.splitlines():
        fields = dict(re.findall(r"(\w+)=(\S*)", line))
        if fields.get("JobId") == number:
            began_again = int(fields.get("Restarts", 0)) > int(restarts or 0)
            return began_again or fields.get("JobState") in TERMINAL_STATES
    return False


def longest_walltime(queue: str | None) -> float | None:
    """Seconds that a partition (None: the default one) lets a job take; None: no limit is known."""
    limits = []
    for line in call(["sinfo", "--noheader", "--format=%P|%l"]).splitlines():
        name, limit = line.strip().split("|")
        if name.removesuffix("*") in queue.split(",") if queue else name.endswith("*"):
            limits.append(parse_slurm_time(limit))
    return None if None in limits else max(limits, default=None)  # type: ignore[type-var]


def own_number() -> str | None:
    """Number of the job that this process belongs to."""
    return os.environ.get("SLURM_JOB_ID")


def own_submission() -> str | None:
    """Number of the submission that this process's job belongs to."""
    return os.environ.get("SLURM_ARRAY_JOB_ID") or own_number()


def own_seconds_left() -> float | None:
    """Seconds till the walltime of this process's job ends; None: never, or there is no job."""
    number = own_number()
    listed = [] if number is None else _listed("--jobs", number)
    for job in listed:  # the last task of an array has the number of the array itself
        if job.number == number and not job.is_pending:
            return job.seconds_left
    return None


def _listed(*which: str) -> list[SlurmJob]:
    argv: Sequence[str] = ["squeue", "--noheader", "--array", f"--format={SQUEUE_FORMAT}", *which]
    jobs = []
    for line in call(argv).splitlines():
        number, submission, name, state, left, nodes, reason = line.strip().split("|")
        jobs.append(
            SlurmJob(number, submission, name, state, parse_slurm_time(left), nodes, reason)
        )
    return jobs
