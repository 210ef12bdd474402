"""A study in miniature: drives one scheduler with virtual workers, as the coordinator would.

No clock and no threads: which worker comes next is drawn from a seed, and so is every mishap.
A mishap's draw is keyed by trial and segment, so that the same segments fail in any order of
arrival.
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
    """A trial as a scheduler is shown it."""
    return Trial(trial, {}, status, until, bracket, resource, attempt=1)


def a_report(resource: int, loss: float, best_loss: float | None = None) -> Report:
    """A report whose last loss is given; the running best is that loss unless given too."""
    return Report(resource, (loss,), loss if best_loss is None else best_loss)


def noisy_curve(seed: int) -> LossCurve:
    """Losses that fall with the resource, cross one another, and are fixed by the seed."""

    def loss(trial: TrialId, resource: int) -> float:
        floor, speed = rng(seed, "curve", trial).random(2)
        noise = rng(seed, "noise", trial, resource).random()
        return float(floor + 0.3 * noise + (0.2 + speed) / math.sqrt(resource))

    return loss


@dataclass(frozen=True)
class Mishaps:
    """How often things go wrong, as probabilities.

    Attributes
    ----------
    fails : a segment raises.
    lost : a running trial loses its worker, before its report or before its checkpoint is safe.
    slow_saves : a checkpoint is still being written when the next thing happens.
    failed_saves : a checkpoint cannot be written, which ends the trial as failed.
    forgotten : a paused trial comes back without a checkpoint and trains again from the start.
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
    """Runs trials on virtual workers until the scheduler has nothing more to do.

    Parameters
    ----------
    scheduler : is copied.
    curve : loss of a trial at a resource.
    num_trials : how many may start; may be raised later, followed by another :meth:`run`.
    n_workers : slots; with one, everything happens in sequence.
    seed : of the order of arrival and of the mishaps.
    suspicious : ask each question twice, and its opposite too, and compare the answers.

    Attributes
    ----------
    script : all that happened, in order, as tuples that begin with a word.
    reached : trials that reported at (bracket, resource), in the order of arrival.
    ended : how each trial ended, and at which resource.
    trials : those that have not ended.
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

    # -- what a study does -----------------------------------------------------------------------

    def run(self) -> Driver:
        """Until nothing runs and the scheduler waits."""
        self.fill()
        while running := self.running():
            if self._happens(self.mishaps.resizes):
                self.n_workers = int(self._order.integers(1, self._most_workers + 1))
            self.step(running[int(self._order.integers(len(running)))])
            self.fill()
        assert not self._queue, "a lost trial was never run again"
        assert isinstance(self.ask(), Wait), "there was something to do for an idle worker"
        return self

    def running(self) -> list[TrialId]:
        """Trials that hold a slot."""
        return [t.id for t in self.trials.values() if t.status is Status.RUNNING]

    def fill(self) -> None:
        """Give work to free slots, until the scheduler waits."""
        while len(self.running()) < self.n_workers:
            if self._queue:
                self._run_again(self._queue.popleft())
                continue
            match self.ask():
                case Start(until, bracket):
                    assert self.n_started < self.num_trials, "started one too many"
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
        """The scheduler's answer to a free slot."""
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
        """Whatever happens next to a running trial."""
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
        """Whether the segment that ends there raises; the same in any order of events."""
        return rng(self._seed, "fails", number, until).random() < self.mishaps.fails

    # -- the details -----------------------------------------------------------------------------

    def _run_again(self, number: TrialId) -> None:
        """A lost trial has a slot, unless it is set back behind its configuration."""
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
        assert donor is not None, f"trial {source}, to be exploited, has ended or never began"
        state = donor.newest
        assert state or donor is trial, f"there is no state of trial {source} to be exploited"
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
        assert trial is not None, f"an action on trial {number}, which has ended or never began"
        assert trial.status is Status.PAUSED, f"an action on a trial that is not paused: {trial}"
        return trial

    def _happens(self, probability: float) -> bool:
        return probability > 0 and self._order.random() < probability
