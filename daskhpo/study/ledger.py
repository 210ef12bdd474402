"""The ledger: the only truth of where each trial stands."""

from __future__ import annotations

import math
from collections import Counter, deque

from daskhpo.core.objective import Objective
from daskhpo.core.types import (
    CheckpointRef,
    Config,
    Decision,
    Pause,
    Status,
    Step,
    Trial,
    TrialId,
)


class Ledger:
    """Trials that have not ended, the queue of those that wait for a slot, and what is kept.

    A trial that ended leaves a count behind, and its loss if it is the best; its history is in
    the journal, so that memory follows the number of living trials.
    """

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self.trials: dict[TrialId, Trial] = {}
        self.queue: deque[TrialId] = deque()
        self.n_trials = 0  #: all that were ever started
        self.n_running = 0
        self.n_ended: Counter[Status] = Counter()
        self.n_rows = 0  #: checkpoint rows given out
        self.best_loss = math.inf
        self.best_trial: TrialId | None = None
        self.kept: CheckpointRef | None = None  #: of the best trial that has ended

    def running(self, trial: TrialId, attempt: int) -> Trial | None:
        """The trial if this attempt of it holds a slot; None: the message comes from the dead."""
        found = self.trials.get(trial)
        if found is None or found.status is not Status.RUNNING or found.attempt != attempt:
            return None
        return found

    def is_pausing(self, trial: TrialId) -> bool:
        """Whether the trial is about to be paused, when its checkpoint is committed."""
        found = self.trials.get(trial)
        return (
            found is not None
            and found.status is Status.RUNNING
            and isinstance(found.decision, Pause)
        )

    def paused(self, trial: TrialId) -> Trial:
        """The trial, which must be paused: anything else is an error of the scheduler.

        Raises
        ------
        RuntimeError : the trial is not paused; the message tells its story.
        """
        found = self.trials.get(trial)
        if found is None or found.status is not Status.PAUSED:
            story = f"trial {trial} of {self.n_trials}: {found or 'it has ended, or never began'}"
            raise RuntimeError(f"the scheduler acts on a trial that is not paused: {story}")
        return found

    def add(self, config: Config, until: int, bracket: int) -> Trial:
        """Enter a new trial; it is first in no queue yet."""
        trial = Trial(self.n_trials, config, Status.QUEUED, until, bracket)
        self.trials[trial.id] = trial
        self.n_trials += 1
        return trial

    def launch(self, trial: Trial, until: int) -> Trial:
        """Give a queued or paused trial a slot: a new attempt from its checkpoint, or its start."""
        resource = trial.checkpoint.resource if trial.checkpoint else 0
        self.n_running += 1
        return self._put(
            trial._replace(
                status=Status.RUNNING,
                until=until,
                attempt=trial.attempt + 1,
                resource=resource,
                losses=trial.losses[: max(0, resource - trial.decided_at)],
            )
        )

    def advance(self, trial: Trial, steps: tuple[Step, ...]) -> Trial:
        """Enter reported units. Those before ``decided_at`` come from training again."""
        if not steps:
            return trial
        losses = [self._objective.loss(step.metrics) for step in steps]
        best = min(losses)
        new = [
            loss
            for step, loss in zip(steps, losses, strict=True)
            if step.resource > trial.decided_at
        ]
        if best < self.best_loss:
            self.best_loss, self.best_trial = best, trial.id
        return self._put(
            trial._replace(
                resource=steps[-1].resource,
                losses=trial.losses + tuple(new),
                best_loss=min(trial.best_loss, best),
                n_lost=0,
            )
        )

    def decide(self, trial: Trial, decision: Decision) -> Trial:
        """Remember what was decided while it waits for a checkpoint."""
        return self._put(trial._replace(decision=decision, decided_at=trial.resource, losses=()))

    def checkpoint(self, trial: Trial, ref: CheckpointRef | None) -> Trial:
        """A newer checkpoint of the trial is committed, or (None) its last one is no good."""
        return self._put(trial._replace(checkpoint=ref))

    def go_on(self, trial: Trial, until: int) -> Trial:
        """The trial trains on in its slot."""
        return self._put(
            trial._replace(until=until, decided_at=trial.resource, losses=(), decision=None)
        )

    def pause(self, trial: Trial) -> None:
        """The trial leaves its slot; the scheduler may bring it back."""
        self.n_running -= 1
        self._put(
            trial._replace(
                status=Status.PAUSED, decided_at=trial.resource, losses=(), decision=None
            )
        )

    def requeue(self, trial: Trial, until: int, *, lost: int = 0, failed: int = 0) -> None:
        """The trial leaves its slot with its segment undone, and waits for another."""
        self.n_running -= 1
        self.queue.append(trial.id)
        self._put(
            trial._replace(
                status=Status.QUEUED,
                until=until,
                n_lost=trial.n_lost + lost,
                n_failed=trial.n_failed + failed,
            )
        )

    def end(self, trial: Trial, status: Status) -> Trial:
        """The trial is over and leaves the ledger."""
        if trial.status is Status.RUNNING:
            self.n_running -= 1
        self.n_ended[status] += 1
        del self.trials[trial.id]
        return trial._replace(status=status)

    def new_row(self, trial: Trial) -> CheckpointRef:
        """Give out a checkpoint row that no one else writes."""
        self.n_rows += 1
        return CheckpointRef(self.n_rows - 1, trial.id, trial.resource)

    def validate(self) -> None:
        """Check what must always hold; derives every index from scratch."""
        statuses = Counter(trial.status for trial in self.trials.values())
        assert not any(status.ended for status in statuses), statuses
        assert statuses[Status.RUNNING] == self.n_running, (statuses, self.n_running)
        assert len(self.trials) + self.n_ended.total() == self.n_trials
        queued = {t.id for t in self.trials.values() if t.status is Status.QUEUED}
        assert queued == set(self.queue), (queued, self.queue)
        assert len(queued) == len(self.queue), "a trial waits twice"
        for trial in self.trials.values():
            assert trial.resource <= trial.until, trial
            assert trial.decided_at + len(trial.losses) <= max(trial.until, trial.decided_at), trial
            if trial.status is not Status.RUNNING:
                assert trial.decision is None, f"a decision was not carried out: {trial}"

    def _put(self, trial: Trial) -> Trial:
        self.trials[trial.id] = trial
        return trial
