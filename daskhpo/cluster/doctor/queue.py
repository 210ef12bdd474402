"""State of a job in the queue: why it is pending, and what to do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from daskhpo.cluster.doctor.finding import Finding, problem, warning
from daskhpo.cluster.jobs import TERMINAL_STATES


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


def parse_job(text: str) -> JobState:
    """Parse the output of ``scontrol --oneliner show job`` for one job."""
    fields = dict(re.findall(r"(\w+)=(\S*)", text))
    if "JobState" not in fields:
        return GONE
    return JobState(
        fields["JobState"],
        fields.get("Reason", "").replace("_", " "),
        fields.get("ExitCode", "0:0"),
        fields.get("NodeList", "").replace("(null)", ""),
    )


class Outlook(Enum):
    """Outlook of a job that is pending."""

    USUAL = "usual"  # it starts when its turn comes
    UNSURE = "unsure"  # it may wait until an administrator or another user acts
    HOPELESS = "hopeless"  # it never starts


_LIMITS = "see sacctmgr show assoc user=$USER, sacctmgr show qos, or ask your administrator"
REASONS = (  # Slurm's reason, its meaning, what to do, and the outlook
    (
        r"Priority|Resources|None||BeginTime|Dependency|FedJobLock|Cleaning|Prolog|Licenses.*"
        r"|BurstBuffer.*",
        "it waits for resources, licences, or jobs of higher priority",
        "wait longer with --wait",
        Outlook.USUAL,
    ),
    (
        r"PartitionTimeLimit|.*Wall.*PerJob.*",
        "it exceeds the time limit of its partition, account or QOS",
        "set a shorter --walltime",
        Outlook.HOPELESS,
    ),
    (
        r"BadConstraints|NodeNotFound",
        "no node satisfies its constraints",
        "check the --directive options",
        Outlook.HOPELESS,
    ),
    (
        r"Invalid(Account|QOS)|.*(Account|QOS).*NotAllowed|QOSUsageThreshold|.*not permitted.*",
        "the account or QOS is not allowed there",
        "choose another --account or QOS",
        Outlook.HOPELESS,
    ),
    (r"JobHeld.*", "it is held", "ask your administrator why", Outlook.HOPELESS),
    (
        r"(Assoc|QOS|Max)(?!.*Minutes).*(PerUser|PerAccount|Grp|JobsLimit|SubmitJob).*",
        "other jobs have reached a limit of its account or QOS",
        _LIMITS,
        Outlook.USUAL,
    ),
    (
        r"(Assoc|QOS|Max).*",
        "it requests more than its account or QOS allows or has left",
        _LIMITS,
        Outlook.UNSURE,
    ),
    (
        r"Partition.*|ReqNodeNotAvail.*|Nodes? required.*|NodeDown",
        "its partition, or the nodes that it needs, are down, drained or reserved",
        "sinfo --list-reasons shows why; choose another partition, or ask your administrator",
        Outlook.UNSURE,
    ),
    (".*", "see JOB REASON CODES in man squeue", "ask your administrator", Outlook.UNSURE),
)


def explain(reason: str) -> tuple[str, str, Outlook]:
    """Return the meaning of one of Slurm's reasons, what to do, and the outlook."""
    return next(row[1:] for row in REASONS if re.fullmatch(row[0], reason, re.IGNORECASE))


def check_wait(job: str, state: JobState, waited: float) -> Finding:
    """Report a job that did not start in time and was cancelled."""
    meaning, hint, outlook = explain(state.reason)
    message = f"job {job} did not start within {waited:.0f} s and was cancelled"
    if state.reason not in ("", "None"):
        message += f"; its reason was {state.reason}: {meaning}"
    return (warning if outlook is Outlook.USUAL else problem)("start", message, hint)
