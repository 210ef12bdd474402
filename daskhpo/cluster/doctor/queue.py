"""State of a job in the queue: why it is pending, and what to do."""

from __future__ import annotations

from dataclasses import dataclass

from daskhpo.cluster.doctor.finding import Finding, problem, warning
from daskhpo.cluster.parsers import TERMINAL_STATES, parse_records
from daskhpo.cluster.reasons import Outlook, explain


@dataclass(frozen=True)
class JobState:
    """A job, as ``scontrol show job`` prints it.

    Attributes
    ----------
    state, reason : as Slurm names them; the reason with blanks instead of underscores.
    exit_code : exit code of its script and the signal that ended it: ``"0:0"``.
    nodes : nodes where it runs or ran; empty before it starts.
    """

    state: str
    reason: str = ""
    exit_code: str = "0:0"
    nodes: str = ""

    @property
    def waits(self) -> bool:
        """True if it has not started."""
        return self.state in ("PENDING", "CONFIGURING")

    @property
    def is_over(self) -> bool:
        """True if it has ended."""
        return self.state in (*TERMINAL_STATES, "UNKNOWN")


GONE = JobState("UNKNOWN", "it is no longer known to Slurm")


def parse_job(text: str, number: str) -> JobState:
    """Parse the output of ``scontrol --oneliner show job`` for one job."""
    records = [r for r in parse_records(text) if r.get("JobId") == number and "JobState" in r]
    if not records:
        return GONE
    fields = records[0]
    return JobState(
        fields["JobState"],
        fields.get("Reason", "").replace("_", " "),
        fields.get("ExitCode", "0:0"),
        fields.get("NodeList", "").replace("(null)", ""),
    )


def check_wait(job: str, state: JobState, waited: float) -> Finding:
    """Report a job that did not start in time and was cancelled."""
    meaning, hint, outlook = explain(state.reason)
    message = f"job {job} did not start within {waited:.0f} s and was cancelled"
    if state.reason not in ("", "None"):
        message += f"; its reason was {state.reason}: {meaning}"
    if outlook is Outlook.USUAL:
        return warning("start", message, "wait longer with --wait")
    return problem("start", message, hint)
