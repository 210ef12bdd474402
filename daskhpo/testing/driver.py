"""Miniature study: a coordinator, and slots in which things go wrong.

It has no clock and no threads. The next trial to report and every mishap are drawn from a seed.
Failures are keyed by trial and segment, so the same segments fail in any order of arrival.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from daskhpo.core.commands import Command, Delete, Flush, Release, Save, Train, Write
from daskhpo.core.events import (
    AttemptLost,
    Dropped,
    Erred,
    Event,
    Held,
    Reported,
    Saved,
    SessionStarted,
    SlotsChanged,
    Step,
    Trained,
)
from daskhpo.core.objective import Objective
from daskhpo.core.random import rng
from daskhpo.core.scheduler import Scheduler
from daskhpo.core.space import Space
from daskhpo.core.types import CheckpointPolicy, Limits, Report, Status, Trial, TrialId
from daskhpo.engine.coordinator import Coordinator, Problem
from daskhpo.searchers import RandomSearch
from daskhpo.testing.checked import CheckedScheduler
from daskhpo.testing.journal import MemoryJournal

LossCurve = Callable[[TrialId, int], float]
SPACE = Space({"constant": 0})  # what trials differ in is their curve


def a_trial(
    trial: TrialId,
    until: int = 1,
    resource: int = 0,
    bracket: int = 0,
    status: Status = Status.RUNNING,
) -> Trial:
    """Return a trial as a scheduler receives it."""
    return Trial(trial, {}, status, until, bracket, resource, attempt=1)


def a_report(resource: int, loss: float, best_loss: float | None = None) -> Report:
    """Return a report of one loss, which is also the best loss unless that is given."""
    return Report(resource, (loss,), loss if best_loss is None else best_loss)


def noisy_curve(seed: int) -> LossCurve:
    """Return losses that fall with the resource and cross; the seed determines them."""

    def loss(trial: TrialId, resource: int) -> float:
        floor, speed = rng(seed, "curve", trial).random(2)
        noise = rng(seed, "noise", trial, resource).random()
        return float(floor + 0.3 * noise + (0.2 + speed) / math.sqrt(resource))

    return loss


@dataclass(frozen=True)
class Mishaps:
    """Probabilities of mishaps, in [0, 1].

    Attributes
    ----------
    fails : a segment raises.
    lost : a running trial loses its worker, before its report or before its state is saved.
    slow_saves : a state is still being saved when the next event happens.
    failed_saves : a state cannot be saved, so its trial fails.
    forgotten : the state that a trial continues from cannot be read; it trains again from an
        older one, or from the start.
    resizes : the number of slots changes.
    """

    fails: float = 0.0
    lost: float = 0.0
    slow_saves: float = 0.0
    failed_saves: float = 0.0
    forgotten: float = 0.0
    resizes: float = 0.0


EVERYTHING_GOES_WRONG = Mishaps(
    fails=0.1, lost=0.15, slow_saves=0.5, failed_saves=0.05, forgotten=0.1, resizes=0.1
)


class Driver:
    """A study in virtual time, which runs until its scheduler has no more actions.

    Parameters
    ----------
    scheduler : scheduler to drive; it is copied.
    curve : loss of a trial at a resource.
    num_trials : number of trials that may start; see also :meth:`extend`.
    n_workers : number of slots; with one, everything happens in sequence.
    seed : seed of the order of arrival and of the mishaps.
    suspicious : as for :class:`CheckedScheduler`.

    Attributes
    ----------
    scheduler : the copy of the scheduler.
    reached, ended : as of :class:`CheckedScheduler`.
    trials : trials that have not ended.
    records : the journal: all events and their consequences, in order.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        curve: LossCurve,
        num_trials: int,
        n_workers: int = 1,
        seed: int = 0,
        mishaps: Mishaps = Mishaps(),
        suspicious: bool = False,
    ) -> None:
        self._curve, self._n_slots, self._mishaps = curve, n_workers, mishaps
        self._seed, self._order = seed, rng(seed, "order of arrival")
        self._seconds = 0.0
        journal, checked = MemoryJournal(), CheckedScheduler(scheduler, suspicious)
        problem = Problem(SPACE, Objective("loss"), checked, RandomSearch(), seed)
        self._coordinator = Coordinator(problem, journal)
        assert isinstance(self._coordinator.scheduler, CheckedScheduler)
        copied = self._coordinator.scheduler
        self.scheduler, self.reached, self.ended = copied.inner, copied.reached, copied.ended
        self.trials: Mapping[TrialId, Trial] = self._coordinator.ledger.trials
        self.records = journal.records
        self.extend(num_trials)

    @property
    def reports(self) -> list[tuple[TrialId, int]]:
        """Trial and resource of each report, in order."""
        return [(r.trial, r.steps[-1].resource) for r in self.records if isinstance(r, Reported)]

    # -- the study -------------------------------------------------------------------------------

    def retry(self, num_trials: int, mishaps: Mishaps = Mishaps()) -> Driver:
        """Begin a session in which failed trials run again, with other mishaps."""
        self._mishaps = mishaps
        return self.extend(num_trials, retry_failed=True)

    def extend(self, num_trials: int, *, retry_failed: bool = False) -> Driver:
        """Begin a session in which so many trials may have started in all."""
        self._jobs: dict[TrialId, Train] = {}
        self._saves: dict[TrialId, Save] = {}  # requested and not answered
        self._held: dict[int, Save] = {}  # states in memory, by checkpoint id
        self._ready: deque[Event] = deque()
        limits, policy = Limits(num_trials), CheckpointPolicy()
        self._handle(SessionStarted(limits, policy, self._seconds, retry_failed))
        self._handle(SlotsChanged(self._n_slots, self._seconds))
        return self

    def run(self) -> Driver:
        """Run until no trial runs and the scheduler waits."""
        while not self._coordinator.is_drained:
            self.step()
        self._coordinator.ledger.validate()
        return self

    def step(self) -> None:
        """Let the next event happen, to a trial that is drawn among those that run."""
        if not self._ready:
            if self._happens(self._mishaps.resizes):
                n_slots = int(self._order.integers(1, self._n_slots + 1))
                self._handle(SlotsChanged(n_slots, self._seconds))
            running = list(self._jobs)
            assert running, "nothing runs, and the scheduler neither acts nor waits"
            self._ready.append(self._next(running[int(self._order.integers(len(running)))]))
        self._handle(self._ready.popleft())

    def fails(self, number: TrialId, until: int) -> bool:
        """Return True if the segment up to ``until`` raises, in any order of events."""
        return rng(self._seed, "fails", number, until).random() < self._mishaps.fails

    # -- the slots -------------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        self._seconds += 1.0
        self._perform(self._coordinator.handle(event))

    def _next(self, number: TrialId) -> Event:
        """Return what happens to a running trial."""
        job, now = self._jobs[number], self._seconds
        if self._happens(self._mishaps.lost):
            self._release(number)
            return AttemptLost(number, job.attempt, "its worker is gone", now, blame=False)
        if number in self._saves:
            return self._save(number)
        if job.launch and job.checkpoint and self._happens(self._mishaps.forgotten):
            reason = "its state cannot be read"
            return AttemptLost(number, job.attempt, reason, now, blame=False, bad_checkpoint=True)
        if self.fails(number, job.until):
            return Erred(number, job.attempt, "it fails", now, retry=False)
        units = range(job.resource + 1, job.until + 1)
        steps = tuple(Step(r, {"loss": self._curve(number, r)}, now) for r in units)
        return Trained(number, job.attempt, steps, now)

    def _perform(self, commands: Iterable[Command]) -> None:
        for command in commands:
            match command:
                case Train(number):
                    self._jobs[number] = command
                case Save(number):
                    self._saves[number] = command
                    if not self._happens(self._mishaps.slow_saves):
                        self._ready.append(self._save(number))
                case Write(ref):
                    self._write(ref.id)
                case Flush(ids):
                    for checkpoint_id in ids:
                        self._write(checkpoint_id)
                    for save in self._held.values():
                        gone = (save.trial, save.attempt, save.ref.id, "the study is over")
                        self._ready.append(Dropped(*gone, self._seconds))
                    self._held.clear()
                case Release(number):
                    self._release(number)
                case Delete(ref):
                    self._held.pop(ref.id, None)

    def _save(self, number: TrialId) -> Event:
        save = self._saves.pop(number)
        if self._happens(self._mishaps.failed_saves):
            return Erred(number, save.attempt, "it cannot be saved", self._seconds, retry=False)
        self._held[save.ref.id] = save
        return Held(number, save.attempt, save.ref, self._seconds)

    def _write(self, checkpoint_id: int) -> None:
        save = self._held[checkpoint_id]
        ref = replace(save.ref, array="states")
        self._ready.append(Saved(save.trial, save.attempt, ref, self._seconds))

    def _release(self, number: TrialId) -> None:
        self._jobs.pop(number, None)
        self._saves.pop(number, None)

    def _happens(self, probability: float) -> bool:
        return probability > 0 and self._order.random() < probability
