"""Branches: studies that begin as a copy of another, as it was at some time."""

from __future__ import annotations

import logging
import math
import os
import shutil
import uuid
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from daskhpo.atomic_files import flush_folder, open_plain, write_file
from daskhpo.checkpoints import open_store
from daskhpo.core.arguments import check_number, optional
from daskhpo.core.errors import (
    CheckpointCorrupt,
    CheckpointMissing,
    InvalidArgument,
    JournalDiffers,
    StudyExists,
    StudyMismatch,
)
from daskhpo.core.events import Deleted, Enqueued, Exploited, Extended, Saved, Suggested
from daskhpo.core.space import Space
from daskhpo.core.types import CheckpointRef, Config
from daskhpo.engine.coordinator import Problem
from daskhpo.engine.journal import encode_record
from daskhpo.engine.replay import replay
from daskhpo.engine.session import (
    NullJournal,
    as_recorded,
    check_manifest,
    create_directory,
    read_manifest,
    study_records,
)

logger = logging.getLogger("daskhpo")

ATTEMPTS = 10  # to copy all checkpoints of a running study


def branch(
    source: Path,
    target: Path,
    problem: Problem,
    seconds: float | None = None,
    changed: Problem | None = None,
    defaults: Config | None = None,
) -> None:
    """Create a study in ``target`` from the journal of ``source`` up to a time.

    The new directory appears once it is complete. ``source`` is only read, and may be running.

    Parameters
    ----------
    source : directory of a study.
    target : directory of the new study; must not exist.
    problem : definition of the study in ``source``.
    seconds : study time in seconds; the last record at or before it is the last one copied. None:
        all records.
    changed : definition of the new study, from which the records must follow as well; None: the
        same.
    defaults : values of the hyperparameters that the old study did not have, for its trials.

    Raises
    ------
    ValueError : ``seconds`` is no time.
    FileNotFoundError : ``source`` holds no study.
    StudyMismatch : the study in ``source`` has another definition; or its record does not follow
        from the changed one.
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
            if changed is None:
                _copy(source / "journal.jsonl", aside / "journal.jsonl", n_records)
            else:
                _convert(source, aside, changed, defaults or {}, n_records)
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


def _convert(source: Path, aside: Path, changed: Problem, defaults: Config, n_records: int) -> None:
    """Copy a study's first records for another definition; check that they follow."""
    lines = []
    for record in islice(study_records(source), n_records):
        if isinstance(record, Suggested | Exploited | Enqueued | Extended):
            record = replace(record, config=_converted(record, changed.space, defaults))
        lines.append(encode_record(record) + "\n")
    write_file(aside / "journal.jsonl", "".join(lines))
    (aside / "study.json").unlink()
    create_directory(aside, changed, None)  # no file defines it yet
    try:
        replay(as_recorded(aside, changed), study_records(aside), NullJournal())
    except JournalDiffers as error:
        raise StudyMismatch(
            f"the record of {source} does not follow from the changed definition, so it cannot go "
            f"on as that study: {error.recorded} (line {error.line}), but {error.follows}. Begin a "
            "new study, and give its searcher the best configurations as points_to_evaluate"
        ) from None


def _converted(
    record: Suggested | Exploited | Enqueued | Extended, space: Space, defaults: Config
) -> dict[str, Any]:
    """Return a recorded configuration as one of another space."""
    config = dict(record.config)
    for name in space.domains:
        if name not in config:
            if name not in defaults:
                raise InvalidArgument(
                    f"{name} is new in space=: give its value for the trials that the study has, "
                    f"defaults={{{name!r}: ...}}"
                )
            config[name] = defaults[name]
    try:
        return space.complete(config)
    except ValueError as error:
        who = "an added trial" if isinstance(record, Enqueued) else f"trial {record.trial}"
        raise StudyMismatch(
            f"{who} has no place in the changed space: {error}. Keep what the trials have: a "
            "space may become wider, and have more hyperparameters"
        ) from None


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
