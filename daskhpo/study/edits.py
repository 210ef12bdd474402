"""Requests to a study that runs, or will: to add a trial, to end or pause one."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from daskhpo.core.arguments import check_int, check_mapping, check_text
from daskhpo.core.errors import InvalidArgument, NoSuchTrial
from daskhpo.core.events import Enqueued, TrialPauseRequested, TrialStopRequested
from daskhpo.core.types import TrialId
from daskhpo.engine.coordinator import Problem
from daskhpo.engine.requests import request_edit
from daskhpo.engine.session import (
    as_recorded,
    check_manifest,
    create_directory,
    read_manifest,
    study_records,
)
from daskhpo.results.progress import StudyProgress, TrialRecord


def enqueue(directory: Path, problem: Problem, source: str | None, config: Any) -> None:
    """Request a trial with this configuration; see `daskhpo.Study.enqueue`."""
    check_manifest(directory, problem)
    problem = as_recorded(directory, problem)
    given = check_mapping("config", config, of="hyperparameters to values")
    try:
        complete = problem.space.complete(given)
    except ValueError as error:
        raise InvalidArgument(f"config={dict(given)}: {error}") from None
    if problem.scheduler.is_population:
        raise InvalidArgument(
            f"{problem.scheduler!r} has all its members from the start, so none can be added: "
            "give the searcher points_to_evaluate"
        )
    if problem.searcher.finite:
        raise InvalidArgument(
            f"{problem.searcher!r} counts its configurations by trials, so that one of them would "
            "be left out: give it points_to_evaluate"
        )
    points = getattr(problem.searcher, "points_to_evaluate", None) or ()
    if points and _progress(directory, problem).n_trials < len(points):
        raise InvalidArgument(
            f"the first {len(points)} trials have the searcher's points_to_evaluate, and not all "
            "of them have started: add this configuration there, or later"
        )
    create_directory(directory, problem, source)
    request_edit(directory, Enqueued(complete, uuid.uuid4().hex, 0.0))


def stop_trial(directory: Path, trial: TrialId, reason: str = "stopped by hand") -> None:
    """Request this or the next session of a study to end one of its trials.

    It ends at its next report, or at once if it holds no slot. Its status is *stopped*, and what it
    has reported counts.

    Raises
    ------
    FileNotFoundError : the directory holds no study.
    NoSuchTrial : the study has no such trial.
    InvalidArgument : the trial has ended.
    """
    reason = check_text("reason", reason)
    number = _living(directory, trial)[0].id
    request_edit(directory, TrialStopRequested(number, reason, uuid.uuid4().hex, 0.0))


def pause_trial(directory: Path, trial: TrialId, *, paused: bool) -> None:
    """Request a session, this or the next one, to pause or to resume a trial.

    Raises
    ------
    FileNotFoundError : the directory holds no study.
    NoSuchTrial : the study has no such trial.
    InvalidArgument : the trial has ended, or it is paused already, or not paused by a person.
    """
    found, is_paused = _living(directory, trial)
    if is_paused is paused:
        raise InvalidArgument(
            f"trial {found.id} is paused by hand already: let it continue, or stop it"
            if paused
            else f"trial {found.id} is {found.status.value}, and was not paused by hand"
        )
    request_edit(directory, TrialPauseRequested(found.id, paused, uuid.uuid4().hex, 0.0))


def _living(directory: Path, trial: TrialId) -> tuple[TrialRecord, bool]:
    """Return a trial that has not ended, and whether a person has paused it."""
    number = check_int("trial", trial, at_least=0)
    progress = StudyProgress(read_manifest(directory).objective)
    for record in study_records(directory):
        progress.apply(record)
    if (found := progress.trials.get(number)) is None:
        n = progress.n_trials
        there = f"trials are numbered from 0 to {n - 1}" if n else "no trial was started"
        raise NoSuchTrial(f"there is no trial {number}: {there}")
    if found.status.ended:
        raise InvalidArgument(
            f"trial {number} has ended: it is {found.status.value}"
            f"{f' ({found.reason})' if found.reason else ''}"
        )
    return found, number in progress.paused_by_hand


def _progress(directory: Path, problem: Problem) -> StudyProgress:
    progress = StudyProgress(problem.objective, keep_ended=False)
    for record in study_records(directory):
        progress.apply(record)
    return progress
