"""Checks of a request: Slurm judges it, and its lists say what there is instead.

Slurm accepts some jobs that never start: it is asked for the limits and the nodes as well.
"""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from daskhpo.cluster.doctor.finding import Finding, ok, problem, skipped, warning
from daskhpo.cluster.doctor.job_request import JobRequest
from daskhpo.cluster.times import parse_slurm_time, slurm_time

SINFO_FORMAT = "%P|%a|%l|%L|%D|%T|%G"
ASSOCIATION_FORMAT = "DefaultAccount,Account,QOS,DefaultQOS,MaxWall"
QOS_FORMAT = "Name,MaxWall"
WORKING = {"idle", "mixed", "allocated", "completing", "planned", "reserved", "blocked"}
FAR_SECONDS = 24 * 3600.0
REFUSALS = (  # a word of the message, the check that it belongs to, and what to do
    ("qos policy", "qos", "see sacctmgr show assoc user=$USER and sacctmgr show qos"),
    ("account", "account", "choose another --account, or --partition; {accounts}"),
    ("group", "partition", "choose another --partition; scontrol show partition lists the groups"),
    ("partition", "partition", "choose another --partition; sinfo lists them"),
    ("qos", "qos", "remove the QOS, or choose another one; {qos}"),
    ("gres", "gres", "sinfo -o '%P %G' lists all gres"),
    ("time limit", "walltime", "set a shorter --walltime"),
    ("node config", "request", "no node has all of this at once: see sinfo -o '%P %c %m %G %f'"),
    ("memory", "request", "reduce --memory, or increase --cores"),
    ("constraint", "request", "sinfo -o '%P %f' lists the features of nodes"),
    ("feature", "request", "sinfo -o '%P %f' lists the features of nodes"),
)


class Nodes(NamedTuple):
    """Nodes of one partition, state and kind, as ``sinfo`` prints them.

    Attributes
    ----------
    partition : its name, with ``*`` behind that of the default one.
    available : ``"up"``, or why it takes or starts no jobs.
    limit, default : longest walltime, and that of jobs that name none.
    """

    partition: str
    available: str
    limit: str
    default: str
    n_nodes: str
    state: str
    gres: str

    @property
    def name(self) -> str:
        return self.partition.rstrip("*")

    @property
    def size(self) -> int:
        return int(self.n_nodes)

    @property
    def is_working(self) -> bool:
        """True if these nodes run jobs, now or when their current jobs end."""
        # "idle*": not responding. Other suffixes mean power saving, maintenance or a reboot.
        return self.state.rstrip("~#%$@^-!+").lower() in WORKING

    def offers(self, device: str, count: int) -> bool:
        """Return True if each node has so many of a device: ``"gpu"`` or ``"gpu:a100"``."""
        pattern = rf"(?:^|,){re.escape(device)}(?::[^:,(]+)?:(\d+)"
        return sum(map(int, re.findall(pattern, self.gres, re.IGNORECASE))) >= count


def parse_sinfo(text: str) -> list[Nodes]:
    """Parse the output of ``sinfo --noheader --format`` with :data:`SINFO_FORMAT`."""
    rows = [line.strip().split("|") for line in text.splitlines()]
    return [Nodes(*row) for row in rows if len(row) == 7 and row[4].isdecimal()]


def chosen(nodes: Iterable[Nodes], queue: str | None) -> list[Nodes]:
    """Return the nodes of a job's partitions; None: of the default one."""
    if queue is None:
        return [group for group in nodes if group.partition.endswith("*")]
    return [group for group in nodes if group.name in queue.split(",")]


def check_partition(nodes: Sequence[Nodes], queue: str | None) -> Finding:
    """Check that the partition exists and is up."""
    check, there = "partition", list(dict.fromkeys(group.name for group in nodes))
    for name in queue.split(",") if queue else ():
        if name not in there:
            near = difflib.get_close_matches(name, there, n=3)
            hint = f"did you mean {_some(near)}?" if near else f"choose one of {_some(there)}"
            return problem(check, f"there is no partition {name!r}", hint)
    found, hint = chosen(nodes, queue), f"choose a --partition: {_some(there)}"
    if not found:
        message = "no partition was given, and this site has no default partition"
        return problem(check, message, hint)
    for group in found:
        if group.available != "up":
            return problem(check, f"{group.name} is in state {group.available}", hint)
    return ok(check, f"{queue or f'{found[0].name} (the default)'} is up")


