"""The ledger: the single source of truth for the status of each trial."""

from __future__ import annotations

import math
from collections import Counter, deque
from typing import Any

from daskhpo.core.events import Step
from daskhpo.core.objective import Objective
from daskhpo.core.types import CheckpointRef, Config, Decision, Pause, Status, Trial, TrialId
from daskhpo.engine.refcounts import CheckpointRefs
from daskhpo.engine.trial_times import TrialTimes


class Ledger:
    """Trials that have not ended, the queue for slots, and retained checkpoints.

    Of an ended trial the ledger keeps a count, its loss if it is the best, its checkpoint if that
    is retained, and its entry if it failed. Its history is in the journal, so memory grows with the
    number of trials that have not ended or failed. Methods that release checkpoints return those
    without references.
    """

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self.trials: dict[TrialId, Trial] = {}
        self.queue: deque[TrialId] = deque()
        self.n_trials = 0  #: trials started so far
        self.n_running = 0
        self.n_ended: Counter[Status] = Counter()
        self.refs = CheckpointRefs()
        self.best_loss = math.inf
        self.best_trial: TrialId | None = None
        self.n_retained: float = 1  #: maximum number of ended trials whose checkpoint is kept
        self.retained: dict[TrialId, Trial] = {}  #: ended trials whose checkpoint is kept
        self.failed: dict[TrialId, Trial] = {}  #: as they were; a user may run them again
        self.trained: dict[TrialId, Trial] = {}  #: fully trained, if an extension may follow
        self.withheld: dict[TrialId, None] = {}  #: queued, but paused by a person; in order
        self.to_restart: deque[TrialId] = deque()  #: queued for a start, not for their segment
        self.seconds = 0.0  #: time of the event that is handled
        self.times = TrialTimes()
        self._stateless = (math.inf, 0)  # rank of the best trial that had no state

    def running(self, trial: TrialId, attempt: int) -> Trial | None:
        """Return the trial if this attempt of it holds a slot; None: a stale attempt."""
        found = self.trials.get(trial)
        if found is None or found.status is not Status.RUNNING or found.attempt != attempt:
            return None
        return found

    def find(self, trial: TrialId) -> Trial | None:
        """Return the trial if it has not ended or its checkpoint is retained."""
        return self.trials.get(trial) or self.retained.get(trial)

    def is_pausing(self, trial: TrialId) -> bool:
        """Return True if the trial will be paused once its state is held."""
        found = self.trials.get(trial)
        return (
            found is not None
            and found.status is Status.RUNNING
            and isinstance(found.decision, Pause)
        )

    def paused(self, trial: TrialId) -> Trial:
        """Return a paused trial; any other status is an error of the scheduler.

        Raises
        ------
        RuntimeError : the trial is not paused; the message shows the trial.
        """
        found = self.trials.get(trial)
        if found is None or found.status is not Status.PAUSED:
            shown = f"trial {trial} of {self.n_trials}: {found or 'it has ended, or never started'}"
            raise RuntimeError(f"the scheduler acts on a trial that is not paused: {shown}")
        return found

    def add(self, config: Config, until: int, bracket: int) -> Trial:
        """Add a new trial, which is not in the queue yet."""
        trial = Trial(self.n_trials, config, Status.QUEUED, until, bracket)
        self.trials[trial.id] = trial
        self.n_trials += 1
        return trial

    def launch(self, trial: Trial, until: int) -> Trial:
        """Start an attempt of a queued or paused trial, from its newest state if any."""
        resource = trial.newest.resource if trial.newest else 0
        self.n_running += 1
        self.times.launch(trial.id, self.seconds)
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
        """Add reported units; those up to ``decided_at`` were trained again."""
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
                # Retrained units are no progress: the trial may be lost at the same unit again.
                n_lost=0 if steps[-1].resource > trial.lost_at else trial.n_lost,
            )
        )

    def decide(self, trial: Trial, decision: Decision) -> Trial:
        """Store a decision that is carried out once the trial's state is held."""
        return self._store(trial._replace(decision=decision, decided_at=trial.resource, losses=()))

    def mark_preempting(self, trial: Trial) -> Trial:
        """Mark the trial as leaving its slot once its state is held."""
        return self._store(trial._replace(preempting=True))

    def continue_until(self, trial: Trial, until: int) -> Trial:
        """Let the trial continue in its slot until a resource."""
        return self._store(
            trial._replace(until=until, decided_at=trial.resource, losses=(), decision=None)
        )

    def pause(self, trial: Trial) -> None:
        """Pause a running trial and free its slot; the scheduler may resume it."""
        self.n_running -= 1
        self.times.leave(trial.id, self.seconds)
        # A trial that failed while it trained again was decided on before, at a larger resource.
        decided_at = max(trial.decided_at, trial.resource)
        self._store(
            trial._replace(
                status=Status.PAUSED,
                decided_at=decided_at,
                losses=(),
                decision=None,
                preempting=False,
            )
        )

    def requeue(self, trial: Trial, until: int, *, lost: int = 0, failed: int = 0) -> None:
        """Free the slot of a trial with an unfinished segment, and queue the trial."""
        self.n_running -= 1
        self.times.leave(trial.id, self.seconds)
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

    def is_out_of_time(self, trial: Trial) -> bool:
        """Return True if the trial has used its time in slots."""
        return self.times.is_up(trial.id, self.seconds)

    def is_rolled_back(self, trial: Trial) -> bool:
        """Return True if each state left is older than the current configuration."""
        return trial.since > (trial.newest.resource if trial.newest else 0)

    def pause_queued(self, trial: Trial) -> None:
        """Pause a trial that waited for a slot."""
        self._store(trial._replace(status=Status.PAUSED))

    def withdraw(self, trial: Trial) -> None:
        """Take a trial out of the queues, before it is ended."""
        self.withheld.pop(trial.id, None)
        for queue in (self.queue, self.to_restart):
            if trial.id in queue:
                queue.remove(trial.id)

    def withhold(self, trial: Trial, until: int) -> Trial:
        """Let a trial that would be launched wait until a person lets it."""
        self.withheld[trial.id] = None
        return self._store(trial._replace(status=Status.QUEUED, until=until))

    def release_withheld(self, number: TrialId) -> None:
        """Queue a trial that was withheld, if it was."""
        if number in self.withheld:
            del self.withheld[number]
            self.queue.append(number)

    def end(self, trial: Trial, status: Status) -> tuple[Trial, list[CheckpointRef]]:
        """End a trial and remove it; its newest state stays if that is retained."""
        if trial.status is Status.RUNNING:
            self.n_running -= 1
        self.times.forget(trial.id)
        self.n_ended[status] += 1
        del self.trials[trial.id]
        ended = trial._replace(status=status)
        if status is Status.FAILED:
            self.failed[trial.id] = ended._replace(held=None, checkpoint=None, previous=None)
        if ended.newest is None or not self._should_retain(ended):
            return ended, self._release(ended, ended.held, ended.checkpoint, ended.previous)
        freed = self._release(ended, ended.previous)
        self.retained[ended.id] = ended._replace(previous=None)
        while len(self.retained) > self.n_retained:
            worst = max(self.retained.values(), key=_rank)
            del self.retained[worst.id]
            freed += self._release(worst, worst.held, worst.checkpoint)
        return ended, freed

    def revive(self, trial: Trial, *, onward: bool) -> list[CheckpointRef]:
        """Queue a failed trial.

        ``onward``: it finishes its segment, from its retained state if it has one. Otherwise it
        waits for :meth:`restart`.
        """
        del self.failed[trial.id]
        self.n_ended[Status.FAILED] -= 1
        kept = self.retained.pop(trial.id, None)
        until = trial.until if trial.decision is None else trial.decided_at
        trial = trial._replace(status=Status.QUEUED, decision=None, **_ANEW)
        if onward:
            self.queue.append(trial.id)
            self._store(
                trial._replace(
                    until=until,
                    held=kept.held if kept else None,
                    checkpoint=kept.checkpoint if kept else None,
                )
            )
            return []
        self.to_restart.append(trial.id)
        self._store(trial._replace(resource=0, since=0, decided_at=0, losses=()))
        return self._release(kept, kept.held, kept.checkpoint) if kept else []

    def extend(self, trial: Trial, until: int | None) -> None:
        """Let a fully trained trial wait again, with its state if that is retained.

        ``until``: it is queued, to train until this resource. None: it is paused.
        """
        self.n_ended[Status.COMPLETED] -= 1
        kept = self.retained.pop(trial.id, None)
        if until is not None:
            self.queue.append(trial.id)
        self._store(
            trial._replace(
                status=Status.PAUSED if until is None else Status.QUEUED,
                until=trial.until if until is None else until,
                decided_at=trial.resource,
                losses=(),
                decision=None,
                held=kept.held if kept else None,
                checkpoint=kept.checkpoint if kept else None,
                **_ANEW,
            )
        )

    def restart(self, until: int, bracket: int) -> Trial:
        """Take the next trial that waits for a start; it is launched at once."""
        trial = self.trials[self.to_restart.popleft()]
        return self._store(trial._replace(until=until, bracket=bracket))

    def would_retain(self, trial: Trial) -> bool:
        """Return True if the trial's checkpoint would be kept if it ended now.

        If a better trial had no state, this one probably has none either.
        """
        if _rank(trial) >= self._stateless and self.n_retained < math.inf:
            return False
        return self._should_retain(trial)

    def _should_retain(self, trial: Trial) -> bool:
        if len(self.retained) < self.n_retained:
            return True
        return self.n_retained > 0 and _rank(trial) < max(map(_rank, self.retained.values()))

    def mark_stateless(self, trial: Trial) -> None:
        """Note that the trial was asked for its state and has none."""
        self._stateless = min(self._stateless, _rank(trial))

    def best(self, n: int) -> list[Trial]:
        """Return the ``n`` best trials that have a state, ended or not."""
        having = [
            trial for trial in (*self.trials.values(), *self.retained.values()) if trial.newest
        ]
        return sorted(having, key=_rank)[:n]

    # -- states ----------------------------------------------------------------------------------

    def hold(self, trial: Trial, ref: CheckpointRef) -> tuple[Trial, list[CheckpointRef]]:
        """Register that a newer state of the trial is held."""
        self.refs.add_ref(trial.id, ref, held=True)
        held = self._store(trial._replace(held=ref))
        return held, self._release(trial, trial.held)

    def commit(self, ref: CheckpointRef) -> list[CheckpointRef]:
        """Make a committed state the checkpoint of every trial that refers to it."""
        freed = []
        for user in self.refs.users(ref.id):
            self.refs.add_ref(user, ref, held=False)
            trial = self.find(user)
            assert trial is not None, f"checkpoint {ref.id} outlives trial {user}"
            held = trial.held
            if held is not None and held.id == ref.id:
                held = ref
            elif held is not None and held.trial == ref.trial and held.id < ref.id:
                held = None  # a newer state's Saved arrived before its Held
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
        """Register that a state is no longer held."""
        self.refs.drop(row)
        for user in self.refs.users(row):
            trial = self.find(user)
            if trial is not None and trial.held is not None and trial.held.id == row:
                self._store(trial._replace(held=None))
                self._release(trial, trial.held)

    def drop_all(self) -> None:
        """Register that no state is held: the workers that held them are gone."""
        for trial in [*self.trials.values(), *self.retained.values()]:
            if trial.held is not None:
                self.drop(trial.held.id)

    def discard_bad_checkpoint(self, trial: Trial) -> tuple[Trial, list[CheckpointRef]]:
        """Replace the trial's newest state, which is unreadable, by the one before."""
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
        """Release a checkpoint of all trials that refer to it, to free space."""
        freed = []
        for user in self.refs.users(ref.id):
            trial = self.find(user)
            assert trial is not None, f"checkpoint {ref.id} outlives trial {user}"
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
        """Let a trial continue from the newest state of ``source`` with ``config``.

        The state is shared. ``source`` may be the trial itself, which then keeps its state.
        """
        resource = source.newest.resource if source.newest else 0
        for ref in (source.held, source.checkpoint):
            if ref is not None:
                self.refs.add_ref(trial.id, ref, held=ref.id == getattr(source.held, "id", None))
        taken = self._store(
            trial._replace(
                config=config,
                until=resource,
                attempt=trial.attempt + 1,  # makes late saves of its old states stale
                resource=resource,
                since=resource,
                lost_at=0,
                decided_at=resource,
                losses=(),
                held=source.held,
                checkpoint=source.checkpoint,
                previous=None,
                placement=None,
            )
        )
        return taken, self._release(trial, trial.held, trial.checkpoint, trial.previous)

    def _release(self, trial: Trial, *refs: CheckpointRef | None) -> list[CheckpointRef]:
        """Release refs that the trial no longer has; return those without references."""
        now = self.find(trial.id)
        kept = {ref.id for ref in (now.held, now.checkpoint, now.previous) if ref} if now else {}
        rows = {ref.id: ref for ref in refs if ref is not None and ref.id not in kept}
        freed = (self.refs.release(trial.id, ref) for ref in rows.values())
        return [ref for ref in freed if ref is not None]

    # -- for tests -------------------------------------------------------------------------------

    def validate(self) -> None:
        """Check the invariants; derive every index from scratch."""
        statuses = Counter(trial.status for trial in self.trials.values())
        assert not any(status.ended for status in statuses), statuses
        assert statuses[Status.RUNNING] == self.n_running, (statuses, self.n_running)
        running = {t.id for t in self.trials.values() if t.status is Status.RUNNING}
        assert self.times.in_slots == running, (self.times.in_slots, running)
        assert len(self.trials) + self.n_ended.total() == self.n_trials
        queued = {t.id for t in self.trials.values() if t.status is Status.QUEUED}
        waiting = [*self.queue, *self.withheld, *self.to_restart]
        assert queued == set(waiting), (queued, waiting)
        assert len(queued) == len(waiting), "a trial is queued twice"
        assert len(self.failed) == self.n_ended[Status.FAILED], self.failed
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
                assert not trial.preempting, f"it has no slot to be preempted from: {trial}"

    def _store(self, trial: Trial) -> Trial:
        if not trial.status.ended:
            self.trials[trial.id] = trial
        elif trial.newest is not None:
            self.retained[trial.id] = trial
        else:
            self.retained.pop(trial.id, None)
        return trial


# Another chance for a trial.
_ANEW: dict[str, Any] = {
    "preempting": False,
    "n_lost": 0,
    "n_failed": 0,
    "lost_at": 0,
    "placement": None,
}


def _rank(trial: Trial) -> tuple[float, TrialId]:
    return trial.best_loss, trial.id
