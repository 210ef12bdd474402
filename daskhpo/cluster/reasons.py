"""Slurm's reasons why a job is pending: what they mean, and what to do."""

from __future__ import annotations

import re
from enum import Enum


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
        "wait",
        Outlook.USUAL,
    ),
    (
        r"PartitionTimeLimit|.*Wall.*PerJob.*",
        "it exceeds the time limit of its partition, account or QOS",
        "set a shorter walltime",
        Outlook.HOPELESS,
    ),
    (
        r"BadConstraints|NodeNotFound",
        "no node satisfies its constraints",
        "check the directives",
        Outlook.HOPELESS,
    ),
    (
        r"Invalid(Account|QOS)|.*(Account|QOS).*NotAllowed|QOSUsageThreshold|.*not permitted.*",
        "the account or QOS is not allowed there",
        "choose another account or QOS",
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
