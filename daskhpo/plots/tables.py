"""A study as columns of numbers: all that its plots need, in little memory."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from daskhpo.core.domains import Domain
from daskhpo.core.objective import Objective
from daskhpo.core.types import Array, Config, Limits, Status, TrialId

STATES = tuple(Status)  # a trial's state is stored as a position in this list
MAX_UNITS = 400_000  # units of training that are kept; then every other one is dropped
MAX_PIECES = 20_000  # configurations of members of a population
MAX_ERRORS = 500  # tracebacks
UNFINISHED = math.nan


class Column:
    """Values of one hyperparameter, one a trial: numbers, or positions of levels.

    Attributes
    ----------
    levels : the distinct values as text, if any is not a number; else None.
    """

    def __init__(self) -> None:
        self._values = array("d")
        self.levels: list[str] | None = None
        self._positions: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._values)

    @property
    def values(self) -> Array:
        """Numbers, or positions of levels; NaN: the trial has no such hyperparameter."""
        return np.array(self._values)

    def put(self, place: int, value: Any) -> None:
        """Set the value of a trial, which may be new."""
        self._values.extend([math.nan] * (place + 1 - len(self._values)))
        if self.levels is None and not _is_number(value):
            self._use_levels()
        self._values[place] = float(value) if self.levels is None else self._position(value)

    def _use_levels(self) -> None:
        self.levels = []
        for place, number in enumerate(self._values):
            if not math.isnan(number):
                self._values[place] = self._position(number)

    def _position(self, value: Any) -> int:
        text = short(value)
        if text not in self._positions:
            assert self.levels is not None
            self._positions[text] = len(self.levels)
            self.levels.append(text)
        return self._positions[text]


@dataclass(frozen=True)
class Piece:
    """A configuration with which a member of a population trained from a resource on.

    ``source``: the trial whose state it took over; its own number: it only changed.
    ``left``: the resource at which it left its configuration before.
    """

    trial: TrialId
    start: int
    seconds: float
    source: TrialId
    left: int
    config: Config


@dataclass
class JobSpan:
    """A Slurm job while its workers had slots.

    Attributes
    ----------
    job : its id.
    began, ended : seconds since the study began; ``ended`` is NaN while it has slots.
    n_slots, most_slots : slots now, and at most.
    """

    job: str
    began: float
    ended: float = UNFINISHED
    n_slots: int = 0
    most_slots: int = 0


@dataclass
class Facts:
    """Definition and state of a study as a whole; times in seconds.

    ``path`` is its directory as a word for a command line; ``seconds_left`` is None if no trial
    runs, or nothing tells when the study ends.
    """

    name: str = ""
    path: str = "PATH"
    scheduler: str = ""
    searcher: str = ""
    seed: int | None = None
    space: Mapping[str, Domain] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    seconds: float = 0.0
    session_began: float = 0.0
    seconds_left: float | None = None
    n_slots: int = 0
    slot_seconds: float = 0.0
    idle_seconds: float = 0.0
    useful_seconds: float = 0.0
    lost_seconds: float = 0.0
    saving_seconds: float = 0.0
    search_seconds: float = 0.0
    stored_bytes: int = 0
    stored_files: int = 0
    written_bytes: int = 0
    written_files: int = 0
    max_bytes: int | None = None
    max_files: int | None = None
    stop_reason: str = ""
    jobs: list[str] = field(default_factory=list)


class StudyTables:
    """All that the plots of one study need.

    Parameters
    ----------
    objective : its metric.

    Attributes
    ----------
    n_trials : number of trials; their columns have one entry each, by number.
    status : position in `STATES`.
    resource, until, bracket : as in :class:`~daskhpo.core.types.Trial`; ``until`` is the furthest.
    best, last : its best and its last loss; inf before the first.
    started, ended : seconds since the study began; NaN: not ended.
    in_slot : seconds in slots.
    at : seconds of its best report.
    unit_trial, unit_resource, unit_loss, unit_seconds : units of training, in order of arrival.
    n_dropped : units that are no longer kept, see `MAX_UNITS`.
    judged_trial, judged_resource, judged_loss : reports on which a scheduler decided.
    run_trial, run_lane, run_start, run_worked, run_end, run_lost : launches: slot (the lowest
        free number), begin, last report, end (NaN: still there), 1 if what came after the last
        report was lost.
    slots_seconds, slots_n, slots_total : numbers of slots, each with the time of its beginning, and
        the slot-seconds until then.
    best_seconds, best_loss : improvements of the study's best, by the times of their units.
    jobs : the Slurm jobs whose workers had slots, in order of their beginning.
    """

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.facts = Facts()
        self.config: dict[str, Column] = {}
        self.status, self.bracket = array("b"), array("i")
        self.resource, self.until = array("i"), array("i")
        self.best, self.last = array("d"), array("d")
        self.started, self.ended, self.in_slot = array("d"), array("d"), array("d")
        self.at = array("d")
        self.unit_trial, self.unit_resource = array("i"), array("i")
        self.unit_loss, self.unit_seconds = array("d"), array("d")
        self.n_dropped = 0
        self.judged_trial, self.judged_resource, self.judged_loss = (
            array("i"),
            array("i"),
            array("d"),
        )
        self.run_trial, self.run_lane, self.run_lost = array("i"), array("i"), array("b")
        self.run_start, self.run_worked, self.run_end = array("d"), array("d"), array("d")
        self.slots_seconds, self.slots_n, self.slots_total = array("d"), array("i"), array("d")
        self.best_seconds, self.best_loss = array("d"), array("d")
        self.jobs: list[JobSpan] = []
        self.pieces: list[Piece] = []
        self.reasons: dict[TrialId, str] = {}
        self.errors: dict[TrialId, str] = {}
        self._texts: dict[str, str] = {}

    @property
    def n_trials(self) -> int:
        """Number of trials."""
        return len(self.status)

    def names(self) -> list[str]:
        """Return the hyperparameters that differ between trials, in order."""
        return [name for name, column in self.config.items() if _varies(column.values)]

    def state(self, trial: TrialId) -> str:
        """Return the word for a trial's status."""
        return STATES[self.status[trial]].value

    def value(self, loss: Any) -> Any:
        """Convert losses to the user's metric; NaN for what is not finite."""
        losses = np.asarray(loss, float)
        values = losses if self.objective.mode == "min" else -losses
        return np.where(np.isfinite(values), values, np.nan)

    def text_of(self, trial: TrialId) -> str:
        """Return a trial's configuration as one short line."""
        parts = []
        for name, column in self.config.items():
            if trial < len(column) and not math.isnan(number := column._values[trial]):
                parts.append(f"{name}={self._shown(column, number)}")
        return " ".join(parts)

    def setting(self, name: str, trial: TrialId) -> str:
        """Return the value of one hyperparameter as text."""
        column = self.config[name]
        missing = trial >= len(column) or math.isnan(column._values[trial])
        return "" if missing else self._shown(column, column._values[trial])

    @staticmethod
    def _shown(column: Column, number: float) -> str:
        return short(number) if column.levels is None else column.levels[int(number)]

    # -- what a recorder adds --------------------------------------------------------------------

    def add_trial(self, bracket: int, seconds: float) -> None:
        """Add a trial, whose number is the next one; its configuration may follow later."""
        self.status.append(0)
        self.bracket.append(bracket)
        self.resource.append(0)
        self.until.append(0)
        self.best.append(math.inf)
        self.last.append(math.inf)
        self.started.append(seconds)
        self.ended.append(UNFINISHED)
        self.in_slot.append(0.0)
        self.at.append(UNFINISHED)

    def set_config(self, trial: TrialId, config: Config) -> None:
        """Set a trial's configuration."""
        for name, value in config.items():
            if name not in self.config:
                self.config[name] = Column()
            self.config[name].put(trial, value)

    def add_slots(self, n_slots: int, seconds: float, total: float, job: str = "") -> None:
        """Set the number of slots, of which one came or went with a worker of this job."""
        gained = n_slots > (self.slots_n[-1] if self.slots_n else 0)
        self.slots_seconds.append(seconds)
        self.slots_n.append(n_slots)
        self.slots_total.append(total)
        if n_slots == 0:
            self._end_jobs(self.jobs, seconds)
        elif job:
            self._change_job(job, seconds, gained)

    def _change_job(self, job: str, seconds: float, gained: bool) -> None:
        has_slots = [span for span in self.jobs if span.job == job and span.n_slots]
        if gained and not has_slots:
            self.jobs.append(JobSpan(job, seconds))
            has_slots = self.jobs[-1:]
        for span in has_slots[-1:]:
            span.n_slots += 1 if gained else -1
            span.most_slots = max(span.most_slots, span.n_slots)
            if span.n_slots == 0:
                self._end_jobs([span], seconds)

    @staticmethod
    def _end_jobs(spans: Iterable[JobSpan], seconds: float) -> None:
        for span in spans:
            if math.isnan(span.ended):
                span.n_slots, span.ended = 0, seconds

    def add_best(self, seconds: float, loss: float) -> None:
        """Add a loss that may be the best until then; units may be out of order."""
        place = bisect_right(self.best_seconds, seconds)
        if place and self.best_loss[place - 1] <= loss:
            return
        end = place
        while end < len(self.best_loss) and self.best_loss[end] >= loss:
            end += 1
        self.best_seconds[place:end] = array("d", [seconds])
        self.best_loss[place:end] = array("d", [loss])

    def add_unit(self, trial: TrialId, resource: int, loss: float, seconds: float) -> None:
        """Add a unit of training."""
        self.unit_trial.append(trial)
        self.unit_resource.append(resource)
        self.unit_loss.append(loss)
        self.unit_seconds.append(seconds)
        if len(self.unit_trial) >= MAX_UNITS:
            self._drop_units()

    def _drop_units(self) -> None:
        """Keep every other unit of each trial, and those of its first half-dozen."""
        trial, resource = np.array(self.unit_trial), np.array(self.unit_resource)
        order = np.argsort(trial, kind="stable")
        first = np.r_[True, trial[order][1:] != trial[order][:-1]]
        begin = np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))
        place = np.empty(len(order), int)
        place[order] = np.arange(len(order)) - begin
        keep = (place % 2 == 0) | (resource <= 1)
        self.n_dropped += int((~keep).sum())
        for name in ("unit_trial", "unit_resource", "unit_loss", "unit_seconds"):
            old = getattr(self, name)
            setattr(self, name, array(old.typecode, np.array(old)[keep].tobytes()))

    def add_piece(self, piece: Piece) -> None:
        """Add a member's configuration; the oldest go when there are too many."""
        self.pieces.append(piece)
        if len(self.pieces) > MAX_PIECES:
            del self.pieces[: MAX_PIECES // 10]

    def set_reason(self, trial: TrialId, reason: str, error: str) -> None:
        """Set why a trial ended, and its traceback."""
        if reason:
            self.reasons[trial] = self._texts.setdefault(reason, reason)
        if error:
            self.errors[trial] = error
            if len(self.errors) > MAX_ERRORS:
                del self.errors[next(iter(self.errors))]


def short(value: Any, length: int = 40) -> str:
    """Return a value as text of at most ``length`` characters."""
    if isinstance(value, float):
        return f"{value:.4g}"
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= length else text[: length - 1] + "…"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _varies(values: Array) -> bool:
    there = values[~np.isnan(values)]
    return bool(there.size) and bool((there != there[0]).any() or there.size < values.size)
