"""A session of a study: its directory locked, its journal replayed and open."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Literal

from daskhpo._version import __version__
from daskhpo.atomic_files import flush_folder, read_small, write_file
from daskhpo.core.commands import Command
from daskhpo.core.domains import Categorical, Domain, Integer, Ordinal, Real
from daskhpo.core.errors import StudyExists, StudyFailed, StudyLocked, StudyMismatch
from daskhpo.core.events import Edit, Enqueued, Record, SessionStarted, Suggested
from daskhpo.core.objective import Objective
from daskhpo.core.parsing import parse_call
from daskhpo.core.space import Space
from daskhpo.core.study_folders import MANIFEST, no_study
from daskhpo.core.types import CheckpointPolicy, Limits
from daskhpo.engine.advice import LessonsInThread, SearcherAdvice
from daskhpo.engine.coordinator import Coordinator, Problem
from daskhpo.engine.drive import drive
from daskhpo.engine.journal import FileJournal, read_journal, read_sessions
from daskhpo.engine.lock import JobIsOver, StudyLock, check_free, no_job_is_over
from daskhpo.engine.options import RunOptions
from daskhpo.engine.prefetch import PrefetchedAdvice, PrefetchingSearcher
from daskhpo.engine.protocols import CheckpointStore, Executor
from daskhpo.engine.record_check import check_fields
from daskhpo.engine.replay import replay
from daskhpo.engine.requests import OnEdit, StopRequestWatcher

logger = logging.getLogger("daskhpo")

IfExists = Literal["error", "resume", "new"]
DIRECTORY_FORMAT = 2  # of the study directory


class Session:
    """An open study: lock, journal and coordinator.

    Parameters
    ----------
    directory : the study's directory; created if it does not exist.
    problem : the study's definition; must be the one for which the directory was created.
    resume : True: continue the study in the directory. False: the directory must hold no trial yet.
    retry_failed : True: run failed trials again.
    max_t : train trials until this resource from now on, as :func:`daskhpo.engine.extension.check`
        has allowed; None: as before.
    ahead : True: prefetch the suggestions of a slow searcher in a separate thread, and let a model
        learn in one. With one slot that would only make the study depend on how long they take.
    on_lock_lost : called if another process took the lock over; None: no call.
    on_stop : called with the reason if another process requests a stop.
    on_edit : called with each request to end or to add a trial; its time is to be set.
    job_is_over : returns True if the Slurm job in which the last session ran has ended.

    Raises
    ------
    StudyExists, StudyMismatch, StudyLocked, JournalCorrupt : the directory cannot be used; the
        message says why.
    """

    def __init__(
        self,
        directory: Path,
        problem: Problem,
        limits: Limits,
        policy: CheckpointPolicy,
        *,
        resume: bool,
        retry_failed: bool = False,
        max_t: int | None = None,
        source: str | None = None,
        on_lock_lost: Callable[[], None] | None = None,
        on_stop: Callable[[str], None] = lambda reason: None,
        on_edit: OnEdit = lambda edit: None,
        job_is_over: JobIsOver = no_job_is_over,
        ahead: bool = False,
    ) -> None:
        self.directory = directory = directory.absolute()  # the process may change its folder
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.lock = StudyLock(directory, on_lock_lost, job_is_over)
        try:
            path = directory / "journal.jsonl"
            _check_contents(directory, problem, resume=resume)
            _write_manifest(directory, problem, source)
            problem = as_recorded(directory, problem)
            self.journal = FileJournal(path)
            try:
                if not self.lock.is_mine():  # this process slept since it took the lock
                    raise StudyLocked(f"another process took over {directory}")
                last = _LastTime(read_journal(path, problem.objective.metric, any_trial=True))
                self.coordinator: Coordinator = replay(problem, last, self.journal)
                self.began_at: float = last.seconds
                began = SessionStarted(
                    limits, policy, self.began_at, retry_failed, time.time(), max_t
                )
                self.commands: list[Command] = self.coordinator.handle(began)
                self.coordinator.forget_trained()
                self.journal.flush()
                self._lessons = LessonsInThread() if ahead else None
                if self._lessons is not None:
                    _start_prefetching(self.coordinator, problem, self._lessons)
                checked = partial(_check_edit, problem.space, on_edit)
                self._requests = StopRequestWatcher(directory, self.lock.token, on_stop, checked)
            except BaseException:
                self.journal.close()
                raise
        except BaseException:
            self.lock.release()
            raise

    def run(
        self,
        executor: Executor,
        after_turn: Callable[[Coordinator], None] = lambda coordinator: None,
    ) -> None:
        """Run to the end on an executor.

        Parameters
        ----------
        after_turn : called in this thread after each turn of :func:`drive`.

        Raises
        ------
        StudyFailed : an error that every trial would raise.
        """
        executor.perform(self.commands)
        drive(self.coordinator, executor, self.journal, after_turn)
        if (error := self.coordinator.fatal_error) is not None:
            raise StudyFailed(error)

    def clean(self, store: CheckpointStore) -> None:
        """Delete files that an earlier session left in the store and nothing refers to."""
        try:
            cleaned = store.clean(self.coordinator.ledger.refs.committed)
        except OSError as error:  # trials report what they cannot read or write
            logger.warning("unneeded checkpoints could not be removed: %s", error)
            return
        if cleaned.n_files:
            logger.info(
                "removed %s files (%s bytes) of unfinished or unneeded checkpoints",
                cleaned.n_files,
                cleaned.n_bytes,
            )

    def close(self) -> None:
        """Close the journal, release the lock, and end the searcher and its processes."""
        with contextlib.ExitStack() as stack:  # last in, first out, even if one raises
            stack.callback(self._requests.close)
            stack.callback(self.coordinator.searcher.close)
            if self._lessons is not None:
                stack.callback(self._lessons.close)
            stack.callback(self.lock.release)
            stack.callback(self.journal.close)


def _check_edit(space: Space, on_edit: OnEdit, edit: Edit) -> None:
    """Pass on a request that the study can carry out."""
    if isinstance(edit, Enqueued):
        try:
            edit = replace(edit, config=space.complete(edit.config))
        except ValueError as error:
            logger.warning("a configuration that was added is none of this study: %s", error)
            return
    on_edit(edit)


def _start_prefetching(
    coordinator: Coordinator, problem: Problem, lessons: LessonsInThread
) -> None:
    """Move the searcher to a separate thread if it is slow, else its lessons."""
    searcher = coordinator.searcher
    if not searcher.slow:
        coordinator.advisor = SearcherAdvice(searcher, lessons)
        return
    points = getattr(searcher, "points_to_evaluate", None) or ()
    ahead = PrefetchingSearcher(
        searcher,
        problem.space,
        problem.seed,
        n_trials=coordinator.ledger.n_trials,
        n_points=len(points),
    )
    coordinator.searcher, coordinator.advisor = ahead, PrefetchedAdvice(ahead)


def create_directory(directory: Path, problem: Problem, source: str | None) -> None:
    """Create the directory of a study that starts later."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    _write_manifest(directory, problem, source)


