"""State of a job in the queue: why it is pending, and what to do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from daskhpo.cluster.doctor.fields import records
from daskhpo.cluster.doctor.finding import Finding, ok, problem, warning

_LIVING = {"PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "STAGE_OUT", "RESIZING"}
FAR_SECONDS = 24 * 3600.0


@dataclass(frozen=True)
class JobState:
    """A job, as ``scontrol show job`` prints it.

    Attributes
    ----------
    state, reason : as Slurm names them; the reason with blanks instead of underscores.
    submitted, started : seconds since 1970; None: not yet, or not known.
    exit_code : exit code of its script and the signal that ended it: ``"0:0"``.
    nodes : nodes where it runs or ran; empty before it starts.
    """

    state: str
    reason: str = ""
    submitted: float | None = None
    started: float | None = None
    exit_code: str = "0:0"
    nodes: str = ""

    @property
    def waits(self) -> bool:
        """True if it has not started."""
        return self.state in ("PENDING", "CONFIGURING")

    @property
    def is_over(self) -> bool:
        """True if it has ended."""
        return self.state not in _LIVING


GONE = JobState("UNKNOWN", "it is no longer known to Slurm")


def parse_job(text: str) -> JobState:
    """Parse the output of ``scontrol --oneliner show job`` for one job."""
    for fields in records(text):
        if "JobState" in fields:
            state = fields["JobState"]
            return JobState(
                state=state,
                reason=fields.get("Reason", "").replace("_", " "),
                submitted=_time(fields.get("SubmitTime", "")),
                # a forecast while the job is pending
                started=None if state == "PENDING" else _time(fields.get("StartTime", "")),
                exit_code=fields.get("ExitCode", "0:0"),
                nodes=fields.get("NodeList", "").replace("(null)", ""),
            )
    return GONE


@dataclass(frozen=True)
class Reason:
    """Explanation of why a job is pending.

    Attributes
    ----------
    meaning, hint : texts for users: the cause, and what to do.
    is_usual : True: the job starts when its turn comes.
    is_hopeless : True: the job will never start.
    """

    meaning: str
    hint: str
    is_usual: bool = False
    is_hopeless: bool = False


_BUSY = "it waits for resources, or for jobs of higher priority"
_LIMIT = "see sacctmgr show assoc user=$USER, sacctmgr show qos, or ask your administrator"
_REASONS: tuple[tuple[str, Reason], ...] = (
    (r"Priority|Resources|None|", Reason(_BUSY, "wait longer with --wait", is_usual=True)),
    (
        r"BeginTime|Dependency|Cleaning|Prolog",
        Reason("its begin time, a dependency, cleanup or a prolog delays it", "", True),
    ),
    (
        r"PartitionTimeLimit|.*(Max|Limit)?Wall.*PerJob.*",
        Reason(
            "it exceeds the time limit of its partition, account or QOS",
            "set a shorter --walltime",
            False,
            True,
        ),
    ),
    (
        r"PartitionNodeLimit|PartitionDown|PartitionInactive|PartitionConfig",
        Reason(
            "the partition is down or inactive, or its limits exclude the job",
            "see scontrol show partition",
            False,
        ),
    ),
    (
        r"BadConstraints|FedJobLock|NodeNotFound",
        Reason("no node satisfies its constraints", "check the --directive options", False, True),
    ),
    (
        r"InvalidAccount|AccountNotAllowed|.*Account.*NotAllowed",
        Reason("the account is not allowed there", "choose another --account", False, True),
    ),
    (
        r"InvalidQOS|QOSNotAllowed|QOSUsageThreshold|QOSUnknown",
        Reason("the QOS is not allowed there", "choose another QOS", False, True),
    ),
    (r"JobHeld.*", Reason("it is held", "ask your administrator why", False, True)),
    (
        r"(Assoc|QOS)Grp.*Minutes.*|(Assoc|QOS)Max.*Minutes.*",
        Reason("it would exceed the TRES minutes of its account or QOS", _LIMIT),
    ),
    (
        r"(Assoc|QOS|Max).*(PerUser|PerAccount|PU|PA|Grp|Jobs?Limit|SubmitJob).*|(Assoc|QOS)Grp.*",
        Reason("other jobs have reached a limit of its account or QOS", _LIMIT, is_usual=True),
    ),
    (r"(Assoc|QOS|Max).*", Reason("it requests more than its account or QOS allows", _LIMIT)),
    (
        r"ReqNodeNotAvail.*|Nodes? required.*|NodeDown|.*UnavailableNodes.*|.*DRAINED.*",
        Reason(
            "the nodes that it needs are down, drained or reserved",
            "sinfo --list-reasons shows why; choose another partition, or ask your administrator",
        ),
    ),
    (r"Reservation.*", Reason("its reservation has not started, or is not yours", "")),
    (r"Licenses.*|BurstBuffer.*", Reason("it waits for a licence or a burst buffer", "", True)),
)


def reason_of(text: str) -> Reason:
    """Return the explanation of one of Slurm's reasons."""
    for pattern, reason in _REASONS:
        if re.fullmatch(pattern, text, re.IGNORECASE):
            return reason
    return Reason("see JOB REASON CODES in man squeue", "ask your administrator")


