"""What the queue says of a job: where it stands, why it waits, and what to do about it."""

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
    """A job, as ``scontrol show job`` tells.

    Attributes
    ----------
    state, reason : in Slurm's words; the reason with blanks.
    submitted, started : seconds of this place's time; None: not yet, or Slurm does not say.
    exit_code : of its script, and the signal that ended it: ``"0:0"``.
    nodes : where it runs, or ran.
    """

    state: str
    reason: str = ""
    submitted: float | None = None
    started: float | None = None
    exit_code: str = "0:0"
    nodes: str = ""

    @property
    def waits(self) -> bool:
        """Whether it has not begun."""
        return self.state in ("PENDING", "CONFIGURING")

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come from it."""
        return self.state not in _LIVING


GONE = JobState("UNKNOWN", "Slurm knows nothing of it any more")


def parse_job(text: str) -> JobState:
    """What ``scontrol --oneliner show job`` printed of one job."""
    for told in records(text):
        if "JobState" in told:
            state = told["JobState"]
            return JobState(
                state=state,
                reason=told.get("Reason", "").replace("_", " "),
                submitted=_time(told.get("SubmitTime", "")),
                # of a job that waits it is a forecast
                started=None if state == "PENDING" else _time(told.get("StartTime", "")),
                exit_code=told.get("ExitCode", "0:0"),
                nodes=told.get("NodeList", "").replace("(null)", ""),
            )
    return GONE


@dataclass(frozen=True)
class Reason:
    """Why a job waits.

    Attributes
    ----------
    meaning, hint : for people.
    is_usual : it starts when it is its turn.
    is_hopeless : it will not start however long one waits.
    """

    meaning: str
    hint: str
    is_usual: bool = False
    is_hopeless: bool = False


_BUSY = "the queue is busy"
_LIMIT = "see sacctmgr show assoc user=$USER, sacctmgr show qos, or ask the site's staff"
_REASONS: tuple[tuple[str, Reason], ...] = (
    (r"Priority|Resources|None|", Reason(_BUSY, "wait longer with --wait", is_usual=True)),
    (r"BeginTime|Dependency|Cleaning|Prolog", Reason("Slurm holds it back for a while", "", True)),
    (
        r"PartitionTimeLimit|.*(Max|Limit)?Wall.*PerJob.*",
        Reason("it asks for more time than it may", "ask for a shorter --walltime", False, True),
    ),
    (
        r"PartitionNodeLimit|PartitionDown|PartitionInactive|PartitionConfig",
        Reason("the partition cannot run it", "see scontrol show partition", False),
    ),
    (
        r"BadConstraints|FedJobLock|NodeNotFound",
        Reason("no node will ever fit it", "see the directives that were given", False, True),
    ),
    (
        r"InvalidAccount|AccountNotAllowed|.*Account.*NotAllowed",
        Reason("the account may not be charged there", "name another --account", False, True),
    ),
    (
        r"InvalidQOS|QOSNotAllowed|QOSUsageThreshold|QOSUnknown",
        Reason("the quality of service may not be used there", "name another one", False, True),
    ),
    (r"JobHeld.*", Reason("it is held", "ask the site's staff why", False, True)),
    (
        r"(Assoc|QOS)Grp.*Minutes.*|(Assoc|QOS)Max.*Minutes.*",
        Reason("the time of the account or QOS is used up, or would be", _LIMIT),
    ),
    (
        r"(Assoc|QOS|Max).*(PerUser|PerAccount|PU|PA|Grp|Jobs?Limit|SubmitJob).*|(Assoc|QOS)Grp.*",
        Reason("others of its account or QOS take all that it may have", _LIMIT, is_usual=True),
    ),
    (r"(Assoc|QOS|Max).*", Reason("it asks for more than its account or QOS allows", _LIMIT)),
    (
        r"ReqNodeNotAvail.*|Nodes? required.*|NodeDown|.*UnavailableNodes.*|.*DRAINED.*",
        Reason(
            "the nodes that it needs are down, drained or reserved",
            "sinfo --list-reasons says why; choose another partition, or ask the site's staff",
        ),
    ),
    (r"Reservation.*", Reason("its reservation has not begun, or is not yours", "")),
    (r"Licenses.*|BurstBuffer.*", Reason("it waits for a licence or a buffer", "", True)),
)


def reason_of(text: str) -> Reason:
    """What a reason of Slurm's means."""
    for pattern, reason in _REASONS:
        if re.fullmatch(pattern, text, re.IGNORECASE):
            return reason
    return Reason("see squeue's manual", "ask the site's staff")


def check_wait(job: str, state: JobState, waited: float) -> Finding:
    """A job that did not start in time, and was cancelled."""
    reason = reason_of(state.reason)
    message = f"job {job} did not start within {waited:.0f} s and was cancelled"
    if state.reason not in ("", "None"):
        message += f"; its reason was {state.reason}: {reason.meaning}"
    if reason.is_usual:
        return warning("start", message, reason.hint or "wait longer with --wait")
    return problem("start", message, reason.hint)


def check_start(job: str, state: JobState) -> Finding:
    """How long a job that has started waited for that."""
    if state.started is None or state.submitted is None:
        return ok("start", f"job {job} started")
    seconds = max(0.0, state.started - state.submitted)
    return ok("start", f"job {job} started after {seconds:.0f} s")


_FORECAST = re.compile(r"Job \d+ to start at (\S+) using .*? on nodes? (\S+)")
_REFUSALS = (
    ("partition", "name another --partition, see sinfo"),
    ("account", "name another --account; sacctmgr show assoc user=$USER shows yours"),
    ("qos", "leave the quality of service out, or name another one"),
    ("gres", "see sinfo -o '%P %G' for what there is"),
    ("time limit", "ask for a shorter --walltime"),
    ("node configuration", "no node has all that at once: see sinfo -o '%P %c %m %G %f'"),
    ("memory", "ask for less --memory, or more --cores"),
    ("constraint", "see sinfo -o '%P %f' for features that there are"),
    ("feature", "see sinfo -o '%P %f' for features that there are"),
)


def check_forecast(printed: str, now: float) -> Finding:
    """What ``sbatch --test-only`` said of a job that it would take."""
    match = _FORECAST.search(printed)
    start = None if match is None else _time(match[1])
    if match is None or start is None:
        return ok("request", "Slurm would take such a job")
    wait = start - now
    if wait > 365 * 86400:  # it waits for one without a time limit
        return ok("request", "Slurm would take such a job, and cannot say when it would start")
    if wait > FAR_SECONDS:
        message = f"Slurm would take such a job and start it in about {wait / 3600:.0f} hours"
        return warning("request", message, "a shorter --walltime or fewer GPUs may start sooner")
    when = f"in about {wait / 60:.0f} minutes" if wait > 90 else "at once"
    return ok("request", f"Slurm would take such a job and start it {when}, on {match[2]}")


def check_refusal(printed: str) -> Finding:
    """What ``sbatch`` said of a job that it does not take."""
    lines = [re.sub(r"^(sbatch: )?(error|fatal): ", "", line) for line in printed.splitlines()]
    message = "; ".join(line.strip() for line in lines if line.strip())
    hint = next((hint for word, hint in _REFUSALS if word in message.lower()), "")
    return problem("request", f"Slurm refuses such a job: {message or 'it does not say why'}", hint)


def _time(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:  # "Unknown", "N/A"
        return None