def has_work(directory: Path, problem: Problem, limits: Limits, policy: CheckpointPolicy) -> bool:
    """Return True if a session with these limits would have work; write nothing."""
    last = _LastTime(study_records(directory))
    coordinator = replay(as_recorded(directory, problem), last, NullJournal())
    with contextlib.closing(coordinator.searcher):
        coordinator.handle(SessionStarted(limits, policy, last.seconds))
        return not coordinator.is_over


class NullJournal:
    """A journal that discards its records."""

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
    """Check that :class:`Session` can be opened, before anything is started.

    Raises
    ------
    StudyExists, StudyMismatch, StudyLocked, JournalCorrupt : the directory cannot be used; the
        message says why.
    """
    check_free(directory, job_is_over)
    _check_contents(directory, problem, resume=resume)


def free_name(storage: Path, name: str) -> str:
    """Return the first of ``name``, ``name-2``, ... whose directory holds no trial."""
    names = (f"{name}-{n}" if n > 1 else name for n in count(1))
    return next(each for each in names if not _has_trials(storage / each))


def _has_trials(directory: Path) -> bool:
    return any(isinstance(record, Suggested) for record in study_records(directory))


def _check_contents(directory: Path, problem: Problem, *, resume: bool) -> None:
    check_manifest(directory, problem)
    if not resume and _has_trials(directory):
        raise StudyExists(
            f"{directory} already holds a study. Continue it: study.resume(...), or "
            'run(..., if_exists="resume"), or `daskhpo resume`. Begin another one beside it: '
            'if_exists="new", or another name='
        )


class _LastTime:
    """An iterator over records that remembers their latest time."""

    def __init__(self, records: Any) -> None:
        self._records = records
        self.seconds = 0.0

    def __iter__(self) -> Any:
        for record in self._records:
            self.seconds = max(self.seconds, record.seconds)
            yield record


@dataclass(frozen=True)
class Manifest:
    """The description of a study in its directory, ``study.json``."""

    metric: str
    mode: str
    seed: int
    scheduler: str
    searcher: str
    space: dict[str, str]
    source: str | None  # "FILE.py:study" if it was started from the command line

    @property
    def objective(self) -> Objective:
        return Objective(self.metric, self.mode)  # type: ignore[arg-type]

    def domains(self) -> dict[str, Domain]:
        """Return the domains of the space; those of a class of the user's are left out."""
        known = {kind.__name__: kind for kind in (Real, Integer, Ordinal, Categorical)}
        found = {}
        for name, text in self.space.items():
            with contextlib.suppress(ValueError):
                if isinstance(domain := parse_call(text, known), Domain):
                    found[name] = domain
        return found


