"""Branches: studies that begin as a copy of another, as it was at some time."""

from __future__ import annotations

import logging
import math
import os
import shutil
import uuid
from itertools import islice
from pathlib import Path

from daskhpo.atomic_files import flush_folder, open_plain
from daskhpo.checkpoints import open_store
from daskhpo.core.arguments import check_number, optional
from daskhpo.core.errors import (
    CheckpointCorrupt,
    CheckpointMissing,
    StudyExists,
)
from daskhpo.core.events import Deleted, Saved
from daskhpo.core.types import CheckpointRef
from daskhpo.engine.coordinator import Problem
from daskhpo.engine.session import check_manifest, read_manifest, study_records

logger = logging.getLogger("daskhpo")

ATTEMPTS = 10  # to copy all checkpoints of a running study


def branch(source: Path, target: Path, problem: Problem, seconds: float | None = None) -> None:
    """Create a study in ``target`` from the journal of ``source`` up to a time.

    The new directory appears once it is complete. ``source`` is only read, and may be running.

    Parameters
    ----------
    source : directory of a study.
    target : directory of the new study; must not exist.
    problem : definition of the study in ``source``.
    seconds : study time in seconds; the last record at or before it is the last one copied. None:
        all records.

    Raises
    ------
    ValueError : ``seconds`` is no time.
    FileNotFoundError : ``source`` holds no study.
    StudyMismatch : the study in ``source`` has another definition.
    StudyExists : ``target`` exists already.
    OSError : the disk is full, read-only or unreachable; no partial directory is left.
    """
    seconds = optional(check_number, "seconds", seconds, at_least=0, at_most=math.inf)
    read_manifest(source)  # raises if there is no study
    check_manifest(source, problem)
    if target.exists():
        raise _taken(target)
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
    aside.mkdir(mode=0o700)
    try:
        _copy(source / "study.json", aside / "study.json")
        for _ in range(ATTEMPTS):
            n_records = _count(source, math.inf if seconds is None else seconds)
            _copy(source / "journal.jsonl", aside / "journal.jsonl", n_records)
            committed = _committed(aside)
            missing = _share(committed, source, aside)
            # a running source may have deleted and committed checkpoints during the copy
            if not missing or seconds is not None or _count(source, math.inf) == n_records:
                break
        if missing:
            logger.warning(
                "%s: %s of the %s checkpoints that %s had at that time no longer exist; their "
                "trials continue from an older checkpoint, or train again from the start",
                target,
                len(missing),
                len(committed),
                source,
            )
        flush_folder(aside)
        try:
            aside.rename(target)
        except OSError as error:  # another process may have created the target meanwhile
            raise (_taken(target) if target.exists() else error) from None
        flush_folder(target.parent)
    except BaseException:  # also after an interrupt
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _taken(target: Path) -> StudyExists:
    return StudyExists(f"{target} already exists: give the branch another name")


def _count(source: Path, seconds: float) -> int:
    """Count the records up to the last one at or before ``seconds``."""
    n_records = 0
    for n, record in enumerate(study_records(source), start=1):
        if record.seconds <= seconds:
            n_records = n
    return n_records


def _copy(source: Path, target: Path, n_lines: int | None = None) -> None:
    """Copy a file, or its first lines, and flush the copy to the disk."""
    if not source.exists():  # a study has no journal before its first session
        return
    with open_plain(source) as lines, target.open("wb") as file:
        file.writelines(islice(lines, n_lines))
        file.flush()
        os.fsync(file.fileno())


def _committed(directory: Path) -> list[CheckpointRef]:
    """Return the checkpoints that a study's journal has committed and not deleted."""
    refs: dict[int, CheckpointRef] = {}
    for record in study_records(directory):
        match record:
            case Saved(_, _, ref):
                refs[ref.id] = ref
            case Deleted(row):
                del refs[row]
    return list(refs.values())


def _share(refs: list[CheckpointRef], source: Path, target: Path) -> list[CheckpointRef]:
    """Share exactly these checkpoints with another study; return the missing ones."""
    there, here = open_store(source), open_store(target)
    missing = []
    for ref in refs:
        try:
            there.share(ref, here)
        except (CheckpointMissing, CheckpointCorrupt):
            missing.append(ref)
    here.clean(keep=refs)  # an earlier attempt may have left others
    return missing
