"""Jobs in Slurm's queue: list, submit and cancel them.

A job id here is what ``sbatch --parsable`` prints: ``"123"``, or ``"123;name"`` for a job of
another Slurm cluster.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from daskhpo.cluster.commands import JOBS_PER_CALL, ask, sbatch
from daskhpo.cluster.parsers import (
    SQUEUE_FORMAT,
    SlurmJob,
    parse_commands,
    parse_limits,
    parse_records,
    parse_sbatch,
    parse_scontrol_jobs,
    parse_squeue,
    parse_start,
    split_job_id,
)
from daskhpo.cluster.shell import CommandError, CommandFailed, CommandTimedOut

SEARCH_SECONDS = 30.0  # for a job whose id sbatch did not say
SEARCH_POLL_SECONDS = 2.0
UNCLEAR = ("timed out", "zero bytes", "connection reset")  # the answer was lost, not the question


class SubmissionUnclear(CommandFailed):
    """``sbatch`` gave no job id, and the job may be in the queue all the same."""


def jobs_of(submission: str) -> list[SlurmJob]:
    """Return the jobs of a submission that have not ended; several for a job array.

    Raises
    ------
    CommandError : Slurm's commands are missing here, or Slurm does not answer.
    """
    number, _ = split_job_id(submission)
    shown = [job for _, job in list_jobs([submission]) if job.submission == number]
    listed = shown or described(submission) or []
    return [job for job in listed if not job.is_over]


def list_jobs(submissions: Iterable[str]) -> list[tuple[str, SlurmJob]]:
    """Return what ``squeue`` shows of jobs, also of ended ones, with their ids.

    A job that is missing in the answer need not have ended: :func:`described` asks again.

    Raises
    ------
    CommandError : Slurm's commands are missing here, or Slurm does not answer.
    """
    found = []
    for cluster, numbers in _by_cluster(submissions).items():
        for first in range(0, len(numbers), JOBS_PER_CALL):
            asked = ",".join(numbers[first : first + JOBS_PER_CALL])
            options = [f"--format={SQUEUE_FORMAT}", "--states=all", f"--jobs={asked}"]
            try:
                for one in parse_squeue(_squeue(*options, *_on(cluster))):
                    found.append((f"{one.number};{cluster}".rstrip(";"), one))
            except CommandFailed as error:
                if "Invalid job id" not in error.output:
                    raise
    return found


def described(submission: str) -> list[SlurmJob] | None:
    """Return what ``scontrol`` says of a job; none: it does not know the job.

    None: it gives no answer that can be read.
    """
    number, cluster = split_job_id(submission)
    argv = ["scontrol", *_on(cluster), "--oneliner", "show", "job", number]
    try:
        return parse_scontrol_jobs(ask(argv)) or None
    except CommandFailed as error:
        return [] if "Invalid job id" in error.output else None
    except CommandError:
        return None


def expected_start(submission: str) -> str | None:
    """Return when Slurm expects a pending job to start; None: unknown.

    Raises
    ------
    CommandError : Slurm's commands are missing here, or Slurm does not answer.
    """
    number, cluster = split_job_id(submission)
    printed = _squeue("--start", "--format=%A|%S", f"--jobs={number}", *_on(cluster))
    return parse_start(printed, number)


def jobs_named(name: str) -> list[SlurmJob]:
    """Return the user's own jobs with this name that have not ended."""
    return parse_squeue(_squeue(f"--format={SQUEUE_FORMAT}", *_mine(), "--name", name))


def cancel(submissions: Iterable[str], *, waiting_only: bool = False) -> None:
    """Cancel jobs or job arrays; ``waiting_only``: only what is pending.

    Raises
    ------
    CommandError : a job could not be cancelled. That it has ended is no error.
    """
    for cluster, numbers in _by_cluster(submissions).items():
        only = ["--state=PENDING"] if waiting_only else []
        for first in range(0, len(numbers), JOBS_PER_CALL):
            argv = ["scancel", *only, *_on(cluster), *numbers[first : first + JOBS_PER_CALL]]
            try:
                ask(argv)
            except CommandFailed as error:
                if not _have_ended(error.output):
                    raise


