"""Whether a partition is there and up, has the requested devices, and time enough."""

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
    """A partition, as ``scontrol show partition`` tells.

    Attributes
    ----------
    max_seconds : longest walltime; None: Slurm does not say.
    default_seconds : walltime of a job that names none; None: the longest.
    allowed : per ``groups``, ``accounts`` and ``qos`` who may use it, in lower case; None: all.
    denied : accounts that may not.
    qos : whose limits all its jobs have; empty if none.
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
    """Nodes of a partition that are alike."""

    partition: str
    count: int
    state: str
    gres: tuple[Gres, ...]
    names: str

    @property
    def is_working(self) -> bool:
        """Whether they run jobs, now or when those that run there are over."""
        # "idle*": it does not answer. Other marks tell of power saving, maintenance or reboots.
        words = re.findall(r"[a-z_]+", self.state.lower())
        return "*" not in self.state and bool(words) and words[0] in _WORKING and len(words) == 1

    def offers(self, request: Gres) -> bool:
        """Whether one of them has that many."""
        alike = [have for have in self.gres if have.name == request.name]
        if request.type:
            alike = [have for have in alike if have.type.lower() == request.type.lower()]
        return sum(have.count for have in alike) >= request.count


def parse_partitions(text: str) -> list[Partition]:
    """What ``scontrol --oneliner show partition`` printed."""
    return [
        Partition(
            name=told["PartitionName"],
            state=told.get("State", ""),
            is_default=told.get("Default") == "YES",
            max_seconds=seconds_of_limit(told.get("MaxTime", "")),
            default_seconds=seconds_of_limit(told.get("DefaultTime", "")),
            allowed={
                "groups": _names(told.get("AllowGroups", "ALL")),
                "accounts": _names(told.get("AllowAccounts", "ALL")),
                "qos": _names(told.get("AllowQos", "ALL")),
            },
            denied=_names(told.get("DenyAccounts", "")) or set(),
            qos=told.get("QoS", "N/A").replace("N/A", ""),
        )
        for told in records(text)
        if "PartitionName" in told
    ]


def parse_nodes(text: str) -> list[Nodes]:
    """What ``sinfo --noheader --format`` printed of :data:`SINFO_FORMAT`."""
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
    """The partitions that a job would name, one or several; by default the site's default."""
    if queue is None:
        return [partition for partition in partitions if partition.is_default]
    names = queue.split(",")
    return [partition for partition in partitions if partition.name in names]


def check_partition(
    partitions: Sequence[Partition], queue: str | None, groups: Sequence[str]
) -> Finding:
    """Whether the partition is there, up, and open to one of the user's groups."""
    there = [partition.name for partition in partitions]
    found = chosen(partitions, queue)
    if queue is None:
        if not found:
            hint = f"name one by --partition: {_some(there)}"
            return problem("partition", "none was named, and this site has no default", hint)
        shown = f"{found[0].name} (the default)"
    else:
        for name in queue.split(","):
            if name not in there:
                near = difflib.get_close_matches(name, there, n=3)
                hint = f"did you mean {_some(near)}?" if near else f"there are {_some(there)}"
                return problem("partition", f"there is no partition {name!r}", hint)
        shown = queue
    for partition in found:
        if partition.state != "UP":
            hint = f"choose another one: {_some(there)}"
            return problem("partition", f"{partition.name} is {partition.state}", hint)
        allowed = partition.allowed["groups"]
        if allowed is not None and not allowed & {group.lower() for group in groups}:
            message = (
                f"{partition.name} is for the groups {_some(sorted(allowed))}, and you are in "
            )
            return problem("partition", message + (_some(groups) or "none"), "choose another one")
    return ok("partition", f"{shown} is up")


def check_walltime(partitions: Sequence[Partition], request: JobRequest) -> Finding:
    """Whether a job may be as long as requested."""
    found = [p for p in chosen(partitions, request.queue) if p.max_seconds is not None]
    if not found:
        return skipped("walltime", "Slurm does not say how long jobs may be")
    most = max(found, key=lambda partition: partition.max_seconds or 0.0)
    assert most.max_seconds is not None
    longest = clock(most.max_seconds)
    if request.seconds is None:
        default = most.max_seconds if most.default_seconds is None else most.default_seconds
        if math.isinf(default):
            return ok("walltime", f"none was named, and {most.name} has no limit")
        message = f"none was named; jobs in {most.name} get {clock(default)}"
        return ok("walltime", f"{message}, and at most {longest}")
    asked = clock(request.seconds)
    if request.seconds > most.max_seconds:
        message = f"{asked} is more than the {longest} that {most.name} allows"
        return problem("walltime", message, f"ask for --walltime {longest} or less; studies go on")
    if math.isinf(most.max_seconds):
        return ok("walltime", f"{asked}; {most.name} has no limit")
    return ok("walltime", f"{asked} of {longest}")


def check_devices(
    nodes: Sequence[Nodes], partitions: Sequence[Partition], request: JobRequest
) -> Finding:
    """Whether nodes of the partition have the requested devices, and are in order."""
    names = {partition.name for partition in chosen(partitions, request.queue)}
    mine = [group for group in nodes if group.partition in names]
    check = "gres" if request.devices else "nodes"
    asked = ",".join(str(gres) for gres in request.devices)
    fitting = [group for group in mine if all(group.offers(gres) for gres in request.devices)]
    if not fitting:
        where = _some(sorted(names))
        if not mine:
            return problem(check, f"{where} has no nodes", "choose another partition")
        offers = Counter[str]()
        for group in mine:
            offers[",".join(map(str, group.gres)) or "nothing"] += group.count
        told = "; ".join(f"{offer} on {_nodes(n)}" for offer, n in offers.most_common(6))
        others = sorted({g.partition for g in nodes if all(map(g.offers, request.devices))})
        hint = f"{asked} is in {_some(others)}" if others else "see sinfo -o '%P %D %G'"
        return problem(check, f"no node of {where} has {asked}; there is {told}", hint)
    states = Counter[str]()
    for group in fitting:
        states[group.state] += group.count
    stand = ", ".join(f"{count} {state}" for state, count in states.most_common())
    told = f"{asked}: " * bool(asked) + f"{_nodes(states.total())} ({stand})"
    if not any(group.is_working for group in fitting):
        return problem("nodes", f"{told}: none runs jobs", "sinfo --list-reasons says why")
    if not any(group.is_working and group.state.startswith(("idle", "mixed")) for group in fitting):
        return warning("nodes", f"{told}: all are busy", "jobs will wait in the queue")
    return ok(check, told)


def _gres(text: str) -> tuple[Gres, ...]:
    """``"gpu:a100:4(S:0-1),nvme:1"``; ``"(null)"`` is nothing."""
    if text.strip() in ("", "(null)", "N/A"):
        return ()
    parts = re.sub(r"\([^)]*\)", "", text).split(",")
    found = []
    for part in parts:
        try:
            found.append(parse_gres(part))
        except ValueError:
            continue  # something that no trial asks for
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
