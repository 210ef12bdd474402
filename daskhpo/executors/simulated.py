"""Trials in virtual time: the same coordinator, with learning curves in the place of training."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import count
from typing import Protocol

from daskhpo.core.errors import StudyFailed
from daskhpo.core.objective import Objective
from daskhpo.core.types import (
    Chance,
    CheckpointRef,
    Command,
    Config,
    Delete,
    Dropped,
    Event,
    Failed,
    Flush,
    Held,
    Interrupt,
    Lost,
    Release,
    Reported,
    Save,
    Saved,
    SlotsChanged,
    Step,
    Train,
    TrialId,
    Write,
)


class Curve(Protocol):
    """How one configuration would learn. Both methods are cumulative in ``resource`` (from 1)."""

    def metric(self, resource: int) -> float:
        """The metric after so many units of training."""

    def seconds(self, resource: int) -> float:
        """Seconds of training from the trial's first unit to the end of this one."""


@dataclass(slots=True)
class _Run:
    """A trial in a slot; unit ``r`` of its training ends at ``zero + curve.seconds(r)``."""

    attempt: int
    curve: Curve
    resource: int
    until: int
    zero: float


class SimulatedExecutor:
    """A virtual clock and slots that are only counted.

    States are held without a limit, outlive the slot, and take no time to write.

    Parameters
    ----------
    curve : gives the :class:`Curve` of a configuration.
    objective : what is measured.
    n_slots : slots at the start.
    resizes : ``(seconds, n_slots)`` pairs: the slots change then. The trials that began last
        lose theirs, as if their workers had died.
    """

    def __init__(
        self,
        curve: Callable[[Config], Curve],
        objective: Objective,
        n_slots: int,
        resizes: Sequence[tuple[float, int]] = (),
    ) -> None:
        self._curve, self._objective = curve, objective
        self._now = 0.0
        self._runs: dict[TrialId, _Run] = {}
        self._ready: deque[Event] = deque([SlotsChanged(n_slots, 0.0)])
        self._held: dict[int, tuple[CheckpointRef, int]] = {}  # by row, with the attempt
        self._order = count()  # equal times: first in, first out
        self._ends: list[tuple[float, int, TrialId, int, bool]] = []
        self._resizes = sorted(resizes, reverse=True)

    def now(self) -> float:
        return self._now

    def poll(self, deadline: float | None) -> Sequence[Event]:
        while not self._ready:
            at_end = self._ends[0][0] if self._ends else float("inf")
            at_resize = self._resizes[-1][0] if self._resizes else float("inf")
            at = min(at_end, at_resize)
            if deadline is not None and at >= deadline:
                self._now = deadline
                return []
            if at == float("inf"):
                raise StudyFailed("the simulation has no slots, and none will come")
            self._now = at
            if at_resize < at_end:  # of equal times, what was trained comes first
                self._resize(self._resizes.pop()[1])
            else:
                _, _, trial, attempt, yields = heappop(self._ends)
                self._arrive(trial, attempt, yields)
        return [self._ready.popleft()]

    def perform(self, commands: Iterable[Command]) -> None:
        for command in commands:
            match command:
                case Train():
                    self._train(command)
                case Save(trial, attempt, ref, chance):
                    self._held[ref.row] = ref, attempt
                    self._ready.append(Held(trial, attempt, ref, self._now))
                    if chance is Chance.SURE:
                        self._write(ref.row)
                case Write(ref):
                    self._write(ref.row)
                case Flush(rows):
                    for row, (ref, attempt) in self._held.items():
                        if row in rows:
                            self._write(row)
                        reason = "the study is over"
                        self._ready.append(Dropped(ref.trial, attempt, row, reason, self._now))
                    self._held.clear()
                case Release(trial):
                    self._runs.pop(trial, None)
                case Interrupt(trial, attempt):
                    self._interrupt(trial, attempt)
                case Delete(ref):
                    self._held.pop(ref.row, None)

    def close(self) -> None:
        self._runs.clear()

    def _train(self, job: Train) -> None:
        if job.launch:
            curve = self._curve(job.config)
            done = curve.seconds(job.resource) if job.resource else 0.0
            run = _Run(job.attempt, curve, job.resource, job.until, self._now - done)
            self._runs[job.trial] = run
        elif (running := self._runs.get(job.trial)) is not None:
            run = running
            run.until = job.until
        else:  # its slot went away; the coordinator is about to learn that
            return
        self._schedule(job.trial, run, run.until, yields=False)

    def _write(self, row: int) -> None:
        if (held := self._held.get(row)) is not None:
            ref, attempt = held
            saved = replace(ref, array="simulated")
            self._ready.append(Saved(ref.trial, attempt, saved, self._now))

    def _schedule(self, trial: TrialId, run: _Run, resource: int, *, yields: bool) -> None:
        at = max(self._now, run.zero + run.curve.seconds(resource))
        heappush(self._ends, (at, next(self._order), trial, run.attempt, yields))

    def _arrive(self, trial: TrialId, attempt: int, yields: bool) -> None:
        run = self._runs.get(trial)
        if run is None or run.attempt != attempt or run.resource >= run.until:
            return  # it was lost, or handed over already
        if yields:
            run.until = min(run.until, self._done_by_now(run))
        self._report(trial, run, yielded=yields)

    def _report(self, trial: TrialId, run: _Run, *, yielded: bool) -> None:
        steps: list[Step] = []
        metric = self._objective.metric
        for resource in range(run.resource + 1, run.until + 1):
            value = run.curve.metric(resource)
            if not abs(value) < float("inf"):
                self._emit(trial, run, steps)
                error = f"{metric}={value!r} at resource {resource} is not finite"
                self._ready.append(Failed(trial, run.attempt, error, self._now, retry=False))
                return
            seconds = run.zero + run.curve.seconds(resource)
            steps.append(Step(resource, {metric: value}, seconds))
        run.resource = run.until
        self._ready.append(Reported(trial, run.attempt, tuple(steps), self._now, yielded=yielded))

    def _emit(self, trial: TrialId, run: _Run, steps: list[Step]) -> None:
        if steps:
            self._ready.append(Reported(trial, run.attempt, tuple(steps), self._now))

    def _interrupt(self, trial: TrialId, attempt: int) -> None:
        """Hand over at the end of the unit that is being trained."""
        run = self._runs.get(trial)
        if run is None or run.attempt != attempt or run.resource >= run.until:
            return
        unit = min(self._done_by_now(run) + 1, run.until)
        if unit < run.until:
            self._schedule(trial, run, unit, yields=True)

    def _done_by_now(self, run: _Run) -> int:
        resource = run.resource
        while resource < run.until and run.zero + run.curve.seconds(resource + 1) <= self._now:
            resource += 1
        return resource

    def _resize(self, n_slots: int) -> None:
        self._ready.append(SlotsChanged(n_slots, self._now))
        while len(self._runs) > n_slots:
            trial, run = self._runs.popitem()
            if run.resource < run.until:
                run.until = self._done_by_now(run)
                self._report(trial, run, yielded=False)
            self._ready.append(Lost(trial, run.attempt, "its slot went away", self._now, False))
