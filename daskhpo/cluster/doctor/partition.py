"""Checks of the partition: its state, its time limit, its nodes and their devices."""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from daskhpo.cluster.doctor.fields import clock, records, rows, seconds_of_limit
from daskhpo.cluster.doctor.finding import Finding, ok, problem, skipped, warning
from daskhpo.cluster.doctor.job_request import Gres, JobRequest, parse_gres

SINFO = ("partition", "count", "state", "gres", "nodes")
SINFO_FORMAT = "%P|%D|%T|%G|%N"
_WORKING = {"idle", "mixed", "allocated", "completing", "planned", "reserved", "blocked"}


@dataclass(frozen=True)
class Partition:
    """A partition, as ``scontrol show partition`` prints it.

    Attributes
    ----------
    max_seconds : time limit of jobs; infinite: none; None: not known.
    default_seconds : walltime of a job that names none; None: ``max_seconds``.
    allowed : names, in lower case, of the ``groups``, ``accounts`` and ``qos`` that may use it;
        None: all.
    denied : accounts that may not use it, in lower case.
    qos : the partition's QOS, whose limits apply to all its jobs; empty: none.
    """

    name: str
    state: str
    is_default: bool
    max_seconds: float | None
    default_seconds: float | None
    allowed: dict[str, set[str] | None]
    denied: set[str]
    qos: str


@dataclass(frozen=True)
class Nodes:
    """Nodes of a partition with the same state and the same devices."""

    partition: str
    count: int
    state: str
    gres: tuple[Gres, ...]
    names: str

    @property
    def is_working(self) -> bool:
        """True if these nodes run jobs, now or when their current jobs end."""
        # "idle*": not responding. Other suffixes mean power saving, maintenance or a reboot.
        words = re.findall(r"[a-z_]+", self.state.lower())
        return "*" not in self.state and bool(words) and words[0] in _WORKING and len(words) == 1

    def offers(self, request: Gres) -> bool:
        """Return True if each node has the requested devices."""
        alike = [have for have in self.gres if have.name == request.name]
        if request.type:
            alike = [have for have in alike if have.type.lower() == request.type.lower()]
        return sum(have.count for have in alike) >= request.count


def parse_partitions(text: str) -> list[Partition]:
    """Parse the output of ``scontrol --oneliner show partition``."""
    return [
        Partition(
            name=fields["PartitionName"],
            state=fields.get("State", ""),
            is_default=fields.get("Default") == "YES",
            max_seconds=seconds_of_limit(fields.get("MaxTime", "")),
            default_seconds=seconds_of_limit(fields.get("DefaultTime", "")),
            allowed={
                "groups": _names(fields.get("AllowGroups", "ALL")),
                "accounts": _names(fields.get("AllowAccounts", "ALL")),
                "qos": _names(fields.get("AllowQos", "ALL")),
            },
            denied=_names(fields.get("DenyAccounts", "")) or set(),
            qos=fields.get("QoS", "N/A").replace("N/A", ""),
        )
        for fields in records(text)
        if "PartitionName" in fields
    ]


def parse_nodes(text: str) -> list[Nodes]:
    """Parse the output of ``sinfo --noheader --format`` with :data:`SINFO_FORMAT`."""
    return [
        Nodes(
            row["partition"].rstrip("*"),
            int(row["count"]),
            row["state"],
            _gres(row["gres"]),
            row["nodes"],
        )
        for row in rows(text, SINFO)
        if row["count"].isdecimal()
    ]


def chosen(partitions: Sequence[Partition], queue: str | None) -> list[Partition]:
    """Return the partitions that a job requests; ``queue`` None: the site's default."""
    if queue is None:
        return [partition for partition in partitions if partition.is_default]
    names = queue.split(",")
    return [partition for partition in partitions if partition.name in names]


def check_partition(
    partitions: Sequence[Partition], queue: str | None, groups: Sequence[str]
) -> Finding:
    """Check that the partition exists, is up, and allows one of the user's groups."""
    there = [partition.name for partition in partitions]
    found = chosen(partitions, queue)
    if queue is None:
        if not found:
            hint = f"choose a --partition: {_some(there)}"
            return problem(
                "partition", "no partition was given, and this site has no default partition", hint
            )
        shown = f"{found[0].name} (the default)"
    else:
        for name in queue.split(","):
            if name not in there:
                near = difflib.get_close_matches(name, there, n=3)
                hint = f"did you mean {_some(near)}?" if near else f"choose one of {_some(there)}"
                return problem("partition", f"there is no partition {name!r}", hint)
        shown = queue
    for partition in found:
        if partition.state != "UP":
            hint = f"choose another --partition: {_some(there)}"
            return problem("partition", f"{partition.name} is in state {partition.state}", hint)
        allowed = partition.allowed["groups"]
        if allowed is not None and not allowed & {group.lower() for group in groups}:
            message = (
                f"{partition.name} allows only the groups {_some(sorted(allowed))}, and you are in "
                f"{_some(groups) or 'none'}"
            )
            return problem("partition", message, "choose another --partition")
    return ok("partition", f"{shown} is up")


