"""An executor in virtual time: learning curves replace training."""

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
from daskhpo.core.arguments import check_number, optional
from daskhpo.core.commands import Command, Delete, Flush, Interrupt, Release, Save, Train, Write
from daskhpo.core.errors import StudyFailed
from daskhpo.core.events import (
    AttemptLost,
    Dropped,
    Erred,
    Event,
    Held,
    Saved,
    SlotsChanged,
    Step,
    Trained,
)
from daskhpo.core.objective import Objective
from daskhpo.core.types import CheckpointRef, Config, ReuseProbability, TrialId

WRITE_COST = WriteCost()  # unmeasured: a disk with 20 ms a write and 200 MB/s


class Curve(Protocol):
    """A learning curve of one configuration, by cumulative ``resource`` (from 1)."""

    def metric(self, resource: int) -> float:
        """Return the metric after ``resource`` units of training."""

    def seconds(self, resource: int) -> float:
        """Return the seconds from the start of the first unit to the end of this one."""


@dataclass(frozen=True, slots=True)
class ClusterModel:
    """Costs of a cluster besides training, in seconds and bytes.

    Attributes
    ----------
    walltime : seconds of a job; each slot is one job. A trial is preempted after the last unit that
        fits, and no unit is started that does not fit. inf: jobs do not end.
    requeue_seconds : from the end of a job to the start of the next one in its slot.
    launch_seconds : from a trial's launch in a slot to its first unit there.
    state_bytes : size of a trial's state; None: trials have no state, and repeat their training
        when they continue.
    durability : of the study's :class:`CheckpointPolicy`. Held states are written if they are worth
        a write, and are removed from memory when their job ends. None: only states that are
        certainly needed again are written, and memory outlives the jobs.
    """

    walltime: float = inf
    requeue_seconds: float = 0.0
    launch_seconds: float = 0.0
    state_bytes: int | None = 0
    durability: float | None = None

    def __post_init__(self) -> None:
        check_number("walltime", self.walltime, above=0, at_most=inf, why="seconds")
        for name in ("requeue_seconds", "launch_seconds"):
            check_number(name, getattr(self, name), at_least=0)
        optional(check_number, "state_bytes", self.state_bytes, at_least=0)
        optional(check_number, "durability", self.durability, above=0, at_most=inf)


IDEAL_CLUSTER = ClusterModel()


class _End(Enum):
    """Reason why a stretch of training ends."""

    SEGMENT = auto()
    INTERRUPT = auto()
    JOB = auto()


@dataclass(slots=True)
class _Run:
    """A trial in a slot; its unit ``r`` ends at ``zero + curve.seconds(r)``."""

    attempt: int
    curve: Curve
    resource: int
    until: int
    zero: float
    steps: list[Step] = field(default_factory=list)  # of the current segment, not reported yet
    error: str = ""  # error of the unit after these steps
    error_at: float = inf  # end of that unit

    def n_done(self, now: float) -> int:
        """Return the number of valid units in the segment that have ended."""
        n = len(self.steps)
        while n and self.steps[n - 1].seconds > now:
            n -= 1
        return n


@dataclass(slots=True)
class _State:
    """A state in memory, after ``seconds`` of training."""

    ref: CheckpointRef
    attempt: int
    probability: ReuseProbability
    seconds: float


