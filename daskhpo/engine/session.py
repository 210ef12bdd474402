"""One session of a study: its directory locked, its journal replayed and open."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daskhpo._version import __version__
from daskhpo.atomic_files import flush_folder, write_file
from daskhpo.core.commands import Command
from daskhpo.core.errors import StudyExists, StudyMismatch
from daskhpo.core.events import Record, SessionStarted, Suggested
from daskhpo.core.objective import Objective
from daskhpo.core.types import CheckpointPolicy, Limits
from daskhpo.engine.coordinator import Coordinator, Problem
from daskhpo.engine.journal import FileJournal, read_journal
from daskhpo.engine.lock import JobIsOver, StudyLock, check_free, no_job_is_over
from daskhpo.engine.prefetch import PrefetchingSearcher
from daskhpo.engine.replay import replay
from daskhpo.engine.requests import StopRequestWatcher

DIRECTORY_FORMAT = 2  # of the study directory


class Session:
    """An open study: lock, journal, coordinator.

    Parameters
    ----------
    directory : of the study; made if it is not there.
    problem : what is searched, and how; must be the one the directory was made with.
    resume : go on with what is there. Otherwise the directory must hold no trial yet.
    ahead : have the suggestions of a slow searcher made ahead, beside the coordinator.
    on_lock_lost : called if another process took the study over.
    on_stop : called with the reason if another process asks this one to stop.
    job_is_over : whether a batch job, in which the last session ran, is over.

    Raises
    ------
    StudyExists, StudyMismatch, StudyLocked, JournalCorrupt : as their messages say.
    """

    def __init__(
        self,
        directory: Path,
        problem: Problem,
        limits: Limits,
        policy: CheckpointPolicy,
        *,
        resume: bool,
        source: str | None = None,
        on_lock_lost: Callable[[], None] | None = None,
        on_stop: Callable[[str], None] = lambda reason: None,
        job_is_over: JobIsOver = no_job_is_over,
        ahead: bool = False,
    ) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.lock = StudyLock(directory, on_lock_lost, job_is_over)
        try:
            path = directory / "journal.jsonl"
            _check_contents(directory, problem, resume=resume)
            _write_manifest(directory, problem, source)
            self.journal = FileJournal(path)
            try:
                last = _LastTime(read_journal(path))
                self.coordinator: Coordinator = replay(problem, last, self.journal)
                self.began_at: float = last.seconds
                began = SessionStarted(limits, policy, self.began_at)
                self.commands: list[Command] = self.coordinator.handle(began)
                self.journal.flush()
                if ahead:
                    _start_prefetching(self.coordinator, problem)
                self._requests = StopRequestWatcher(directory, self.lock.token, on_stop)
            except BaseException:
                self.journal.close()
                raise
        except BaseException:
            self.lock.release()
            raise

    def close(self) -> None:
        """Close the journal, give the lock back, and end the searcher with what it has started."""
        with contextlib.ExitStack() as stack:  # last in, first out, whatever raises
            stack.callback(self._requests.close)
            stack.callback(self.coordinator.searcher.close)
            stack.callback(self.lock.release)
            stack.callback(self.journal.close)


def _start_prefetching(coordinator: Coordinator, problem: Problem) -> None:
    """Move the coordinator's searcher to a thread of its own, if it is slow."""
    searcher = coordinator.searcher
    if not searcher.slow:
        return
    points = getattr(searcher, "points_to_evaluate", None) or ()
    ahead = PrefetchingSearcher(
        searcher,
        problem.space,
        problem.seed,
        n_trials=coordinator.ledger.n_trials,
        n_points=len(points),
    )
    coordinator.searcher, coordinator.suggest = ahead, ahead.next_suggestion


