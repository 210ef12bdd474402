"""Checks of the space on a file system, and of a user's quotas."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from daskhpo.cluster.doctor.finding import Finding, ok, problem, warning

LOW_BYTES = 5_000_000_000
LOW_FILES = 10_000
NEARLY = 0.9


@dataclass(frozen=True)
class Quota:
    """Usage and limit of one quota, in bytes or in files.

    Attributes
    ----------
    of : owner and file system: ``"user on /scratch"``.
    kind : ``"bytes"`` or ``"files"``.
    limit : soft or hard limit, the smaller one if both are set.
    """

    of: str
    kind: str
    used: int
    limit: int


def parse_quota(text: str, owner: str = "user") -> list[Quota]:
    """Parse the output of ``quota -w -p`` or ``lfs quota``: quotas that have a limit.

    Both count blocks of 1024 bytes. ``lfs`` breaks the line after a long path.
    """
    found: list[Quota] = []
    place = ""
    for line in text.splitlines():
        words = line.split()
        if not words or "quota" in words or line.lower().startswith("disk quotas"):
            continue
        if len(words) == 1:
            place = words[0]
            continue
        numbers = [_number(word) for word in words]
        if numbers[0] is None or len(words) > 8:  # the path is on this line
            place, numbers = words[0], numbers[1:]
        # used, soft, hard, grace, then the same for files; a grace may be left out
        if len(numbers) == 8 or (len(numbers) == 7 and numbers[3] is None):
            del numbers[3]
        if len(numbers) < 6 or not place:
            continue
        used, soft, hard, n_files, soft_files, hard_files = numbers[:6]
        where = f"{owner} on {place}"
        for kind, amount, limits, unit in (
            ("bytes", used, (soft, hard), 1024),
            ("files", n_files, (soft_files, hard_files), 1),
        ):
            least = min((limit for limit in limits if limit), default=0)
            if amount is not None and least:
                found.append(Quota(where, kind, amount * unit, least * unit))
    return found


def check_room(free_bytes: int, free_files: int | None, quotas: Sequence[Quota]) -> list[Finding]:
    """Check that there is room for checkpoints.

    Parameters
    ----------
    free_files : files that can still be created; None: the file system does not count files.
    """
    findings = []
    files = "" if free_files is None else f", {free_files:,} files"
    message = f"{_gigabytes(free_bytes)}{files} free on the file system"
    hint = "delete files, or limit checkpoints: CheckpointPolicy(max_bytes=..., max_files=...)"
    if free_bytes == 0 or free_files == 0:
        findings.append(problem("room", message, hint))
    elif free_bytes < LOW_BYTES or (free_files is not None and free_files < LOW_FILES):
        findings.append(warning("room", message, hint))
    else:
        findings.append(ok("room", message))
    for quota in quotas:
        in_words = _gigabytes if quota.kind == "bytes" else "{:,} files".format
        message = f"{quota.of}: {in_words(quota.used)} of {in_words(quota.limit)} are used"
        if quota.used >= quota.limit:
            findings.append(problem("quota", message, hint))
        elif quota.used >= NEARLY * quota.limit:
            findings.append(warning("quota", message, hint))
        else:
            findings.append(ok("quota", message))
    return findings


def _number(word: str) -> int | None:
    """Parse ``123``, ``123*`` (over its limit) or ``[123]`` (not exact); None: other."""
    match = re.fullmatch(r"\[?(\d+)\]?\*?", word)
    return int(match[1]) if match else None


def _gigabytes(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:,.1f} GB"
