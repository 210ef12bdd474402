"""Whether an account and a quality of service may be used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from daskhpo.cluster.doctor.fields import clock, rows, seconds_of_limit
from daskhpo.cluster.doctor.finding import Finding, ok, problem, skipped, warning
from daskhpo.cluster.doctor.job_request import JobRequest
from daskhpo.cluster.doctor.partition import Partition

ASSOCIATION = ("account", "partition", "qos", "default_qos", "max_wall")
ASSOCIATION_FORMAT = "Account,Partition,QOS,DefaultQOS,MaxWall"
QOS = ("name", "max_wall")
QOS_FORMAT = "Name,MaxWall"


@dataclass(frozen=True)
class Accounts:
    """What Slurm's accounts say of one user.

    Attributes
    ----------
    associations : each an account that the user may charge, with what holds there.
    default : the account of a job that names none; empty if there is none.
    max_wall : longest walltime of each quality of service that has one, in seconds.
    enforced : jobs without a valid account are refused.
    """

    associations: Sequence[Mapping[str, str]]
    default: str
    max_wall: Mapping[str, float]
    enforced: bool

    @classmethod
    def read(cls, associations: str, users: str, qualities: str, enforce: str) -> Accounts:
        """Take in what ``sacctmgr --parsable2`` printed of associations, the user, and QOS."""
        defaults = [row["default"] for row in rows(users, ("user", "default"))]
        limits = {row["name"]: seconds_of_limit(row["max_wall"]) for row in rows(qualities, QOS)}
        return cls(
            rows(associations, ASSOCIATION),
            defaults[0] if defaults else "",
            {name: limit for name, limit in limits.items() if limit is not None},
            any(word in enforce.lower() for word in ("associations", "limits", "qos", "safe")),
        )

    def of(self, account: str, partitions: Sequence[Partition]) -> list[Mapping[str, str]]:
        """The associations with an account that hold in these partitions."""
        names = {partition.name for partition in partitions}
        return [
            row
            for row in self.associations
            if row["account"] == account.lower() and row["partition"] in ("", *names)
        ]


def check_account(
    accounts: Accounts, partitions: Sequence[Partition], account: str | None
) -> Finding:
    """Whether the account, or the user's default, may be charged in these partitions."""
    mine = list(dict.fromkeys(row["account"] for row in accounts.associations if row["account"]))
    told = ", ".join(mine)
    name = account or accounts.default
    if not name:
        if not accounts.enforced:
            return ok("account", "none is needed")
        hint = f"name one by --account: {told}" if mine else "ask the site's staff for one"
        return problem("account", "none was named, and you have no default", hint)
    shown = name if account else f"{name} (your default)"
    if not accounts.of(name, partitions):
        elsewhere = [row["partition"] for row in accounts.associations if row["account"] == name]
        if elsewhere:
            where = ", ".join(filter(None, elsewhere))
            return problem(
                "account", f"you may charge {name} in {where} only", "choose another --partition"
            )
        message = f"{name} is none of your accounts"
        hint = f"yours are {told}" if mine else "you have none: ask the site's staff"
        verdict = problem if accounts.enforced else warning
        return verdict("account", message, hint)
    for partition in partitions:
        allowed = partition.allowed["accounts"]
        barred = name.lower() in partition.denied
        if barred or (allowed is not None and name.lower() not in allowed):
            there = f"; {partition.name} is for {', '.join(sorted(allowed))}" if allowed else ""
            hint = f"your accounts are {told}"
            return problem("account", f"{shown} may not use {partition.name}{there}", hint)
    return ok("account", f"{shown} may be charged")


def check_qos(accounts: Accounts, partitions: Sequence[Partition], request: JobRequest) -> Finding:
    """Whether the quality of service may be used, and for so long."""
    found = accounts.of(request.account or accounts.default, partitions)
    may_use = {name for row in found for name in row["qos"].split(",") if name}
    defaults = [row["default_qos"] for row in found if row["default_qos"]]
    name = request.qos or (defaults[0] if defaults else "")
    if request.qos and found and request.qos.lower() not in may_use:
        hint = f"you may use {', '.join(sorted(may_use))}" if may_use else "leave it out"
        return problem("qos", f"{request.qos} is none that you may use", hint)
    for partition in partitions:
        allowed = partition.allowed["qos"]
        if name and allowed is not None and name.lower() not in allowed:
            hint = f"it takes {', '.join(sorted(allowed & may_use) or sorted(allowed))}"
            return problem("qos", f"{partition.name} does not take {name}", hint)
    limits = {
        qos: accounts.max_wall[qos]
        for qos in (name, *_qualities(partitions))
        if qos in accounts.max_wall
    }
    own = [limit for row in found if (limit := seconds_of_limit(row["max_wall"])) is not None]
    limits |= {"your account": min(own)} if own else {}
    if request.seconds is not None:
        for qos, limit in limits.items():
            if request.seconds > limit:
                message = f"{clock(request.seconds)} is more than the {clock(limit)} of {qos}"
                return problem("walltime", message, f"ask for {clock(limit)} or less")
    if not name:
        return skipped("qos", "none was named")
    return ok("qos", f"{name}" + (f", at most {clock(limits[name])}" if name in limits else ""))


def _qualities(partitions: Sequence[Partition]) -> list[str]:
    return [partition.qos for partition in partitions if partition.qos]
