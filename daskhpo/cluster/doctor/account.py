"""Checks of the account and the quality of service (QOS)."""

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
    """Associations and limits of one user in Slurm's accounting database.

    Attributes
    ----------
    associations : one for each account that may be charged, with its partition, QOS and limit.
    default : account of a job that names none; empty: no default.
    max_wall : longest walltime of each QOS that has one, in seconds.
    enforced : True: Slurm rejects jobs without a valid account.
    """

    associations: Sequence[Mapping[str, str]]
    default: str
    max_wall: Mapping[str, float]
    enforced: bool

    @classmethod
    def read(cls, associations: str, users: str, qualities: str, enforce: str) -> Accounts:
        """Parse what ``sacctmgr --parsable2`` printed: associations, user and QOS.

        Parameters
        ----------
        enforce : Slurm's setting ``AccountingStorageEnforce``.
        """
        defaults = [row["default"] for row in rows(users, ("user", "default"))]
        limits = {row["name"]: seconds_of_limit(row["max_wall"]) for row in rows(qualities, QOS)}
        return cls(
            rows(associations, ASSOCIATION),
            defaults[0] if defaults else "",
            {name: limit for name, limit in limits.items() if limit is not None},
            any(word in enforce.lower() for word in ("associations", "limits", "qos", "safe")),
        )

    def of(self, account: str, partitions: Sequence[Partition]) -> list[Mapping[str, str]]:
        """Return the associations of an account that apply to these partitions."""
        names = {partition.name for partition in partitions}
        return [
            row
            for row in self.associations
            if row["account"] == account.lower() and row["partition"] in ("", *names)
        ]


def check_account(
    accounts: Accounts, partitions: Sequence[Partition], account: str | None
) -> Finding:
    """Check that the account, or the user's default one, may be charged there."""
    mine = list(dict.fromkeys(row["account"] for row in accounts.associations if row["account"]))
    listed = ", ".join(mine)
    name = account or accounts.default
    if not name:
        if not accounts.enforced:
            return ok("account", "no account is needed")
        hint = f"choose an --account: {listed}" if mine else "ask your administrator for one"
        return problem("account", "no account was given, and you have no default account", hint)
    shown = name if account else f"{name} (your default)"
    if not accounts.of(name, partitions):
        elsewhere = [row["partition"] for row in accounts.associations if row["account"] == name]
        if elsewhere:
            where = ", ".join(filter(None, elsewhere))
            message = f"{name} may be charged only in partition {where}"
            return problem("account", message, "choose another --partition")
        message = f"{name} is not one of your accounts"
        hint = f"your accounts are {listed}" if mine else "you have none: ask your administrator"
        verdict = problem if accounts.enforced else warning
        return verdict("account", message, hint)
    for partition in partitions:
        allowed = partition.allowed["accounts"]
        barred = name.lower() in partition.denied
        if barred or (allowed is not None and name.lower() not in allowed):
            there = f"; it allows {', '.join(sorted(allowed))}" if allowed else ""
            message = f"partition {partition.name} does not allow {shown}{there}"
            return problem("account", message, f"your accounts are {listed}")
    return ok("account", f"{shown} may be charged")


def check_qos(accounts: Accounts, partitions: Sequence[Partition], request: JobRequest) -> Finding:
    """Check that the QOS may be used, and that it allows the walltime."""
    found = accounts.of(request.account or accounts.default, partitions)
    may_use = {name for row in found for name in row["qos"].split(",") if name}
    defaults = [row["default_qos"] for row in found if row["default_qos"]]
    name = request.qos or (defaults[0] if defaults else "")
    if request.qos and found and request.qos.lower() not in may_use:
        hint = f"you may use {', '.join(sorted(may_use))}" if may_use else "do not set a QOS"
        return problem("qos", f"you may not use the QOS {request.qos}", hint)
    for partition in partitions:
        allowed = partition.allowed["qos"]
        if name and allowed is not None and name.lower() not in allowed:
            hint = f"it allows {', '.join(sorted(allowed & may_use) or sorted(allowed))}"
            return problem("qos", f"partition {partition.name} does not allow the QOS {name}", hint)
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
                message = (
                    f"{clock(request.seconds)} is more than the {clock(limit)} that {qos} allows"
                )
                return problem("walltime", message, f"set --walltime {clock(limit)} or less")
    if not name:
        return skipped("qos", "no QOS was given")
    return ok("qos", f"{name}" + (f", at most {clock(limits[name])}" if name in limits else ""))


def _qualities(partitions: Sequence[Partition]) -> list[str]:
    return [partition.qos for partition in partitions if partition.qos]