def read_manifest(directory: Path) -> Manifest:
    """Read the manifest of a study directory.

    Raises
    ------
    FileNotFoundError : the directory holds no study.
    StudyMismatch : another version wrote it, in another format.
    """
    path = directory / MANIFEST
    if not path.exists():
        raise FileNotFoundError(no_study(directory))
    data = _object_in(path)
    if data.pop("format", None) != DIRECTORY_FORMAT:
        raise StudyMismatch(f"{path} was written in another format; use the version that wrote it")
    data.pop("version", None)
    try:
        manifest = Manifest(**data)
        check_fields(manifest)
        manifest.objective  # noqa: B018 - raises if metric or mode is none
    except (TypeError, ValueError, AttributeError) as error:
        raise StudyMismatch(f"{path} is damaged: {error}; restore it from a copy") from None
    return manifest


def _object_in(path: Path) -> dict[str, Any]:
    """Return the content of a file with a JSON object."""
    try:
        data = json.loads(read_small(path))
    except (ValueError, RecursionError) as error:
        raise StudyMismatch(f"{path} is damaged: {error}; restore it from a copy") from None
    if not isinstance(data, dict):
        raise StudyMismatch(f"{path} is damaged: it holds no JSON object; restore it from a copy")
    return data


def check_manifest(directory: Path, problem: Problem) -> None:
    """Check that a directory's study, if there is one, is the given one.

    Raises
    ------
    StudyMismatch : the definitions differ; the message shows both values.
    """
    if not (directory / MANIFEST).exists():
        return
    found, given = read_manifest(directory), manifest_of(problem, None)
    for name in ("space", "metric", "mode", "seed", "scheduler", "searcher"):
        there, here = getattr(found, name), getattr(given, name)
        if there != here:
            raise StudyMismatch(
                f"{directory} belongs to a study with {name}={there}, but this one has "
                f"{name}={here}; define it as before{_as_begun(directory, name)}, or give this "
                'study another name= (if_exists="new" finds one); Study.branch carries trials over'
            )


def _as_begun(directory: Path, name: str) -> str:
    """Return a hint for a study that was extended and is now defined otherwise."""
    found = [s.max_t for s in read_sessions(directory / "journal.jsonl") if s.max_t is not None]
    if name != "scheduler" or not found:
        return ""
    return f" it was extended to max_t={found[-1]} (the study remembers that)"


def as_recorded(directory: Path, problem: Problem) -> Problem:
    """Return the problem with its space in the order of the directory's study.

    The order of the names decides what is drawn, and how a grid is walked. The one that began the
    study applies for good, however the space is written in a later session.
    """
    if not (directory / MANIFEST).exists():
        return problem
    names = read_manifest(directory).space
    if list(names) == list(problem.space):
        return problem
    return replace(problem, space=problem.space.ordered(names))


def manifest_of(problem: Problem, source: str | None) -> Manifest:
    """Return the manifest of a study."""
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
    path = directory / MANIFEST
    if path.exists():
        data = _object_in(path)
        if data["source"] is not None or source is None:
            return
        data["source"] = source  # a script began it, the command line continues it
    else:
        manifest = vars(manifest_of(problem, source))
        data = {"format": DIRECTORY_FORMAT, "version": __version__, **manifest}
    write_file(path, json.dumps(data, indent=1))
    flush_folder(directory)


def study_records(directory: Path, *, any_trial: bool = False) -> Any:
    """Return the records of a study; none before its first session.

    ``any_trial``: as for :func:`daskhpo.engine.journal.read_journal`.
    """
    path = directory / "journal.jsonl"
    empty: tuple[Record, ...] = ()
    if not path.exists():
        return empty
    has_manifest = (directory / MANIFEST).exists()
    metric = read_manifest(directory).metric if has_manifest else None
    return read_journal(path, metric, any_trial=any_trial)


def with_last_limits(options: RunOptions, directory: Path) -> RunOptions:
    """Return the options; if they have no limit, with that of the last session.

    Its number of trials and its target apply again, its time budget does not.
    """
    if options.has_limit:
        return options
    last = last_limits(directory)
    return replace(options, num_trials=last.num_trials, target=last.target)


def last_limits(directory: Path) -> Limits:
    """Return the limits of a study's last session; none before its first."""
    sessions = read_sessions(directory / "journal.jsonl")
    return sessions[-1].limits if sessions else Limits()