def check_walltime(partitions: Sequence[Partition], request: JobRequest) -> Finding:
    """Check that the partition allows the requested walltime."""
    found = [p for p in chosen(partitions, request.queue) if p.max_seconds is not None]
    if not found:
        return skipped("walltime", "Slurm does not report the time limit of jobs")
    most = max(found, key=lambda partition: partition.max_seconds or 0.0)
    assert most.max_seconds is not None
    longest = clock(most.max_seconds)
    if request.seconds is None:
        default = most.max_seconds if most.default_seconds is None else most.default_seconds
        if math.isinf(default):
            return ok("walltime", f"no walltime was given, and {most.name} has no time limit")
        message = f"no walltime was given; jobs in {most.name} get {clock(default)} by default"
        return ok("walltime", f"{message}, and at most {longest}")
    asked = clock(request.seconds)
    if request.seconds > most.max_seconds:
        message = f"{asked} is more than the {longest} that {most.name} allows"
        hint = f"set --walltime {longest} or less; studies continue in the next job"
        return problem("walltime", message, hint)
    if math.isinf(most.max_seconds):
        return ok("walltime", f"{asked}; {most.name} has no time limit")
    return ok("walltime", f"{asked} of at most {longest}")


def check_devices(
    nodes: Sequence[Nodes], partitions: Sequence[Partition], request: JobRequest
) -> Finding:
    """Check that nodes of the partition have the requested devices, and run jobs."""
    names = {partition.name for partition in chosen(partitions, request.queue)}
    mine = [group for group in nodes if group.partition in names]
    check = "gres" if request.devices else "nodes"
    asked = ",".join(str(gres) for gres in request.devices)
    fitting = [group for group in mine if all(group.offers(gres) for gres in request.devices)]
    if not fitting:
        where = _some(sorted(names))
        if not mine:
            return problem(check, f"{where} has no nodes", "choose another --partition")
        offers = Counter[str]()
        for group in mine:
            offers[",".join(map(str, group.gres)) or "none"] += group.count
        found = "; ".join(f"{offer} on {_nodes(n)}" for offer, n in offers.most_common(6))
        others = sorted({g.partition for g in nodes if all(map(g.offers, request.devices))})
        hint = f"{asked} is in {_some(others)}" if others else "sinfo -o '%P %D %G' lists all gres"
        return problem(check, f"no node of {where} has {asked}; available: {found}", hint)
    states = Counter[str]()
    for group in fitting:
        states[group.state] += group.count
    in_states = ", ".join(f"{count} {state}" for state, count in states.most_common())
    message = f"{asked}: " * bool(asked) + f"{_nodes(states.total())} ({in_states})"
    if not any(group.is_working for group in fitting):
        return problem("nodes", f"{message}: none runs jobs", "sinfo --list-reasons shows why")
    if not any(group.is_working and group.state.startswith(("idle", "mixed")) for group in fitting):
        return warning("nodes", f"{message}: all are busy", "jobs will wait in the queue")
    return ok(check, message)


def _gres(text: str) -> tuple[Gres, ...]:
    """Parse ``"gpu:a100:4(S:0-1),nvme:1"``; ``"(null)"``: none."""
    if text.strip() in ("", "(null)", "N/A"):
        return ()
    parts = re.sub(r"\([^)]*\)", "", text).split(",")
    found = []
    for part in parts:
        try:
            found.append(parse_gres(part))
        except ValueError:
            continue  # a resource that no trial requests
    return tuple(found)


def _names(text: str) -> set[str] | None:
    if text in ("ALL", ""):
        return None
    return {name.lower() for name in text.split(",")}


def _nodes(count: int) -> str:
    return f"{count} node{'s' * (count != 1)}"


def _some(names: Sequence[str], most: int = 8) -> str:
    shown = ", ".join(names[:most])
    return f"{shown}, ..." if len(names) > most else shown
