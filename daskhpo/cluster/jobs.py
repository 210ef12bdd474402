"""Jobs in Slurm's queue: list, submit and cancel them."""

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
    """A job in the queue, as ``squeue`` prints it.

    Attributes
    ----------
    number : its own job id.
    submission : job id of the array that it belongs to; else its own job id.
    name : job id in the form that users write: ``"123"``, or ``"123_4"`` in an array.
    state, reason : as Slurm names them.
    seconds_left : seconds until its time limit; None: no limit, or not known.
    nodes : nodes where it runs; empty before it starts.
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
        """True if it has not started."""
        return not self.nodes

    @property
    def description(self) -> str:
        """One line, such as ``job 123 RUNNING on n1``."""
        how = f"({self.reason})" if self.is_pending else f"on {self.nodes}"
        return f"job {self.name} {self.state} {how}"


def jobs_of(submission: str) -> list[SlurmJob]:
    """Return the jobs of a submission that have not ended; several for a job array.

    Raises
    ------
    CommandMissing, CommandFailed : Slurm's commands are missing here, or Slurm does not answer.
    """
    try:
        return _listed("--jobs", submission)
    except CommandFailed as error:
        if "Invalid job id" in error.output:  # it ended long ago
            return []
        raise


def jobs_named(name: str) -> list[SlurmJob]:
    """Return the user's own jobs with this name that have not ended."""
    return _listed("--user", getpass.getuser(), "--name", name)


def cancel(submission: str, *, waiting_only: bool = False) -> None:
    """Cancel a job or a job array; ``waiting_only``: only what is pending."""
    call(["scancel", *(["--state=PENDING"] if waiting_only else []), submission])


def cancel_named(name: str) -> None:
    """Cancel the user's own jobs with this name, if any."""
    call(["scancel", "--user", getpass.getuser(), "--name", name])


def submit_script(script: str) -> str:
    """Submit a batch script and return the job id.

    Raises
    ------
    CommandMissing, CommandFailed : ``sbatch`` is missing here; Slurm rejects the job, and the
        message contains its reason.
    """
    printed = call(["sbatch", "--parsable"], text=script)
    return printed.strip().splitlines()[-1].partition(";")[0]  # the cluster's name may follow


def is_over(job: str) -> bool:
    """Return True if a job has certainly ended.

    A job that Slurm has restarted since counts as ended.

    Parameters
    ----------
    job : job id and number of restarts, as in a study's lock: ``"123.0"``.
    """
    number, _, restarts = job.partition(".")
    try:
        printed = call(["scontrol", "--oneliner", "show", "job", number])
    except CommandMissing:
        return False
    except CommandFailed as error:
        return "Invalid job id" in error.output
    for line in printed.splitlines():
        fields = dict(re.findall(r"(\w+)=(\S*)", line))
        if fields.get("JobId") == number:
            restarted = int(fields.get("Restarts", 0)) > int(restarts or 0)
            return restarted or fields.get("JobState") in TERMINAL_STATES
    return False


def longest_walltime(queue: str | None) -> float | None:
    """Return the time limit of a partition, in seconds; None: unlimited, or not known.

    Parameters
    ----------
    queue : partition, or several with commas: then the longest limit; None: the default one.
    """
    limits = []
    for line in call(["sinfo", "--noheader", "--format=%P|%l"]).splitlines():
        name, limit = line.strip().split("|")
        if name.removesuffix("*") in queue.split(",") if queue else name.endswith("*"):
            limits.append(parse_slurm_time(limit))
    return None if None in limits else max(limits, default=None)  # type: ignore[type-var]


def own_number() -> str | None:
    """Return the id of the job that this process runs in; None: no job."""
    return os.environ.get("SLURM_JOB_ID")


def own_submission() -> str | None:
    """Return the job id of this process's job array, or of its job; None: no job."""
    return os.environ.get("SLURM_ARRAY_JOB_ID") or own_number()


def own_seconds_left() -> float | None:
    """Return the seconds until this process's job reaches its time limit.

    None: there is no limit or no job, or the limit is not known.
    """
    number = own_number()
    listed = [] if number is None else _listed("--jobs", number)
    for job in listed:  # the last task of an array has the job id of the array
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