class SimulatedExecutor:
    """An executor with a virtual clock and a number of slots.

    Writing and reading states takes no time, and memory has room for all states.

    Parameters
    ----------
    curve : a source: returns the :class:`Curve` of a configuration.
    objective : metric and mode of the study.
    n_slots : slots at the start.
    resizes : ``(seconds, n_slots)`` pairs: new numbers of slots, with their times. If slots are
        removed, the trials that were launched last lose theirs, as if their workers had died.
    cluster : walltime, launch time and size of states.
    began_at : virtual seconds of earlier sessions.
    """

    def __init__(
        self,
        curve: Callable[[Config], Curve],
        objective: Objective,
        n_slots: int,
        resizes: Sequence[tuple[float, int]] = (),
        cluster: ClusterModel = IDEAL_CLUSTER,
        began_at: float = 0.0,
    ) -> None:
        if resizes and cluster.walltime < inf:
            raise ValueError("give resizes or a walltime, not both: each determines when slots end")
        self._curve, self._objective, self._cluster = curve, objective, cluster
        self._now = began_at
        self._n_slots = self._n_jobs = n_slots
        self._job_begins, self._job_ends = began_at, began_at + cluster.walltime
        self._away = False
        self._runs: dict[TrialId, _Run] = {}
        self._ready: deque[Event] = deque([SlotsChanged(n_slots, began_at)])
        self._held: dict[int, _State] = {}  # by checkpoint id
        self._saved: dict[TrialId, float] = {}  # seconds of training in a trial's written state
        self._order = count()  # for equal times: first in, first out
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
            if at == at_end:  # for equal times, ends of training come first
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
                case Save(trial, attempt, ref, probability):
                    self._save(trial, attempt, ref, probability)
                case Write(ref):
                    self._write(ref.id)
                case Flush(ids, write):
                    for checkpoint_id in ids:
                        self._write(checkpoint_id)
                    self._drop_all("the study is over", write=write)
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
        else:  # its slot was removed; AttemptLost is on its way to the coordinator
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
                f"more than the walltime of {self._cluster.walltime:g} s, so no job can train it: "
                "increase the walltime, or make units shorter"
            )
        self._schedule(job.trial, run, run.steps[n - 1].seconds if n else self._now, _End.JOB)

    def _foresee(self, run: _Run) -> float:
        """Compute the steps of the run's segment; return when it ends.

        A metric that is not finite ends the segment.
        """
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
            return  # the trial was lost or preempted already
        if end is _End.JOB:
            self._set_slots(self._n_slots - 1)
        self._report(trial, run, preempted=end is not _End.SEGMENT)

    def _report(self, trial: TrialId, run: _Run, *, preempted: bool) -> None:
        """Report the steps so far, and a failure if there was one."""
        failed = run.error_at <= self._now
        n = run.n_done(self._now)
        steps, run.steps = tuple(run.steps[:n]), []
        run.resource += n
        run.until = run.resource  # the segment ends here
        if steps or not failed:
            preempted = preempted and not failed
            self._ready.append(Trained(trial, run.attempt, steps, self._now, preempted=preempted))
        if failed:
            self._ready.append(Erred(trial, run.attempt, run.error, self._now, retry=False))

    def _interrupt(self, trial: TrialId, attempt: int) -> None:
        """Preempt a trial at the end of its current unit."""
        run = self._runs.get(trial)
        if run is None or run.attempt != attempt or run.resource >= run.until:
            return
        unit = run.n_done(self._now)  # the first one that has not ended
        if unit < len(run.steps) - (not run.error):  # otherwise this unit ends the segment
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
                self._report(trial, run, preempted=False)
            self._ready.append(
                AttemptLost(trial, run.attempt, "its slot was removed", self._now, False)
            )

    def _end_jobs(self) -> None:
        """End all jobs and their memory; running trials have been preempted before."""
        if self._cluster.durability is not None:
            self._drop_all("its job ended", write=True)
        if self._n_slots:  # the slots that were idle
            self._set_slots(0)
        self._job_begins = self._job_ends + self._cluster.requeue_seconds
        self._job_ends = self._job_begins + self._cluster.walltime
        self._away = True

    # -- states ----------------------------------------------------------------------------------

    def _save(
        self, trial: TrialId, attempt: int, ref: CheckpointRef, probability: ReuseProbability
    ) -> None:
        site = self._cluster
        if site.state_bytes is None:
            self._ready.append(Held(trial, attempt, None, self._now))
            return
        seconds = self._runs[trial].curve.seconds(ref.resource)
        state = _State(ref, attempt, probability, seconds)
        self._held[ref.id] = state
        self._ready.append(Held(trial, attempt, ref, self._now))
        if self._should_write(state, leaving=False):
            self._write(ref.id)

    def _should_write(self, state: _State, *, leaving: bool) -> bool:
        if self._cluster.durability is None:
            return state.probability is ReuseProbability.CERTAIN
        return should_write(
            state.probability,
            state.seconds - self._saved.get(state.ref.trial, 0.0),
            WRITE_COST.seconds(self._cluster.state_bytes or 0),
            is_evicting=leaving,
            durability=self._cluster.durability,
        )

    def _write(self, checkpoint_id: int) -> None:
        if (state := self._held.get(checkpoint_id)) is not None and not state.ref.array:
            n_bytes = self._cluster.state_bytes or 0
            state.ref = ref = replace(state.ref, array="simulated", n_bytes=n_bytes)
            self._saved[ref.trial] = state.seconds
            self._ready.append(Saved(ref.trial, state.attempt, ref, self._now))

    def _drop_all(self, reason: str, *, write: bool) -> None:
        """Drop all states from memory; ``write``: first write those worth a write."""
        for checkpoint_id, state in self._held.items():
            if write and self._should_write(state, leaving=True):
                self._write(checkpoint_id)
            self._ready.append(
                Dropped(state.ref.trial, state.attempt, checkpoint_id, reason, self._now)
            )
        self._held.clear()