def create_directory(directory: Path, problem: Problem, source: str | None) -> None:
    """Make the directory of a study that is to begin later."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    _write_manifest(directory, problem, source)


def has_work(directory: Path, problem: Problem, limits: Limits, policy: CheckpointPolicy) -> bool:
    """Whether a session with these limits would find anything to do. Nothing is written."""
    last = _LastTime(study_records(directory))
    coordinator = replay(problem, last, _NullJournal())
    with contextlib.closing(coordinator.searcher):
        coordinator.handle(SessionStarted(limits, policy, last.seconds))
        return not coordinator.is_over


class _NullJournal:
    """A journal that keeps nothing."""

    def append(self, record: Record) -> None:
        pass

    def flush(self) -> None:
        pass


def check_startable(
    directory: Path,
    problem: Problem,
    *,
    resume: bool,
    job_is_over: JobIsOver = no_job_is_over,
) -> None:
    """Refuse now what :class:`Session` would refuse later, before anything is started.

    Raises
    ------
    StudyExists, StudyMismatch, StudyLocked, JournalCorrupt : as their messages say.
    """
    check_free(directory, job_is_over)
    _check_contents(directory, problem, resume=resume)


def _check_contents(directory: Path, problem: Problem, *, resume: bool) -> None:
    check_manifest(directory, problem)
    if not resume and any(isinstance(record, Suggested) for record in study_records(directory)):
        raise StudyExists(
            f"{directory} holds a study already: go on with it by study.resume(...) or "
            "`daskhpo resume`, or give this one another name="
        )


class _LastTime:
    """Passes records on and remembers the time of the last one."""

    def __init__(self, records: Any) -> None:
        self._records = records
        self.seconds = 0.0

    def __iter__(self) -> Any:
        for record in self._records:
            self.seconds = max(self.seconds, record.seconds)
            yield record


@dataclass(frozen=True)
class Manifest:
    """What a study directory says of its study."""

    metric: str
    mode: str
    seed: int
    scheduler: str
    searcher: str
    space: dict[str, str]
    source: str | None  # "FILE.py:study" if it was begun from the command line

    @property
    def objective(self) -> Objective:
        return Objective(self.metric, self.mode)  # type: ignore[arg-type]


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a study directory.

    Raises
    ------
    FileNotFoundError : the directory holds no study.
    StudyMismatch : a later version wrote it.
    """
    path = directory / "study.json"
    if not path.exists():
        raise FileNotFoundError(f"{directory} holds no study: there is no {path.name} in it")
    data = json.loads(path.read_text())
    if data.pop("format") != DIRECTORY_FORMAT:
        raise StudyMismatch(f"{path} was written in another format; use the version that wrote it")
    data.pop("version")
    return Manifest(**data)


def check_manifest(directory: Path, problem: Problem) -> None:
    """Refuse a directory whose study is another one.

    Raises
    ------
    StudyMismatch : something differs; the message shows both.
    """
    if not (directory / "study.json").exists():
        return
    found, given = read_manifest(directory), manifest_of(problem, None)
    for name in ("space", "metric", "mode", "seed", "scheduler", "searcher"):
        there, here = getattr(found, name), getattr(given, name)
        if there != here:
            raise StudyMismatch(
                f"{directory} belongs to a study with {name}={there}, but this one has "
                f"{name}={here}; give this study another name=, or make it as it was"
            )


def manifest_of(problem: Problem, source: str | None) -> Manifest:
    """What the directory of a study will say of it."""
    return Manifest(
        problem.objective.metric,
        problem.objective.mode,
        problem.seed,
        repr(problem.scheduler),
        repr(problem.searcher),
        {name: repr(domain) for name, domain in problem.space.items()},
        source,
    )


def _write_manifest(directory: Path, problem: Problem, source: str | None) -> None:
    path = directory / "study.json"
    if path.exists():
        return
    manifest = vars(manifest_of(problem, source))
    data = {"format": DIRECTORY_FORMAT, "version": __version__, **manifest}
    write_file(path, json.dumps(data, indent=1))
    flush_folder(directory)


def study_records(directory: Path) -> Any:
    """The records of a study directory; none before its first session."""
    path = directory / "journal.jsonl"
    empty: tuple[Record, ...] = ()
    return read_journal(path) if path.exists() else empty


def last_limits(directory: Path) -> tuple[int | None, float | None]:
    """Number of trials and target of a study's last session; None, None before the first."""
    limits = Limits()
    for record in study_records(directory):
        if isinstance(record, SessionStarted):
            limits = record.limits
    return limits.num_trials, limits.target
