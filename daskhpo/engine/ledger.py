"""The ledger: the only truth of where each trial stands."""

from __future__ import annotations

import math
from collections import Counter, deque

from daskhpo.core.events import Step
from daskhpo.core.objective import Objective
from daskhpo.core.types import CheckpointRef, Config, Decision, Pause, Status, Trial, TrialId
from daskhpo.engine.refcounts import CheckpointRefs


class Ledger:
    """Trials that have not ended, the queue of those that wait for a slot, and what is kept.

    A trial that ended leaves a count behind, its loss if it is the best, and its checkpoint if
    that is kept; its history is in the journal, so that memory follows the number of living trials.
    Methods that let go of checkpoints return those that nobody refers to any more.
    """

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self.trials: dict[TrialId, Trial] = {}
        self.queue: deque[TrialId] = deque()
        self.n_trials = 0  #: all that were ever started
        self.n_running = 0
        self.n_ended: Counter[Status] = Counter()
        self.refs = CheckpointRefs()
        self.best_loss = math.inf
        self.best_trial: TrialId | None = None
        self.n_retained: float = 1  #: of how many ended trials a checkpoint is kept
        self.retained: dict[TrialId, Trial] = {}  #: ended trials whose checkpoint is kept
        self._stateless = (math.inf, 0)  # rank of the best trial that had no state to give

    def running(self, trial: TrialId, attempt: int) -> Trial | None:
        """The trial if this attempt of it holds a slot; None: the message comes from the dead."""
        found = self.trials.get(trial)
        if found is None or found.status is not Status.RUNNING or found.attempt != attempt:
            return None
        return found

    def find(self, trial: TrialId) -> Trial | None:
        """The trial if it has not ended, or if its checkpoint is kept."""
        return self.trials.get(trial) or self.retained.get(trial)

    def is_pausing(self, trial: TrialId) -> bool:
        """Whether the trial is about to be paused, when its state is held."""
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
        """Give a queued or paused trial a slot: an attempt from its newest state, or its start."""
        resource = trial.newest.resource if trial.newest else 0
        self.n_running += 1
        return self._store(
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
        return self._store(
            trial._replace(
                resource=steps[-1].resource,
                losses=trial.losses + tuple(new),
                best_loss=min(trial.best_loss, best),
                # What is trained again is no progress: it may end in the same way again.
                n_lost=0 if steps[-1].resource > trial.lost_at else trial.n_lost,
            )
        )

    def decide(self, trial: Trial, decision: Decision) -> Trial:
        """Remember what was decided while it waits for a checkpoint."""
        return self._store(trial._replace(decision=decision, decided_at=trial.resource, losses=()))

    def mark_preempting(self, trial: Trial) -> Trial:
        """Remember that the trial leaves its slot once its state is held."""
        return self._store(trial._replace(preempting=True))

    def continue_until(self, trial: Trial, until: int) -> Trial:
        """The trial trains on in its slot."""
        return self._store(
            trial._replace(until=until, decided_at=trial.resource, losses=(), decision=None)
        )

    def pause(self, trial: Trial) -> None:
        """The trial leaves its slot; the scheduler may bring it back."""
        self.n_running -= 1
        self._store(
            trial._replace(
                status=Status.PAUSED, decided_at=trial.resource, losses=(), decision=None
            )
        )

    def requeue(self, trial: Trial, until: int, *, lost: int = 0, failed: int = 0) -> None:
        """The trial leaves its slot with its segment undone, and waits for another."""
        self.n_running -= 1
        self.queue.append(trial.id)
        self._store(
            trial._replace(
                status=Status.QUEUED,
                until=until,
                preempting=False,
                n_lost=trial.n_lost + lost,
                lost_at=max(trial.lost_at, trial.resource) if lost else trial.lost_at,
                n_failed=trial.n_failed + failed,
            )
        )

    def is_rolled_back(self, trial: Trial) -> bool:
        """Whether all its states are gone but those from before its present configuration."""
        return trial.since > (trial.newest.resource if trial.newest else 0)

    def pause_queued(self, trial: Trial) -> None:
        """A trial that waited for a slot is paused instead."""
        self._store(trial._replace(status=Status.PAUSED))

    def end(self, trial: Trial, status: Status) -> tuple[Trial, list[CheckpointRef]]:
        """The trial is over and leaves the ledger; its newest state stays if that is kept."""
        if trial.status is Status.RUNNING:
            self.n_running -= 1
        self.n_ended[status] += 1
        del self.trials[trial.id]
        ended = trial._replace(status=status)
        if ended.newest is None or not self._should_retain(ended):
            return ended, self._release(ended, ended.held, ended.checkpoint, ended.previous)
        freed = self._release(ended, ended.previous)
        self.retained[ended.id] = ended._replace(previous=None)
        while len(self.retained) > self.n_retained:
            worst = max(self.retained.values(), key=_rank)
            del self.retained[worst.id]
            freed += self._release(worst, worst.held, worst.checkpoint)
        return ended, freed

    def would_retain(self, trial: Trial) -> bool:
        """Whether a checkpoint of the trial would be kept if it ended now.

        Where a better one had no state to give, it is not likely that this one has.
        """
        if _rank(trial) >= self._stateless and self.n_retained < math.inf:
            return False
        return self._should_retain(trial)

    def _should_retain(self, trial: Trial) -> bool:
        if len(self.retained) < self.n_retained:
            return True
        return self.n_retained > 0 and _rank(trial) < max(map(_rank, self.retained.values()))

    def mark_stateless(self, trial: Trial) -> None:
        """The trial was asked for its state and has none."""
        self._stateless = min(self._stateless, _rank(trial))

    def best(self, n: int) -> list[Trial]:
        """The best trials of which there is a state, ended or not."""
        having = [
            trial for trial in (*self.trials.values(), *self.retained.values()) if trial.newest
        ]
        return sorted(having, key=_rank)[:n]

    # -- states ----------------------------------------------------------------------------------

    def hold(self, trial: Trial, ref: CheckpointRef) -> tuple[Trial, list[CheckpointRef]]:
        """A newer state of the trial is held."""
        self.refs.add_ref(trial.id, ref, held=True)
        held = self._store(trial._replace(held=ref))
        return held, self._release(trial, trial.held)

    def commit(self, ref: CheckpointRef) -> list[CheckpointRef]:
        """A state is in the store: it becomes the checkpoint of every trial that refers to it."""
        freed = []
        for user in self.refs.users(ref.id):
            self.refs.add_ref(user, ref, held=False)
            trial = self.find(user)
            assert trial is not None, f"row {ref.id} outlives trial {user}"
            held = trial.held
            if held is not None and held.id == ref.id:
                held = ref
            elif held is not None and held.trial == ref.trial and held.id < ref.id:
                held = None  # a newer state was saved before it was said to be held
            self._store(
                trial._replace(
                    held=held,
                    checkpoint=ref,
                    previous=None if trial.status.ended else trial.checkpoint,
                )
            )
            freed += self._release(trial, trial.held, trial.previous, trial.checkpoint)
        return freed

    def drop(self, row: int) -> None:
        """A state is held no more."""
        self.refs.drop(row)
        for user in self.refs.users(row):
            trial = self.find(user)
            if trial is not None and trial.held is not None and trial.held.id == row:
                self._store(trial._replace(held=None))
                self._release(trial, trial.held)

    def drop_all(self) -> None:
        """Nothing is held any more: those who held it are gone."""
        for trial in [*self.trials.values(), *self.retained.values()]:
            if trial.held is not None:
                self.drop(trial.held.id)

    def discard_bad_checkpoint(self, trial: Trial) -> tuple[Trial, list[CheckpointRef]]:
        """The trial's newest state cannot be read: the one before takes its place."""
        bad = trial.newest
        if bad is None:
            return trial, []
        if trial.checkpoint is None or trial.checkpoint.id != bad.id:
            left = trial._replace(held=None)
        else:
            left = trial._replace(held=None, checkpoint=trial.previous, previous=None)
        left = self._store(left)
        return left, self._release(trial, bad)

    def evict(self, ref: CheckpointRef) -> list[CheckpointRef]:
        """Let go of a checkpoint, whoever refers to it, to make room."""
        freed = []
        for user in self.refs.users(ref.id):
            trial = self.find(user)
            assert trial is not None, f"row {ref.id} outlives trial {user}"
            held, checkpoint, previous = (
                None if each is not None and each.id == ref.id else each
                for each in (trial.held, trial.checkpoint, trial.previous)
            )
            if checkpoint is None:
                checkpoint, previous = previous, None
            self._store(trial._replace(held=held, checkpoint=checkpoint, previous=previous))
            freed += self._release(trial, ref)
        return freed

    def exploit(
        self, trial: Trial, source: Trial, config: Config
    ) -> tuple[Trial, list[CheckpointRef]]:
        """The trial shares the newest state of another one, or keeps its own, and begins there."""
        resource = source.newest.resource if source.newest else 0
        for ref in (source.held, source.checkpoint):
            if ref is not None:
                self.refs.add_ref(trial.id, ref, held=ref.id == getattr(source.held, "id", None))
        taken = self._store(
            trial._replace(
                config=config,
                until=resource,
                attempt=trial.attempt + 1,  # its own states are of no use, should one be saved late
                resource=resource,
                since=resource,
                lost_at=0,
                decided_at=resource,
                losses=(),
                held=source.held,
                checkpoint=source.checkpoint,
                previous=None,
            )
        )
        return taken, self._release(trial, trial.held, trial.checkpoint, trial.previous)

    def _release(self, trial: Trial, *refs: CheckpointRef | None) -> list[CheckpointRef]:
        """Let go of refs that the trial does not refer to any more; those that nobody needs."""
        now = self.find(trial.id)
        kept = {ref.id for ref in (now.held, now.checkpoint, now.previous) if ref} if now else {}
        rows = {ref.id: ref for ref in refs if ref is not None and ref.id not in kept}
        freed = (self.refs.release(trial.id, ref) for ref in rows.values())
        return [ref for ref in freed if ref is not None]

    # -- for tests -------------------------------------------------------------------------------

    def validate(self) -> None:
        """Check what must always hold; derives every index from scratch."""
        statuses = Counter(trial.status for trial in self.trials.values())
        assert not any(status.ended for status in statuses), statuses
        assert statuses[Status.RUNNING] == self.n_running, (statuses, self.n_running)
        assert len(self.trials) + self.n_ended.total() == self.n_trials
        queued = {t.id for t in self.trials.values() if t.status is Status.QUEUED}
        assert queued == set(self.queue), (queued, self.queue)
        assert len(queued) == len(self.queue), "a trial waits twice"
        referred: dict[int, set[TrialId]] = {}
        for trial in (*self.trials.values(), *self.retained.values()):
            for ref in (trial.held, trial.checkpoint, trial.previous):
                if ref is not None:
                    referred.setdefault(ref.id, set()).add(trial.id)
            assert trial.checkpoint is None or trial.checkpoint.array, trial
            if trial.held and trial.checkpoint:
                assert trial.held.id >= trial.checkpoint.id or trial.held.trial != trial.id, trial
        assert referred == {row: set(self.refs.users(row)) for row in self.refs.ids}, referred
        for trial in self.trials.values():
            assert trial.resource <= trial.until, trial
            assert trial.decided_at + len(trial.losses) <= max(trial.until, trial.decided_at), trial
            if trial.status is not Status.RUNNING:
                assert trial.decision is None, f"a decision was not carried out: {trial}"

    def _store(self, trial: Trial) -> Trial:
        if not trial.status.ended:
            self.trials[trial.id] = trial
        elif trial.newest is not None:
            self.retained[trial.id] = trial
        else:
            self.retained.pop(trial.id, None)
        return trial


def _rank(trial: Trial) -> tuple[float, TrialId]:
    return trial.best_loss, trial.id
