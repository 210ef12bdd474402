"""A branch: a study that begins where another one stood, and goes on from there on its own."""

from __future__ import annotations

import logging
import math
import os
import shutil
import uuid
from itertools import islice
from pathlib import Path

from daskhpo.atomic_files import flush_folder
from daskhpo.checkpoints import open_store
from daskhpo.core.errors import (
    CheckpointCorrupt,
    CheckpointMissing,
    StudyExists,
)
from daskhpo.core.events import Deleted, Saved
from daskhpo.core.types import CheckpointRef
from daskhpo.engine.session import study_records

logger = logging.getLogger("daskhpo")

ATTEMPTS = 10  # to find all checkpoints of a study that runs


def branch(source: Path, target: Path, seconds: float | None = None) -> None:
    """Make a study in ``target`` of the journal of ``source`` up to a point of its time.

    The new directory appears when it is complete. ``source`` is only read, and may be running.

    Parameters
    ----------
    seconds : of the study's time; the last record at or before is the branch's last. None: all.

    Raises
    ------
    FileNotFoundError : ``source`` holds no study.
    StudyExists : there is something at ``target``.
    OSError : the disk is full, read-only or gone; nothing is left.
    """
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
            # while we were at it a source that runs may have deleted some, and committed others
            if not missing or seconds is not None or _count(source, math.inf) == n_records:
                break
        if missing:
            logger.warning(
                "%s: %s of the %s checkpoints that %s had then are not there any more; trials "
                "that would go on from one begin at an older one, or train again",
                target,
                len(missing),
                len(committed),
                source,
            )
        flush_folder(aside)
        try:
            aside.rename(target)
        except OSError as error:  # somebody has put something there meanwhile
            raise (_taken(target) if target.exists() else error) from None
        flush_folder(target.parent)
    except BaseException:  # an interrupt too must leave nothing
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _taken(target: Path) -> StudyExists:
    return StudyExists(f"{target} is there already: give the branch another name")


def _count(source: Path, seconds: float) -> int:
    """How many records there are up to the last one at or before ``seconds``."""
    n_records = 0
    for n, record in enumerate(study_records(source), start=1):
        if record.seconds <= seconds:
            n_records = n
    return n_records


def _copy(source: Path, target: Path, n_lines: int | None = None) -> None:
    """Copy a file, or its first lines, to the disk; no journal is there before a first session."""
    if not source.exists():
        return
    with source.open("rb") as lines, target.open("wb") as file:
        file.writelines(islice(lines, n_lines))
        file.flush()
        os.fsync(file.fileno())


def _committed(directory: Path) -> list[CheckpointRef]:
    """The checkpoints that a study's journal has and has not deleted."""
    refs: dict[int, CheckpointRef] = {}
    for record in study_records(directory):
        match record:
            case Saved(_, _, ref):
                refs[ref.id] = ref
            case Deleted(row):
                del refs[row]
    return list(refs.values())


def _share(refs: list[CheckpointRef], source: Path, target: Path) -> list[CheckpointRef]:
    """Give these rows of one study, and no others, to another; return those that are not there."""
    there, here = open_store(source), open_store(target)
    missing = []
    for ref in refs:
        try:
            there.share(ref, here)
        except (CheckpointMissing, CheckpointCorrupt):
            missing.append(ref)
    here.clean(keep=refs)  # of an earlier attempt
    return missing
