"""Extensions: sessions that train the trials of a study further than planned.

A study's definition stays that of its beginning. Its journal has the larger ``max_t`` in the first
record of the session, so that a replay extends the scheduler where it was extended.
"""

from __future__ import annotations

import contextlib
import copy
import logging
from pathlib import Path

from daskhpo.core.errors import InvalidArgument
from daskhpo.core.scheduler import Scheduler
from daskhpo.engine.coordinator import Problem
from daskhpo.engine.journal import read_sessions
from daskhpo.engine.replay import replay
from daskhpo.engine.session import NullJournal, as_recorded, read_manifest, study_records

logger = logging.getLogger("daskhpo")


def extensions(directory: Path) -> list[int]:
    """Return the larger ``max_t`` of each session that extended a study, in order."""
    sessions = read_sessions(directory / "journal.jsonl")
    return [session.max_t for session in sessions if session.max_t is not None]


def described(directory: Path) -> str:
    """Return a study's scheduler, as people read it, and how far it was extended."""
    scheduler, found = read_manifest(directory).scheduler, extensions(directory)
    return f"{scheduler}, extended to max_t={found[-1]}" if found else scheduler


def extended(scheduler: Scheduler, directory: Path) -> Scheduler:
    """Return a study's scheduler as its extensions leave it, without trials."""
    scheduler = copy.deepcopy(scheduler)
    for max_t in extensions(directory):
        scheduler.on_extend(max_t, ())
    return scheduler


def check_extension(directory: Path, problem: Problem, max_t: int) -> Scheduler:
    """Return the scheduler as an extension to ``max_t`` would leave it; write nothing.

    A log message says which trials continue.

    Raises
    ------
    InvalidArgument : it is not larger than before, or the scheduler cannot be extended.
    """
    coordinator = replay(as_recorded(directory, problem), study_records(directory), NullJournal())
    with contextlib.closing(coordinator.searcher):
        scheduler, trained = coordinator.scheduler, coordinator.fully_trained()
        if max_t <= scheduler.max_t:
            raise InvalidArgument(
                f"max_t={max_t} must be above {scheduler.max_t}, to which this study trains its "
                "trials already"
            )
        onward = scheduler.on_extend(max_t, trained).keys()
    n_again = sum(trial.id in onward and trial.checkpoint is None for trial in trained)
    logger.info(
        "of %s fully trained trials %s continue to max_t=%s, or may; %s of them have no state "
        'left, and train again from their start (checkpoint="end" keeps all states)',
        len(trained),
        len(onward),
        max_t,
        n_again,
    )
    return scheduler
