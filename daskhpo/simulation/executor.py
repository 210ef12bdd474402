"""Trials in virtual time: the same coordinator, with learning curves in the place of training."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import Protocol

from daskhpo.checkpoints.write_policy import WriteCost, should_write
from daskhpo.core.commands import Command, Delete, Flush, Interrupt, Release, Save, Train, Write
from daskhpo.core.errors import StudyFailed
from daskhpo.core.events import (
    AttemptLost,
    Dropped,
    Event,
    Failed,
    Held,
    Reported,
    Saved,
    SlotsChanged,
    Step,
)
from daskhpo.core.objective import Objective
from daskhpo.core.types import CheckpointRef, Config, ReuseProbability, TrialId

WRITE_COST = WriteCost()  # of a disk that takes 20 ms and 200 MB/s


class Curve(Protocol):
    """How one configuration would learn. Both methods are cumulative in ``resource`` (from 1)."""

    def metric(self, resource: int) -> float:
        """The metric after so many units of training."""

    def seconds(self, resource: int) -> float:
        """Seconds of training from the trial's first unit to the end of this one."""


@dataclass(frozen=True, slots=True)
class ClusterModel:
    """What a cluster does to a study besides training, in seconds and bytes.

    Attributes
    ----------
    walltime : each slot is a job of this length. A trial hands over at the end of the last unit
        that fits; no unit that does not fit is begun.
    requeue_seconds : from the end of a job until another one takes its place.
    launch_seconds : from a trial's launch into a slot to its first unit there.
    state_bytes : size of a trial's state; None: trials have none, and train again what they left.
    durability : of the study's :class:`CheckpointPolicy`: held states are written if that is worth
        it, and leave memory with their job. None: only what is needed for sure is written, and
        memory outlives the job.
    """

    walltime: float = inf
    requeue_seconds: float = 0.0
    launch_seconds: float = 0.0
    state_bytes: int | None = 0
    durability: float | None = None

    def __post_init__(self) -> None:
        if not self.walltime > 0:
            raise ValueError(f"walltime={self.walltime!r} must be above 0 (seconds)")
        for name in ("requeue_seconds", "launch_seconds", "state_bytes"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < inf:
                raise ValueError(f"{name}={value!r} must be 0 or more, and finite")


IDEAL_CLUSTER = ClusterModel()


class _End(Enum):
    """Why a stretch of training ends."""

    SEGMENT = auto()
    INTERRUPT = auto()
    JOB = auto()


@dataclass(slots=True)
class _Run:
    """A trial in a slot; unit ``r`` of its training ends at ``zero + curve.seconds(r)``."""

    attempt: int
    curve: Curve
    resource: int
    until: int
    zero: float
    steps: list[Step] = field(default_factory=list)  # of its segment, as they will be reported
    error: str = ""  # what is wrong with the unit after them
    error_at: float = inf  # when that unit ends

    def n_done(self, now: float) -> int:
        """Good units of the segment that have ended."""
        n = len(self.steps)
        while n and self.steps[n - 1].seconds > now:
            n -= 1
        return n


@dataclass(slots=True)
class _State:
    """A state in memory; it took ``seconds`` of training to come to."""

    ref: CheckpointRef
    attempt: int
    chance: ReuseProbability
    seconds: float


class SimulatedExecutor:
    """A virtual clock and slots that are only counted.

    Writing and reading states takes no time, and memory has room for all of them.

    Parameters
    ----------
    curve : gives the :class:`Curve` of a configuration.
    objective : what is measured.
    n_slots : slots at the start.
    resizes : ``(seconds, n_slots)`` pairs: the slots change then. The trials that began last
        lose theirs, as if their workers had died.
    cluster : walltime, time to launch, size of states.
    """

    def __init__(
        self,
        curve: Callable[[Config], Curve],
        objective: Objective,
        n_slots: int,
        resizes: Sequence[tuple[float, int]] = (),
        cluster: ClusterModel = IDEAL_CLUSTER,
    ) -> None:
        if resizes and cluster.walltime < inf:
            raise ValueError("give resizes or a walltime, not both: each says when slots go")
        self._curve, self._objective, self._cluster = curve, objective, cluster
        self._now = 0.0
        self._n_slots = self._n_jobs = n_slots
        self._job_begins, self._job_ends, self._away = 0.0, cluster.walltime, False
        self._runs: dict[TrialId, _Run] = {}
        self._ready: deque[Event] = deque([SlotsChanged(n_slots, 0.0)])
        self._held: dict[int, _State] = {}  # by row
        self._saved: dict[TrialId, float] = {}  # seconds of a trial's training that a file holds
        self._order = count()  # equal times: first in, first out
        self._ends: list[tuple[float, int, TrialId, int, _End]] = []
        self._resizes = sorted(resizes, reverse=True)

    def now(self) -> float:
        return self._now

    def poll(self, deadline: float | None) -> Sequence[Event]:
        while not self._ready:
            at_end = self._ends[0][0] if self._ends else inf
            at_resize = self._resizes[-1][0] if self._resizes else inf
            at_turn = self._job_begins if self._away else self._job_ends
            at = min(at_end, at_resize, at_turn)
            if deadline is not None and at >= deadline:
                self._now = deadline
                return []
            if at == inf:
                raise StudyFailed("the simulation has no slots, and none will come")
            self._now = at
            if at == at_end:  # of equal times, what was trained comes first
                _, _, trial, attempt, end = heappop(self._ends)
                self._arrive(trial, attempt, end)
            elif at == at_resize:
                self._resize(self._resizes.pop()[1])
            elif self._away:
                self._away = False
                self._set_slots(self._n_jobs)
            else:
                self._end_jobs()
        return [self._ready.popleft()]

    def perform(self, commands: Iterable[Command]) -> None:
        for command in commands:
            match command:
                case Train():
                    self._train(command)
                case Save(trial, attempt, ref, chance):
                    self._save(trial, attempt, ref, chance)
                case Write(ref):
                    self._write(ref.id)
                case Flush(rows, write):
                    for row in rows:
                        self._write(row)
                    self._let_go("the study is over", write=write)
                case Release(trial):
                    self._runs.pop(trial, None)
                case Interrupt(trial, attempt):
                    self._interrupt(trial, attempt)
                case Delete(ref):
                    self._held.pop(ref.id, None)

    def close(self) -> None:
        self._runs.clear()

    # -- training --------------------------------------------------------------------------------

    def _train(self, job: Train) -> None:
        if job.launch:
            curve = self._curve(job.config)
            done = curve.seconds(job.resource) if job.resource else 0.0
            zero = self._now + self._cluster.launch_seconds - done
            run = _Run(job.attempt, curve, job.resource, job.until, zero)
            self._runs[job.trial] = run
        elif (running := self._runs.get(job.trial)) is not None:
            run = running
            run.until = job.until
        else:  # its slot went away; the coordinator is about to learn that
            return
        at = self._foresee(run)
        if at <= self._job_ends:
            self._schedule(job.trial, run, at, _End.SEGMENT)
            return
        n = run.n_done(self._job_ends)
        if n == 0 and job.launch and self._now <= self._job_begins:
            unit = run.zero + run.curve.seconds(run.resource + 1) - self._now
            raise StudyFailed(
                f"unit {run.resource + 1} of trial {job.trial} takes {unit:g} s from its launch, "
                f"more than the walltime of {self._cluster.walltime:g} s: no job can train it"
            )
        self._schedule(job.trial, run, run.steps[n - 1].seconds if n else self._now, _End.JOB)

    def _foresee(self, run: _Run) -> float:
        """Work out the run's segment; when it ends, at the latest by a metric that is no number."""
        metric, run.steps, run.error, run.error_at = self._objective.metric, [], "", inf
        at = self._now
        for resource in range(run.resource + 1, run.until + 1):
            value = run.curve.metric(resource)
            at = run.zero + run.curve.seconds(resource)
            if not abs(value) < inf:
                run.error = f"{metric}={value!r} at resource {resource} is not finite"
                run.error_at = at
                break
            run.steps.append(Step(resource, {metric: value}, at))
        return at

    def _schedule(self, trial: TrialId, run: _Run, at: float, end: _End) -> None:
        heappush(self._ends, (max(self._now, at), next(self._order), trial, run.attempt, end))

    def _arrive(self, trial: TrialId, attempt: int, end: _End) -> None:
        run = self._runs.get(trial)
        if run is None or run.attempt != attempt or run.resource >= run.until:
            return  # it was lost, or handed over already
        if end is _End.JOB:
            self._set_slots(self._n_slots - 1)
        self._report(trial, run, yielded=end is not _End.SEGMENT)

    def _report(self, trial: TrialId, run: _Run, *, yielded: bool) -> None:
        """Tell what was trained by now, and whether it ends with that."""
        failed = run.error_at <= self._now
        n = run.n_done(self._now)
        steps, run.steps = tuple(run.steps[:n]), []
        run.resource += n
        run.until = run.resource  # nothing of this segment is to come
        if steps or not failed:
            yields = yielded and not failed
            self._ready.append(Reported(trial, run.attempt, steps, self._now, preempted=yields))
        if failed:
            self._ready.append(Failed(trial, run.attempt, run.error, self._now, retry=False))

    def _interrupt(self, trial: TrialId, attempt: int) -> None:
        """Hand over at the end of the unit that is being trained."""
        run = self._runs.get(trial)
        if run is None or run.attempt != attempt or run.resource >= run.until:
            return
        unit = run.n_done(self._now)  # the first one that has not ended
        if unit < len(run.steps) - (not run.error):  # else the segment ends with it anyway
            self._schedule(trial, run, run.steps[unit].seconds, _End.INTERRUPT)

    # -- slots -----------------------------------------------------------------------------------

    def _set_slots(self, n_slots: int) -> None:
        self._n_slots = n_slots
        self._ready.append(SlotsChanged(n_slots, self._now))

    def _resize(self, n_slots: int) -> None:
        self._set_slots(n_slots)
        while len(self._runs) > n_slots:
            trial, run = self._runs.popitem()
            if run.resource < run.until:
                self._report(trial, run, yielded=False)
            self._ready.append(
                AttemptLost(trial, run.attempt, "its slot went away", self._now, False)
            )

    def _end_jobs(self) -> None:
        """Whoever trained has handed over; memory goes with the jobs."""
        if self._cluster.durability is not None:
            self._let_go("its job ended", write=True)
        if self._n_slots:  # they had nothing to train
            self._set_slots(0)
        self._job_begins = self._job_ends + self._cluster.requeue_seconds
        self._job_ends = self._job_begins + self._cluster.walltime
        self._away = True

    # -- states ----------------------------------------------------------------------------------

    def _save(
        self, trial: TrialId, attempt: int, ref: CheckpointRef, chance: ReuseProbability
    ) -> None:
        site = self._cluster
        if site.state_bytes is None:
            self._ready.append(Held(trial, attempt, None, self._now))
            return
        seconds = self._runs[trial].curve.seconds(ref.resource)
        state = _State(ref, attempt, chance, seconds)
        self._held[ref.id] = state
        self._ready.append(Held(trial, attempt, ref, self._now))
        if self._is_worth(state, leaving=False):
            self._write(ref.id)

    def _is_worth(self, state: _State, *, leaving: bool) -> bool:
        if self._cluster.durability is None:
            return state.chance is ReuseProbability.CERTAIN
        return should_write(
            state.chance,
            state.seconds - self._saved.get(state.ref.trial, 0.0),
            WRITE_COST.seconds(self._cluster.state_bytes or 0),
            is_evicting=leaving,
            durability=self._cluster.durability,
        )

    def _write(self, row: int) -> None:
        if (state := self._held.get(row)) is not None and not state.ref.array:
            n_bytes = self._cluster.state_bytes or 0
            state.ref = ref = replace(state.ref, array="simulated", n_bytes=n_bytes)
            self._saved[ref.trial] = state.seconds
            self._ready.append(Saved(ref.trial, state.attempt, ref, self._now))

    def _let_go(self, reason: str, *, write: bool) -> None:
        """Memory is lost; before that what is worth it is written, if it shall be."""
        for row, state in self._held.items():
            if write and self._is_worth(state, leaving=True):
                self._write(row)
            self._ready.append(Dropped(state.ref.trial, state.attempt, row, reason, self._now))
        self._held.clear()
