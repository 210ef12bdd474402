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


# A path, perhaps with a line break behind it; used, soft, hard limit and grace of blocks (KiB), and
# of files. Numbers may be 123* (over the limit) or [123] (not exact); a grace may be left out.
_NUMBER = r"\s+\[?(\d+)\]?[*k]?"
_ROW = re.compile(rf"^\s*([^\s\d]\S*){_NUMBER * 3}(?:\s+\S+)?{_NUMBER * 3}(?=\s|$)", re.MULTILINE)


def parse_quota(text: str, owner: str = "user") -> list[Quota]:
    """Parse the output of ``quota -w -p`` or ``lfs quota``: quotas that have a limit."""
    found = []
    for place, *numbers in _ROW.findall(text):
        used, soft, hard, n_files, soft_files, hard_files = map(int, numbers)
        where = f"{owner} on {place}"
        if limits := [limit for limit in (soft, hard) if limit]:
            found.append(Quota(where, "bytes", used * 1024, min(limits) * 1024))
        if limits := [limit for limit in (soft_files, hard_files) if limit]:
            found.append(Quota(where, "files", n_files, min(limits)))
    return found


def check_room(free_bytes: int, free_files: int | None, quotas: Sequence[Quota]) -> list[Finding]:
    """Check that there is room for checkpoints.

    Parameters
    ----------
    free_files : files that can still be created; None: the file system does not count files.
    """
    files = "" if free_files is None else f", {free_files:,} files"
    message = f"{_gigabytes(free_bytes)}{files} free on the file system"
    few = free_bytes < LOW_BYTES or (free_files is not None and free_files < LOW_FILES)
    findings = [_room("room", message, is_full=0 in (free_bytes, free_files), is_nearly=few)]
    for quota in quotas:
        in_words = _gigabytes if quota.kind == "bytes" else "{:,} files".format
        message = f"{quota.of}: {in_words(quota.used)} of {in_words(quota.limit)} are used"
        is_full, is_nearly = quota.used >= quota.limit, quota.used >= NEARLY * quota.limit
        findings.append(_room("quota", message, is_full=is_full, is_nearly=is_nearly))
    return findings


def _room(check: str, message: str, *, is_full: bool, is_nearly: bool) -> Finding:
    if not (is_full or is_nearly):
        return ok(check, message)
    hint = "delete files, or limit checkpoints: CheckpointPolicy(max_bytes=..., max_files=...)"
    return (problem if is_full else warning)(check, message, hint)


def _gigabytes(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:,.1f} GB"
