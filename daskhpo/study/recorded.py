"""The definition of a study from its directory alone; verifying its journal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from daskhpo import schedulers
from daskhpo.core.domains import Categorical, Integer, Ordinal, Real
from daskhpo.core.errors import StudyMismatch
from daskhpo.core.events import Ended, Judged, Record, Suggested
from daskhpo.core.parsing import parse_call
from daskhpo.core.scheduler import Scheduler
from daskhpo.core.searcher import Searcher
from daskhpo.core.space import Space
from daskhpo.core.types import Config, TrialId
from daskhpo.engine.coordinator import Problem
from daskhpo.engine.replay import replay
from daskhpo.engine.session import (
    Manifest,
    as_recorded,
    check_manifest,
    read_manifest,
    study_records,
)

DOMAINS = {kind.__name__: kind for kind in (Real, Integer, Ordinal, Categorical)}
KNOWN = DOMAINS | {name: getattr(schedulers, name) for name in schedulers.__all__}


@dataclass(frozen=True)
class Verified:
    """Counts of a journal that follows from its study's definition.

    Attributes
    ----------
    n_records, n_trials, n_ended : in the journal.
    n_missing : consequences of its last event that a crash cut off; a resumed study adds them.
    """

    n_records: int
    n_trials: int
    n_ended: int
    n_missing: int


def verify(directory: Path, problem: Problem | None = None) -> Verified:
    """Replay a study's journal, and compare all that follows with what it records.

    No code of the user runs: configurations are those of the journal. What trials reported is
    taken as it stands; every decision, launch, end and deletion must follow from it.

    Parameters
    ----------
    directory : of the study, which may be running.
    problem : the study's definition. None: the one in the directory, if its scheduler is one of
        daskhpo's.

    Raises
    ------
    JournalDiffers : a record does not follow; it has the line.
    JournalCorrupt : a line cannot be read.
    FileNotFoundError : the directory holds no study.
    StudyMismatch : the definition is another one, or cannot be had from the directory.
    """
    if problem is None:
        problem = recorded_problem(read_manifest(directory), directory)
    else:
        read_manifest(directory)  # raises if there is no study
        check_manifest(directory, problem)
    counted, missing = _Counted(study_records(directory, any_trial=True)), _Count()
    replay(as_recorded(directory, problem), counted, missing)
    return Verified(counted.n_records, counted.n_trials, counted.n_ended, missing.n)


def recorded_problem(manifest: Manifest, directory: Path) -> Problem:
    """Return a study's definition by its manifest, with a searcher of nothing.

    Raises
    ------
    StudyMismatch : its space or scheduler has a part that is not daskhpo's own.
    """
    try:
        space = Space({name: parse_call(text, DOMAINS) for name, text in manifest.space.items()})
        scheduler = parse_call(manifest.scheduler, KNOWN)
        if not isinstance(scheduler, Scheduler):
            raise ValueError(f"{manifest.scheduler} is no scheduler")
    except ValueError as error:
        raise StudyMismatch(
            f"{directory} has a part that only its own code knows ({error}): give the file that "
            "defines it, FILE.py:NAME"
        ) from None
    return Problem(space, manifest.objective, scheduler, NoSearcher(), manifest.seed)


class NoSearcher(Searcher):
    """A searcher without configurations: those of a journal are enough."""

    def setup(self, space: Space, seed: int) -> None:
        pass

    def suggest(self, trial: TrialId) -> Config | None:
        return None


class _Counted:
    """An iterator over records that counts them."""

    def __init__(self, records: Iterator[Record]) -> None:
        self._records = records
        self.n_records = self.n_trials = self.n_ended = 0

    def __iter__(self) -> Iterator[Record]:
        for record in self._records:
            self.n_records += 1
            self.n_trials += isinstance(record, Suggested)
            self.n_ended += isinstance(record, Ended)
            yield record


class _Count:
    """A journal that only counts its records.

    Verdicts on the searcher's model do not count: it is not asked.
    """

    def __init__(self) -> None:
        self.n = 0

    def append(self, record: Record) -> None:
        self.n += not isinstance(record, Judged)

    def flush(self) -> None:
        pass
