"""Parsers of what Slurm's commands print, by the form of each line.

Sites put banners around answers, and versions add lines. A line that has not the expected form is
skipped, and never taken for an answer.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass

from daskhpo.cluster.times import parse_slurm_time

logger = logging.getLogger("daskhpo")

SQUEUE_FORMAT = "%A|%F|%i|%T|%L|%N|%r"
TERMINAL_STATES = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "LAUNCH_FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "RECONFIG_FAIL",
    "REVOKED",
    "TIMEOUT",
}


@dataclass(frozen=True)
class SlurmJob:
    """A job, as Slurm describes it.

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
        return not self.nodes and not self.is_over

    @property
    def is_over(self) -> bool:
        """True if it has ended, and will not start again by itself."""
        return self.state in TERMINAL_STATES

    @property
    def description(self) -> str:
        """One line, such as ``job 123 RUNNING on n1``."""
        if self.nodes:
            return f"job {self.name} {self.state} on {self.nodes}"
        why = "" if self.reason in ("", "None") else f" ({self.reason})"
        return f"job {self.name} {self.state}{why}"


def split_job_id(job: str) -> tuple[str, str]:
    """Return the number and the cluster of a job id; no cluster: empty."""
    number, _, cluster = job.partition(";")
    return number, cluster


def parse_sbatch(text: str) -> str | None:
    """Return the job id that ``sbatch`` printed; None: none, or more than one.

    The sentence that ``sbatch`` prints counts. A line with nothing but a number, as ``--parsable``
    prints it, counts only where there is no such sentence.
    """
    said = re.findall(
        r"^\W*Submitted batch job (\d+)(?: on cluster ([\w.-]+))?\s*$", text, re.MULTILINE
    )
    bare = re.findall(r"^(\d+)(?:;([\w.-]+))?\s*$", text, re.MULTILINE)
    found = list(dict.fromkeys(said or bare))
    return ";".join(filter(None, found[0])) if len(found) == 1 else None


def parse_squeue(text: str) -> list[SlurmJob]:
    """Parse what ``squeue --noheader --format=SQUEUE_FORMAT`` printed."""
    jobs, skipped = [], 0
    form = re.compile(r"\s*(\d+)\|(\d+)\|([\d_]\S*)\|([A-Z_+]+)\|([^|]*)\|([^|]*)\|(.*?)\s*")
    for line in text.splitlines():
        if (found := form.fullmatch(line)) is not None:
            number, submission, name, state, left, nodes, reason = found.groups()
            seconds = parse_slurm_time(left)
            jobs.append(SlurmJob(number, submission, name, state, seconds, nodes, reason))
        else:
            skipped += bool(line.strip())
    _note_skipped("squeue", skipped)
    return jobs


def parse_commands(text: str) -> Iterator[tuple[str, str]]:
    """Yield number and command of each job: ``squeue --noheader --format=%A|%o``."""
    for line in text.splitlines():
        if (found := re.fullmatch(r"\s*(\d+)\|(.*?)\s*", line)) is not None:
            yield found[1], found[2]


def parse_scontrol_jobs(text: str) -> list[SlurmJob]:
    """Parse what ``scontrol --oneliner show job`` printed: a line for each job."""
    jobs = []
    for fields in parse_records(text):
        number, state = fields.get("JobId", ""), fields.get("JobState", "")
        if not (number.isdecimal() and state):
            continue
        array, task = fields.get("ArrayJobId", ""), fields.get("ArrayTaskId", "")
        jobs.append(
            SlurmJob(
                number,
                array or number,
                f"{array}_{task}" if array and task.isdecimal() else number,
                state.split("+")[0],
                _left(fields),
                fields.get("NodeList", "").replace("(null)", ""),
                fields.get("Reason", ""),
            )
        )
    return jobs


def parse_records(text: str) -> list[dict[str, str]]:
    """Return the fields of each line with ``Name=value`` pairs, as of ``scontrol``."""
    found = (re.findall(r"([\w:/]+)=(\S*)", line) for line in text.splitlines())
    return [dict(reversed(pairs)) for pairs in found if pairs]  # comments of users come last


def parse_limits(text: str) -> dict[str, float | None]:
    """Parse what ``sinfo --noheader --format=%P|%l`` printed: seconds by partition.

    None: unlimited. The default partition has ``*`` after its name.
    """
    limits: dict[str, float | None] = {}
    skipped = 0
    for line in text.splitlines():
        found = re.fullmatch(r"\s*([^\s|]+)\|(infinite|unlimited|[\d:-]+)\s*", line, re.IGNORECASE)
        if found is not None:
            limits[found[1]] = parse_slurm_time(found[2])
        else:
            skipped += bool(line.strip())
    _note_skipped("sinfo", skipped)
    return limits


def parse_addresses(text: str) -> list[str]:
    """Return the names and addresses that ``sinfo --noheader --format=%o`` printed."""
    words = (line.strip() for line in text.splitlines())
    return list(dict.fromkeys(word for word in words if re.fullmatch(r"[\w.:-]+", word)))


def parse_start(text: str, number: str) -> str | None:
    """Return when ``squeue --start`` with the format ``%A|%S`` expects a job to start."""
    found = re.search(rf"^\s*{number}\|(\d\d\d\d-\S+)\s*$", text, re.MULTILINE)
    return None if found is None else found[1]


def _left(fields: dict[str, str]) -> float | None:
    limit, ran = (parse_slurm_time(fields.get(name, "")) for name in ("TimeLimit", "RunTime"))
    return None if limit is None else max(0.0, limit - (ran or 0.0))


def _note_skipped(program: str, n: int) -> None:
    if n:
        logger.debug("%s printed %d lines of another form, which were skipped", program, n)
