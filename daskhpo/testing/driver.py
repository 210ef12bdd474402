"""Miniature study: one scheduler on virtual workers.

It drives the scheduler as the coordinator would, but has no clock and no threads. The next worker
and every mishap are drawn from a seed. Failures are keyed by trial and segment, so the same
segments fail in any order of arrival.
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass

from daskhpo.core.random import rng
from daskhpo.core.scheduler import Scheduler
from daskhpo.core.types import (
    Action,
    CheckpointRef,
    Config,
    Continue,
    Decision,
    Discard,
    Exploit,
    Pause,
    Report,
    Resume,
    Start,
    Status,
    Stop,
    Trial,
    TrialId,
    Wait,
)

LossCurve = Callable[[TrialId, int], float]


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
    forgotten : a trial resumes without a checkpoint and trains again from the start.
    resizes : the number of workers changes.
    """

    fails: float = 0.0
    lost: float = 0.0
    slow_saves: float = 0.0
    failed_saves: float = 0.0
    forgotten: float = 0.0
    resizes: float = 0.0


EVERYTHING_GOES_WRONG = Mishaps(
    fails=0.1, lost=0.15, slow_saves=0.5, failed_saves=0.05, forgotten=0.3, resizes=0.1
)


class Driver:
    """A study on virtual workers, which runs until its scheduler has no more actions.

    Parameters
    ----------
    scheduler : scheduler to drive; it is copied.
    curve : loss of a trial at a resource.
    num_trials : number of trials that may start; may be raised later, before another :meth:`run`.
    n_workers : number of slots; with one, everything happens in sequence.
    seed : seed of the order of arrival and of the mishaps.
    suspicious : True: request each action twice, and once with the opposite ``can_start``, and
        check that the scheduler does not change.

    Attributes
    ----------
    script : all events in order, as tuples that begin with a word.
    reached : trials that reported at (bracket, resource), in the order of arrival.
    ended : status and resource at which each trial ended.
    trials : trials that have not ended.
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
        self.scheduler = copy.deepcopy(scheduler)
        self.curve, self.num_trials, self.n_workers = curve, num_trials, n_workers
        self.mishaps, self.suspicious = mishaps, suspicious
        self.trials: dict[TrialId, Trial] = {}
        self.n_started = 0
        self.script: list[tuple[object, ...]] = []
        self.reached: dict[tuple[int, int], list[TrialId]] = defaultdict(list)
        self.ended: dict[TrialId, tuple[Status, int]] = {}
        self._most_workers = n_workers
        self._n_states = 0
        self._queue: deque[TrialId] = deque()
        self._seed = seed
        self._order = rng(seed, "order of arrival")

    # -- the study -------------------------------------------------------------------------------

    def run(self) -> Driver:
        """Run until no trial runs and the scheduler waits."""
        self.fill()
        while running := self.running():
            if self._happens(self.mishaps.resizes):
                self.n_workers = int(self._order.integers(1, self._most_workers + 1))
            self.step(running[int(self._order.integers(len(running)))])
            self.fill()
        assert not self._queue, "a lost trial was not launched again"
        assert isinstance(self.ask(), Wait), "a worker is idle although the scheduler has an action"
        return self

    def running(self) -> list[TrialId]:
        """Return the trials that hold a slot."""
        return [t.id for t in self.trials.values() if t.status is Status.RUNNING]

    def fill(self) -> None:
        """Give work to free slots, until the scheduler waits."""
        while len(self.running()) < self.n_workers:
            if self._queue:
                self._run_again(self._queue.popleft())
                continue
            match self.ask():
                case Start(until, bracket):
                    assert self.n_started < self.num_trials, "more than num_trials were started"
                    assert 0 < until <= self.scheduler.max_t
                    trial = Trial(self.n_started, {}, Status.QUEUED, until, bracket)
                    self.n_started += 1
                    self.trials[trial.id] = trial
                    self.script.append(("start", trial.id, until, bracket))
                    self.scheduler.on_launch(self._launch(trial.id))
                case Resume(number, until):
                    trial = self._paused(number)
                    assert trial.resource < until <= self.scheduler.max_t
                    self.trials[number] = trial._replace(until=until)
                    self.script.append(("resume", number, until))
                    self.scheduler.on_launch(self._launch(number))
                case Exploit(number, source, config):
                    self._exploit(self._paused(number), source, config)
                case Discard(number):
                    self._paused(number)
                    self.script.append(("discard", number))
                    self._end(number, Status.STOPPED)
                case Wait():
                    return

    def ask(self) -> Action:
        """Return the scheduler's action for a free slot."""
        can_start = self.n_started < self.num_trials
        if not self.suspicious:
            return self.scheduler.next_action(self.trials, can_start)
        unasked = copy.deepcopy(self.scheduler)
        self.scheduler.next_action(self.trials, not can_start)
        first = self.scheduler.next_action(self.trials, can_start)
        assert self.scheduler.next_action(self.trials, can_start) == first
        assert unasked.next_action(self.trials, can_start) == first
        return first

    def step(self, number: TrialId) -> None:
        """Let the next event of a running trial happen."""
        trial = self.trials[number]
        if self._happens(self.mishaps.lost):
            self.script.append(("lost", number))
            self.trials[number] = trial._replace(status=Status.QUEUED)
            self._queue.append(number)
        elif isinstance(trial.decision, Pause):
            self._save(trial)
        elif self.fails(number, trial.until):
            self._fail(trial)
        else:
            self._report(trial)

    def fails(self, number: TrialId, until: int) -> bool:
        """Return True if the segment up to ``until`` raises, in any order of events."""
        return rng(self._seed, "fails", number, until).random() < self.mishaps.fails

    # -- details ---------------------------------------------------------------------------------

    def _run_again(self, number: TrialId) -> None:
        """Launch a lost trial again, or pause it if it is rolled back before its exploit."""
        trial = self.trials[number]
        forgotten = self._happens(self.mishaps.forgotten)
        if forgotten and trial.since > 0:
            trial = trial._replace(resource=0, held=None)
            if self.scheduler.on_rollback(trial):
                self.script.append(("set back", number))
                self.trials[number] = trial._replace(status=Status.PAUSED, decision=None)
                return
        self._launch(number, forgotten)

    def _launch(self, number: TrialId, forgotten: bool | None = None) -> Trial:
        trial = self.trials[number]
        assert trial.status in (Status.QUEUED, Status.PAUSED), f"{trial} cannot be launched"
        if forgotten is None:
            forgotten = self._happens(self.mishaps.forgotten)
        self.trials[number] = trial._replace(
            status=Status.RUNNING,
            attempt=trial.attempt + 1,
            resource=0 if forgotten else trial.resource,
            held=None if forgotten else trial.held,
        )
        return self.trials[number]

    def _fail(self, trial: Trial) -> None:
        if self.scheduler.on_failure(trial):
            self.script.append(("rescued", trial.id))
            self.trials[trial.id] = trial._replace(status=Status.PAUSED, decision=None)
        else:
            self.script.append(("fail", trial.id))
            self._end(trial.id, Status.FAILED)

    def _exploit(self, trial: Trial, source: TrialId, config: Config) -> None:
        donor = self.trials.get(source)
        assert donor is not None, f"exploit of trial {source}, which has ended or never began"
        state = donor.newest
        assert state or donor is trial, f"exploit of trial {source}, which has no state"
        self.script.append(("exploit", trial.id, source))
        resource = state.resource if state else 0
        self.trials[trial.id] = trial._replace(
            config=config, held=state, resource=resource, since=resource, decided_at=resource
        )
        self.scheduler.on_exploit(self.trials[trial.id], source)

    def _report(self, trial: Trial) -> None:
        resource = trial.until
        losses = tuple(self.curve(trial.id, r) for r in range(trial.decided_at + 1, resource + 1))
        best_loss = min(trial.best_loss, *losses)
        trial = trial._replace(resource=resource, best_loss=best_loss)
        decision = self.scheduler.on_report(trial, Report(resource, losses, best_loss))
        self.reached[trial.bracket, resource].append(trial.id)
        self.script.append(("report", trial.id, resource, decision))
        self._carry_out(trial._replace(decided_at=resource, decision=decision), decision)

    def _carry_out(self, trial: Trial, decision: Decision) -> None:
        self.trials[trial.id] = trial
        match decision:
            case Continue(until, keep):
                assert trial.resource < until <= self.scheduler.max_t
                held = self._state(trial) if keep else trial.held
                self.trials[trial.id] = trial._replace(until=until, decision=None, held=held)
            case Stop():
                full = trial.resource >= self.scheduler.max_t
                self._end(trial.id, Status.COMPLETED if full else Status.STOPPED)
            case Pause() if not self._happens(self.mishaps.slow_saves):
                self._save(trial)

    def _save(self, trial: Trial) -> None:
        if self._happens(self.mishaps.failed_saves):
            self._fail(trial)
        else:
            self.script.append(("paused", trial.id))
            self.trials[trial.id] = trial._replace(
                status=Status.PAUSED,
                resource=trial.decided_at,
                decision=None,
                held=self._state(trial),
            )

    def _state(self, trial: Trial) -> CheckpointRef:
        self._n_states += 1
        return CheckpointRef(self._n_states, trial.id, trial.decided_at)

    def _end(self, number: TrialId, status: Status) -> None:
        trial = self.trials.pop(number)._replace(status=status)
        self.ended[number] = (status, trial.resource)
        self.scheduler.on_end(trial)

    def _paused(self, number: TrialId) -> Trial:
        trial = self.trials.get(number)
        assert trial is not None, f"action on trial {number}, which has ended or never began"
        assert trial.status is Status.PAUSED, f"action on a trial that is not paused: {trial}"
        return trial

    def _happens(self, probability: float) -> bool:
        return probability > 0 and self._order.random() < probability