def check_wait(job: str, state: JobState, waited: float) -> Finding:
    """Report a job that did not start in time and was cancelled."""
    reason = reason_of(state.reason)
    message = f"job {job} did not start within {waited:.0f} s and was cancelled"
    if state.reason not in ("", "None"):
        message += f"; its reason was {state.reason}: {reason.meaning}"
    if reason.is_usual:
        return warning("start", message, reason.hint or "wait longer with --wait")
    return problem("start", message, reason.hint)


def check_start(job: str, state: JobState) -> Finding:
    """Report how long a job was pending before it started."""
    if state.started is None or state.submitted is None:
        return ok("start", f"job {job} started")
    seconds = max(0.0, state.started - state.submitted)
    return ok("start", f"job {job} started after {seconds:.0f} s")


_FORECAST = re.compile(r"Job \d+ to start at (\S+) using .*? on nodes? (\S+)")
_REFUSALS = (
    ("partition", "choose another --partition; sinfo lists them"),
    ("account", "choose another --account; sacctmgr show assoc user=$USER lists yours"),
    ("qos", "remove the QOS, or choose another one"),
    ("gres", "sinfo -o '%P %G' lists all gres"),
    ("time limit", "set a shorter --walltime"),
    ("node configuration", "no node has all of this at once: see sinfo -o '%P %c %m %G %f'"),
    ("memory", "reduce --memory, or increase --cores"),
    ("constraint", "sinfo -o '%P %f' lists the features of nodes"),
    ("feature", "sinfo -o '%P %f' lists the features of nodes"),
)


def check_forecast(printed: str, now: float) -> Finding:
    """Report what ``sbatch --test-only`` printed for a job that it accepts."""
    match = _FORECAST.search(printed)
    start = None if match is None else _time(match[1])
    if match is None or start is None:
        return ok("request", "Slurm would accept this job")
    wait = start - now
    if wait > 365 * 86400:  # it waits for a job without a time limit
        return ok("request", "Slurm would accept this job, but cannot predict its start")
    if wait > FAR_SECONDS:
        message = f"Slurm would accept this job and start it in about {wait / 3600:.0f} hours"
        return warning("request", message, "a shorter --walltime or fewer GPUs may start sooner")
    when = f"in about {wait / 60:.0f} minutes" if wait > 90 else "at once"
    return ok("request", f"Slurm would accept this job and start it {when}, on {match[2]}")


def check_refusal(printed: str) -> Finding:
    """Report what ``sbatch`` printed for a job that it rejects."""
    lines = [re.sub(r"^(sbatch: )?(error|fatal): ", "", line) for line in printed.splitlines()]
    message = "; ".join(line.strip() for line in lines if line.strip())
    hint = next((hint for word, hint in _REFUSALS if word in message.lower()), "")
    return problem("request", f"Slurm rejects this job: {message or 'it gives no reason'}", hint)


def _time(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:  # "Unknown", "N/A"
        return None