def check_walltime(
    nodes: Sequence[Nodes], request: JobRequest, others: Mapping[str, float]
) -> Finding:
    """Check that the walltime is within all limits; Slurm may never start others.

    Parameters
    ----------
    others : limits besides the partition's, in seconds, by the name of who sets them.
    """
    check, of = "walltime", {}
    for group in chosen(nodes, request.queue):
        if (limit := seconds_of_limit(group.limit)) is not None:
            of[group.name] = (limit, seconds_of_limit(group.default))
    if not of:
        return skipped(check, "Slurm does not report the time limit of jobs")
    partition = max(of, key=lambda name: of[name][0])
    most, default = of[partition]
    name, most = min([(partition, most), *others.items()], key=lambda pair: pair[1])
    if request.seconds is None:
        default = most if default is None else default
        shown = "have no time limit" if math.isinf(default) else f"get {clock(default)} by default"
        allowed = "" if math.isinf(most) else f", and at most {clock(most)}"
        return ok(check, f"no walltime was given; jobs in {partition} {shown}{allowed}")
    asked = clock(request.seconds)
    if request.seconds > most:
        hint = f"set --walltime {clock(most)} or less; studies continue in the next job"
        return problem(check, f"{asked} is more than the {clock(most)} that {name} allows", hint)
    if math.isinf(most):
        return ok(check, f"{asked}; {name} has no time limit")
    return ok(check, f"{asked} of at most {clock(most)}")


def check_nodes(nodes: Sequence[Nodes], request: JobRequest) -> Finding:
    """Check that nodes of the partition have the requested devices, and run jobs."""
    mine = chosen(nodes, request.queue)
    check, where = "gres" if request.devices else "nodes", _some(sorted({n.name for n in mine}))
    asked = ",".join(f"{device}:{count}" for device, count in request.devices)
    offering = [n for n in nodes if n.size and all(n.offers(*one) for one in request.devices)]
    fitting = [group for group in mine if group in offering]
    if not fitting:
        if not sum(group.size for group in mine):
            return problem(check, f"{where} has no nodes", "choose another --partition")
        offers = Counter[str]()
        for group in mine:
            offers[re.sub(r"\(.*?\)", "", group.gres) or "none"] += group.size
        found = "; ".join(f"{offer} on {_nodes(n)}" for offer, n in offers.most_common(6))
        others = sorted({group.name for group in offering})
        hint = f"{asked} is in {_some(others)}" if others else "sinfo -o '%P %D %G' lists all gres"
        return problem(check, f"no node of {where} has {asked}; available: {found}", hint)
    states = Counter[str]()
    for group in fitting:
        states[group.state] += group.size
    in_states = ", ".join(f"{count} {state}" for state, count in states.most_common())
    message = f"{asked}: " * bool(asked) + f"{_nodes(states.total())} ({in_states})"
    if not any(group.is_working for group in fitting):
        return problem("nodes", f"{message}: none runs jobs", "sinfo --list-reasons shows why")
    if not any(group.is_working and group.state.startswith(("idle", "mixed")) for group in fitting):
        return warning("nodes", f"{message}: all are busy", "jobs will wait in the queue")
    return ok(check, message)


@dataclass(frozen=True)
class Accounts:
    """Accounts of a user, as ``sacctmgr --parsable2`` prints them.

    Attributes
    ----------
    rows : an association each, in the columns of :data:`ASSOCIATION_FORMAT`.
    max_wall : longest walltimes of QOS, in seconds.
    """

    rows: Sequence[Sequence[str]] = ()
    max_wall: Mapping[str, float] = field(default_factory=dict)

    @staticmethod
    def parse(associations: str, qualities: str) -> Accounts:
        limits = (line.split("|") for line in qualities.splitlines() if line.count("|") == 1)
        seconds = {name: seconds_of_limit(limit) for name, limit in limits}
        rows = [line.split("|") for line in associations.splitlines() if line.count("|") == 4]
        return Accounts(rows, {n: limit for n, limit in seconds.items() if limit is not None})

    def account(self, request: JobRequest) -> str:
        """Return the account that a job is charged to; empty: none, or not known."""
        return request.account or next((row[0] for row in self.rows), "")

    def qos(self, request: JobRequest) -> str:
        """Return the QOS of a job; empty: none, or not known."""
        return request.qos or next((row[3] for row in self._of(request) if row[3]), "")

    def limits(self, request: JobRequest, partition_qos: Sequence[str]) -> dict[str, float]:
        """Return the limits of a job's walltime by who sets them: QOS and account."""
        own = [limit for row in self._of(request) if (limit := seconds_of_limit(row[4]))]
        names = (self.qos(request), *partition_qos)
        found = {name: self.max_wall[name] for name in names if name in self.max_wall}
        return found | ({"your account": min(own)} if own else {})

    def hint(self, text: str) -> str:
        """Fill in a hint: names of accounts and QOS that the user may use."""
        accounts = dict.fromkeys(row[1] for row in self.rows if row[1])
        qos = dict.fromkeys(name for row in self.rows for name in row[2].split(",") if name)
        return text.format(
            accounts=f"yours are {', '.join(accounts)}" if accounts else "sacctmgr lists yours",
            qos=f"you may use {', '.join(qos)}" if qos else "sacctmgr show qos lists them",
        )

    def _of(self, request: JobRequest) -> list[Sequence[str]]:
        return [row for row in self.rows if row[1] == self.account(request).lower()]