def cancel_named(name: str) -> None:
    """Cancel the user's own jobs with this name, if any."""
    ask(["scancel", *_mine(), "--name", name])


def submit(script: Path) -> str:
    """Submit a batch script and return the job id.

    Raises
    ------
    SubmissionUnclear : neither ``sbatch`` nor the queue says whether there is a job now.
    CommandError : ``sbatch`` is missing here; Slurm rejects the job, and the message contains its
        reason.
    """
    argv = ["sbatch", str(script)]
    try:
        printed = sbatch(str(script), script=script.read_text())
    except CommandFailed as error:
        timed_out = isinstance(error, CommandTimedOut)
        if not (timed_out or any(word in error.output.lower() for word in UNCLEAR)):
            raise
        if (found := _search(script)) is not None:  # Slurm had taken it all the same
            return found
        raise SubmissionUnclear(argv, error.code, error.output, error.how) from error
    if (job := parse_sbatch(printed) or _search(script)) is None:
        raise SubmissionUnclear(argv, 0, printed, "did not say the number of its job")
    return job


def find_script(script: Path) -> list[str]:
    """Return the ids of the user's own jobs that run a batch script, in order."""
    listed = parse_commands(_squeue("--format=%A|%o", *_mine()))
    found = [job for job, command in listed if command.split(" ")[0] == str(script)]
    return sorted(found, key=lambda job: int(split_job_id(job)[0]))


def is_over(job: str) -> bool:
    """Return True if a job has certainly ended.

    A job that Slurm has restarted since counts as ended.

    Parameters
    ----------
    job : job id and number of restarts, as in a study's lock: ``"123.0"``.
    """
    number, _, restarts = job.partition(".")
    try:
        printed = ask(["scontrol", "--oneliner", "show", "job", number])
    except CommandFailed as error:
        return "Invalid job id" in error.output
    except CommandError:
        return False
    for fields in parse_records(printed):
        if fields.get("JobId") == number:
            again, before = fields.get("Restarts", ""), restarts if restarts.isdecimal() else 0
            if again.isdecimal() and int(again) > int(before):
                return True
    return any(one.number == number and one.is_over for one in parse_scontrol_jobs(printed))


def longest_walltime(queue: str | None) -> float | None:
    """Return the time limit of a partition, in seconds; None: unlimited, or not known.

    Parameters
    ----------
    queue : partition, or several with commas: then the longest limit; None: the default one.
    """
    limits = []
    for name, limit in parse_limits(ask(["sinfo", "--noheader", "--format=%P|%l"])).items():
        if name.removesuffix("*") in queue.split(",") if queue else name.endswith("*"):
            limits.append(limit)
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
    for job, shown in [] if number is None else list_jobs([number]):
        if job == number and shown.nodes:  # the last task of an array has the id of the array
            return shown.seconds_left
    return None


def _squeue(*options: str) -> str:
    # --all: a partition may be hidden
    return ask(["squeue", "--noheader", "--array", "--all", *options])


def _mine() -> list[str]:
    return ["--user", str(os.geteuid())]  # LOGNAME may be another's


def _on(cluster: str) -> list[str]:
    return [f"--clusters={cluster}"] if cluster else []


def _by_cluster(submissions: Iterable[str]) -> dict[str, list[str]]:
    numbers: defaultdict[str, list[str]] = defaultdict(list)
    for submission in submissions:
        number, cluster = split_job_id(submission)
        numbers[cluster].append(number)
    return numbers


def _have_ended(printed: str) -> bool:
    """Return True if ``scancel`` complains only of jobs that it does not know."""
    errors = [line for line in printed.splitlines() if "error" in line.lower()]
    return bool(errors) and all("invalid job id" in line.lower() for line in errors)


def _search(script: Path) -> str | None:
    """Look for a script's job in the queue for a while; return its id."""
    deadline = time.monotonic() + SEARCH_SECONDS
    while time.monotonic() < deadline:
        try:
            if found := find_script(script):
                return found[-1]
        except CommandError:
            pass  # it is asked again
        time.sleep(SEARCH_POLL_SECONDS)
    return None