def check_access(partition: Mapping[str, str], account: str, qos: str) -> Finding | None:
    """Check who may use a partition; Slurm may never start the jobs of others.

    Parameters
    ----------
    partition : fields of ``scontrol show partition``.
    account, qos : those of the job; empty: not known.
    """
    for check, name, kind in (("account", account, "Accounts"), ("qos", qos, "Qos")):
        allowed, denied = partition.get(f"Allow{kind}", "ALL"), partition.get(f"Deny{kind}", "")
        is_allowed = allowed == "ALL" or name.lower() in allowed.lower().split(",")
        if name and (not is_allowed or name.lower() in denied.lower().split(",")):
            hint = f"it allows {allowed}" if denied == "" else f"it denies {denied}"
            message = f"partition {partition['PartitionName']} does not allow the {check} {name}"
            return problem(check, message, hint)
    return None


def check_forecast(printed: str, now: float, account: str = "", qos: str = "") -> Finding:
    """Report what ``sbatch --test-only`` printed for a job that it accepts."""
    match = re.search(r"Job \d+ to start at (\d\S*) using .*? on nodes? (\S+)", printed)
    terms = ", ".join(filter(None, (account and f"account {account}", qos and f"QOS {qos}")))
    accepted = "Slurm would accept this job" + (f" ({terms})" if terms else "")
    if match is None:
        return ok("request", accepted)
    wait = datetime.fromisoformat(match[1]).timestamp() - now
    if wait > 365 * 86400:  # it waits for a job without a time limit
        return ok("request", f"{accepted}, but cannot predict its start")
    if wait > FAR_SECONDS:
        message = f"{accepted} and start it in about {wait / 3600:.0f} hours"
        return warning("request", message, "a shorter --walltime or fewer GPUs may start sooner")
    when = f"in about {wait / 60:.0f} minutes" if wait > 90 else "at once"
    return ok("request", f"{accepted} and start it {when}, on {match[2]}")


def check_refusal(printed: str, accounts: Accounts) -> Finding:
    """Report what ``sbatch`` printed for a job that it rejects."""
    lines = [re.sub(r"^(sbatch: )?(error|fatal): ", "", line) for line in printed.splitlines()]
    message = "; ".join(line.strip() for line in lines if line.strip())
    found = (row[1:] for row in REFUSALS if row[0] in message.lower())
    check, hint = next(found, ("request", ""))
    message = f"Slurm rejects this job: {message or 'it gives no reason'}"
    return problem(check, message, accounts.hint(hint))


def seconds_of_limit(text: str) -> float | None:
    """Convert a time limit to seconds; infinite: no limit; None: not known."""
    return math.inf if text.lower() in ("unlimited", "infinite") else parse_slurm_time(text)


def clock(seconds: float) -> str:
    """Format seconds for users, in a form that Slurm accepts too.

    >>> clock(14400), clock(90000)
    ('04:00:00', '1-01:00:00')
    """
    return "UNLIMITED" if math.isinf(seconds) else slurm_time(seconds).removeprefix("0-")


def _nodes(count: int) -> str:
    return f"{count} node{'s' * (count != 1)}"


def _some(names: Sequence[str], most: int = 8) -> str:
    shown = ", ".join(names[:most])
    return f"{shown}, ..." if len(names) > most else shown
