"""The coordinator, which turns events into commands."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field, replace

from daskhpo.core.commands import Command, Delete, Flush, Interrupt, Release, Save, Train, Write
from daskhpo.core.events import (
    AttemptLost,
    Deleted,
    Dropped,
    Edit,
    Ended,
    Enqueued,
    Erred,
    Event,
    Exploited,
    Extended,
    Failed,
    Held,
    Judged,
    Launched,
    OutOfTime,
    Record,
    Reported,
    RolledBack,
    Saved,
    SaveFailed,
    SessionStarted,
    SetAside,
    SlotsChanged,
    Step,
    StopRequested,
    Suggested,
    Trained,
    TrialPauseRequested,
    TrialStopRequested,
    Withheld,
    time_in_journal,
)
from daskhpo.core.objective import NOT_FINITE, Objective
from daskhpo.core.out_of_memory import OutOfMemory, Shortage, describe, placement_after
from daskhpo.core.scheduler import Scheduler
from daskhpo.core.searcher import Searcher
from daskhpo.core.space import Space
from daskhpo.core.tracebacks import headline
from daskhpo.core.types import (
    CheckpointPolicy,
    CheckpointRef,
    Choose,
    Config,
    Continue,
    Decision,
    Discard,
    Exploit,
    Limits,
    Pause,
    Report,
    Resume,
    ReuseProbability,
    Start,
    Status,
    Stop,
    Suggestion,
    Trial,
    TrialId,
    Wait,
)
from daskhpo.engine.advice import Advisor, SearcherAdvice
from daskhpo.engine.checkpoint_policy import (
    eviction_candidate,
    is_full,
    n_retained,
    next_checkpoint,
    reuse_probability,
)
from daskhpo.engine.edits import Edits
from daskhpo.engine.first_failures import FirstFailures
from daskhpo.engine.foresight import Foresight, MemoryForesight, MemoryOf
from daskhpo.engine.ledger import Ledger
from daskhpo.engine.protocols import Journal

RETURNED = "its code returned"
OUT_OF_TIME = "its trial_time_limit is used up"
BUDGET_REACHED = "checkpoints take nine tenths of what max_bytes and max_files allow"
MAX_SET_ASIDE = 20  # in a row; then one runs, so that a wrong prediction is found out
MAX_LOST = 3  # workers that a trial may lose in a row without progress; then it fails


@dataclass(frozen=True)
class Problem:
    """The definition of a study: two studies are the same if these are equal.

    ``memory_of`` may differ: it says how many bytes a configuration needs; None: not known.
    """

    space: Space
    objective: Objective
    scheduler: Scheduler
    searcher: Searcher
    seed: int
    memory_of: MemoryOf | None = field(default=None, compare=False)


class Coordinator:
    """The decision logic of a study: it turns events into commands for the executor.

    It appends each event and its consequences to the journal. Apart from that it is pure: no
    clock, no thread, no network. It works on copies of the scheduler and the searcher.

    Parameters
    ----------
    problem : the study's definition.
    journal : receives every event before its commands are carried out.
    advisor : source of configurations; None: the searcher. A replay has its own.

    Attributes
    ----------
    advisor : where configurations come from. Another one may take its place between two events.
    memory : what trials have used. ``foresight`` is the same, or in a replay what it said.
    trusted : the last verdict on the searcher's model.
    """

    def __init__(
        self,
        problem: Problem,
        journal: Journal,
        advisor: Advisor | None = None,
    ) -> None:
        self.objective = problem.objective
        self.scheduler = copy.deepcopy(problem.scheduler)
        self.searcher = copy.deepcopy(problem.searcher)
        self.scheduler.setup(problem.space, problem.seed)
        self.searcher.setup(problem.space, problem.seed)
        self.journal = journal
        self.advisor = advisor or SearcherAdvice(self.searcher)
        self.memory = MemoryForesight(problem.space, problem.memory_of)
        self.foresight: Foresight = self.memory
        self.trusted = False
        self.ledger = Ledger(problem.objective)
        self.edits = Edits()
        self.limits = Limits()
        self.stop_reason: str | None = None
        self.fatal_error: str | None = None  #: an error that every trial would raise
        self.idle = False  #: the scheduler had no work for a free slot
        self.n_slots = 0
        self._policy = CheckpointPolicy()
        self._failures = FirstFailures(0)
        self.keeps_trained = False  #: keep fully trained trials: an extension may follow
        self._standing: dict[TrialId, Decision] = {}  # of trials that failed while being saved
        self._exhausted = False
        self._n_set_aside = 0  # in a row
        self._flushed = False
        self._choice: Choose | None = None  # the last one
        self._seconds = 0.0
        self._began: dict[TrialId, tuple[float, int]] = {}  # a launch: seconds and resource
        self._full: dict[TrialId, tuple[float, ...]] = {}  # losses of last reports, if kept
        self._commands: list[Command] = []
        self._has_recorded = False  # in answer to the event

    @property
    def is_drained(self) -> bool:
        """True if the study is over and no state waits to be written or dropped."""
        return self.is_over and not self.ledger.refs.n_unsaved

    @property
    def is_over(self) -> bool:
        """True if no trial runs and none will."""
        if self.ledger.n_running:
            return False
        return self.stop_reason is not None or (self.idle and not self.ledger.queue)

    @property
    def n_slots_wanted(self) -> float:
        """Slots that have work, for all trials that may still run; infinite: no limit."""
        if self.stop_reason is None and not self.idle:
            ledger = self.ledger
            limit = ledger.n_trials if self._exhausted else self.limits.num_trials
            ended = ledger.n_ended.total()
            added = ledger.n_trials + len(self.edits.configs)
            return math.inf if limit is None else max(limit, added) - ended
        queued = len(self.ledger.queue) if self.stop_reason is None else 0
        return self.ledger.n_running + queued

    def handle(self, event: Event) -> list[Command]:
        """Handle one event and return commands.

        A stale event is not recorded. It makes no decision then: a replay would not meet it.
        """
        self._seconds = time_in_journal(event.seconds)  # else a replay could decide otherwise
        self.ledger.seconds = self._seconds
        self._commands, self._has_recorded = [], False
        match event:
            case Trained():
                self._trained(event)
            case Held():
                self._held(event)
            case Saved():
                self._saved(event)
            case SaveFailed():
                if event.checkpoint_id in self.ledger.refs:
                    self._record(event)
            case Dropped():
                if event.checkpoint_id in self.ledger.refs:
                    self._record(event)
                    self.ledger.drop(event.checkpoint_id)
            case AttemptLost():
                self._attempt_lost(event)
            case Erred():
                self._erred(event)
            case OutOfTime():
                self._out_of_time(event)
            case SlotsChanged(n_slots, _, _, host, device):
                self._record(event)
                self.n_slots = n_slots
                self.memory.set_largest(host, device)
            case StopRequested(reason):
                self._stop(reason)
            case TrialStopRequested() | TrialPauseRequested() | Enqueued():
                self._edit(event)
            case SessionStarted():
                self._session_started(event)
        if self._has_recorded:
            self._end_unwanted()
            self._assign_free_slots()
        if not self.is_over:
            self._flushed = False  # a trial that was added may follow the last one
        elif not self._flushed and self.ledger.refs.n_unsaved:
            self._flush()
        return self._commands

    def overdue(self, now: float) -> list[OutOfTime]:
        """Return the trials that have used their time in slots; each attempt comes once."""
        trials = map(self.ledger.trials.__getitem__, self.ledger.times.pop_ended(now))
        return [OutOfTime(trial.id, trial.attempt, now) for trial in trials]

    def _record(self, record: Record) -> None:
        self.journal.append(record)
        self._has_recorded = True

    # -- events ----------------------------------------------------------------------------------

    def _session_started(self, event: SessionStarted) -> None:
        self._record(event)
        self.limits, self._policy = event.limits, event.policy
        self._failures = FirstFailures(event.limits.max_failed_trials)
        self.stop_reason, self.fatal_error = None, None
        self.idle, self._exhausted, self._flushed, self.n_slots = False, False, False, 0
        self.ledger.n_retained = n_retained(event.policy)
        limit = event.limits.trial_time_limit
        self.ledger.times.limit = math.inf if limit is None else limit
        self.ledger.drop_all()
        for trial in [*self.ledger.trials.values()]:
            if trial.status is not Status.RUNNING:
                continue
            if trial.decision is not None:
                self._apply(trial, trial.decision, in_slot=False)
            else:
                self.ledger.requeue(trial, trial.until)
        if event.max_t is not None:
            self._extend(event.max_t)
        if event.retry_failed:
            for trial in [*self.ledger.failed.values()]:
                self._retry(trial)
        self._stop_at_target()

    def _extend(self, max_t: int) -> None:
        """Let trials train further; those that were fully trained may continue."""
        trained = self.fully_trained()
        decisions = self.scheduler.on_extend(max_t, trained)
        self.ledger.trained.clear()
        for trial in trained:
            decision = decisions.get(trial.id)
            if decision is not None:
                until = decision.until if isinstance(decision, Continue) else None
                self.ledger.extend(trial, until)
                self._record(
                    Extended(
                        trial.id, until, trial.config, trial.bracket, trial.resource, self._seconds
                    )
                )

    def fully_trained(self) -> list[Trial]:
        """Return the trials that an extension may resume, by number; none unless kept."""
        found = []
        for number, trial in sorted(self.ledger.trained.items()):
            kept = self.ledger.retained.get(number, trial)
            found.append(trial._replace(held=kept.held, checkpoint=kept.checkpoint))
        return found

    def forget_trained(self) -> None:
        """Stop keeping fully trained trials, which takes memory."""
        self.keeps_trained = False
        self.ledger.trained.clear()
        self._full.clear()

    def _retry(self, trial: Trial) -> None:
        """Let a failed trial wait again: in mid-segment, or for a new start."""
        onward = trial.attempt > 0 and self.scheduler.on_retry(trial)  # else it was set aside
        if onward and trial.decision is not None:  # it stands, once its state is trained again
            self._standing[trial.id] = trial.decision
        self._delete_unreferenced(self.ledger.revive(trial, onward=onward))

    def _trained(self, event: Trained) -> None:
        trial = self.ledger.running(event.trial, event.attempt)
        if trial is None or trial.decision is not None:  # a stale attempt, or already decided
            return
        steps = _unseen(event.steps, trial.resource)
        if not (steps or event.ended or event.preempted):
            return  # live metrics that arrived after the segment's report
        if event.memory is not None:
            self.memory.observe(trial.id, trial.config, event.memory)
        trial = self.ledger.advance(trial, steps)
        decision: Decision | None = None
        is_out_of_time = self.ledger.is_out_of_time(trial)
        if event.ended or trial.resource == trial.until:
            decision = self._standing.pop(trial.id, None)
            decision = decision or self._ask_scheduler(trial, event.ended, is_out_of_time)
        elif event.preempted and is_out_of_time:
            decision = self._ask_scheduler(trial, event.ended, is_out_of_time)
        self._record(
            Reported(
                event.trial,
                event.attempt,
                steps,
                self._seconds,
                event.ended,
                event.preempted,
                decision,
                event.memory,
            )
        )
        self._stop_at_target()
        if decision is not None:
            self._save_or_apply(trial, decision)
        elif event.preempted:
            self._preempt(trial)
        elif next_checkpoint(self._policy, trial.resource - 1, trial.until) == trial.resource:
            self._save(trial, ReuseProbability.CERTAIN)  # then it continues

    def _ask_scheduler(self, trial: Trial, ended: bool, is_out_of_time: bool) -> Decision:
        seconds = self._seconds_of(trial)
        report = Report(trial.resource, trial.losses, trial.best_loss, seconds)
        if trial.losses:  # empty if its code returned without another report
            self.searcher.observe(trial, report)
        if ended:
            return Stop(RETURNED)
        if is_out_of_time and trial.resource < self.scheduler.max_t:
            return Stop(OUT_OF_TIME)
        decision = self.scheduler.on_report(trial, report)
        if self.keeps_trained and isinstance(decision, Stop) and self._is_full(trial):
            self._full[trial.id] = trial.losses
        return decision

    def _is_full(self, trial: Trial) -> bool:
        return trial.resource >= self.scheduler.max_t

    def _seconds_of(self, trial: Trial) -> float:
        """Return the slot time of the units since the last decision on a trial."""
        began_at, resource = self._began[trial.id]
        here, n_units = trial.resource - resource, len(trial.losses)
        share = n_units / here if here else 1.0
        return (self._seconds - began_at) * max(1.0, share)  # below 1: it trained some again

    def _held(self, event: Held) -> None:
        if (trial := self.ledger.running(event.trial, event.attempt)) is None:
            if event.ref is not None and event.ref.id not in self.ledger.refs:  # a stale attempt
                self._commands.append(Delete(event.ref))
            return
        self._record(event)
        if event.ref is None:
            self.ledger.mark_stateless(trial)
        else:
            trial, freed = self.ledger.hold(trial, event.ref)
            self._delete_unreferenced(freed)
        if trial.preempting:
            self._requeue(trial, trial.until)
        elif trial.decision is not None:
            self._apply(trial, trial.decision, in_slot=True)
        else:
            self._continue(trial, in_slot=True)

    def _saved(self, event: Saved) -> None:
        ref, rows = event.ref, self.ledger.refs
        if rows.is_committed(ref.id):
            return  # two workers held it, and both wrote it
        trial = self.ledger.trials.get(event.trial)
        is_newer = (
            trial is not None
            and trial.attempt == event.attempt
            and (trial.checkpoint is None or trial.checkpoint.resource < ref.resource)
        )
        if not is_newer and ref.id not in rows:
            self._commands.append(Delete(ref))  # written by a stale attempt; unreferenced
            return
        self._record(event)
        if is_newer and trial is not None:
            rows.add_ref(trial.id, ref, held=False)
        self._delete_unreferenced(self.ledger.commit(ref))
        self._enforce_budget()

    def _attempt_lost(self, event: AttemptLost) -> None:
        if (trial := self.ledger.running(event.trial, event.attempt)) is None:
            return
        self._record(event)
        if event.bad_checkpoint:
            self._commands.append(Release(trial.id, trial.attempt))  # its worker lives, and waits
            trial, freed = self.ledger.discard_bad_checkpoint(trial)
            self._delete_unreferenced(freed, "it could not be read")
        if trial.decision is not None:  # it stands, with or without the checkpoint
            self._apply(trial, trial.decision, in_slot=False)
        elif self.ledger.is_out_of_time(trial):
            self._end_out_of_time(trial)
        elif event.blame and trial.n_lost + 1 >= MAX_LOST:
            reason = (
                f"lost {MAX_LOST} times in a row, without coming further than resource "
                f"{max(trial.lost_at, trial.resource)}: {event.reason}. If its process was killed "
                "for want of memory, the worker's log, dmesg or sacct say so"
            )
            self._end(trial, Status.FAILED, reason)
            self._stop_if_all_fail(trial, reason)
        else:
            self.ledger.requeue(trial, trial.until, lost=int(event.blame))

    def _erred(self, event: Erred) -> None:
        if (trial := self.ledger.running(event.trial, event.attempt)) is None:
            return
        if event.out_of_memory is not None:
            self._out_of_memory(trial, event, event.out_of_memory)
            return
        may_retry = event.retry and not event.fatal and trial.n_failed < self.limits.max_failures
        may_retry = may_retry and not self.ledger.is_out_of_time(trial)
        has_a_future = not (may_retry or event.fatal or isinstance(trial.decision, Stop))
        paused = has_a_future and self.scheduler.on_failure(trial)
        self._record(self._failed(event, paused))
        if may_retry and trial.decision is not None:  # saving raised; the decision stands
            decision = trial.decision
            trial = trial._replace(n_failed=trial.n_failed + 1)
            self._apply(trial, decision, in_slot=False)
            return
        self._commands.append(Release(trial.id, trial.attempt))
        if may_retry:
            self.ledger.requeue(trial, trial.until, failed=1)
            return
        if paused:  # its own state is of no use; it will exploit another trial
            self.ledger.pause(trial)
        else:
            self._fail(trial, headline(event.error))
            if event.fatal:
                self.fatal_error = event.error
                self._stop(f"trial {trial.id} failed")
        # A metric that is not finite is an outcome. What the user's code raises may be retried.
        if event.retry or not event.error.endswith(NOT_FINITE):
            self._stop_if_all_fail(trial, event.error)

    def _out_of_memory(self, trial: Trial, event: Erred, found: OutOfMemory) -> None:
        """End a trial that found too little memory, or let it run once more elsewhere.

        That is an outcome of its configuration, as a metric that is not finite is.
        """
        has_decision = trial.decision is not None  # saving took too much; the decision stands
        is_over = has_decision or self.ledger.is_out_of_time(trial)
        place = None if is_over else placement_after(found, trial.placement, self.limits.on_oom)
        paused = not has_decision and place is None and self.scheduler.on_failure(trial)
        self._record(self._failed(event, paused))
        if trial.decision is not None:
            self._apply(trial, trial.decision, in_slot=False)
            return
        self._commands.append(Release(trial.id, trial.attempt))
        if place is not None:
            self.ledger.requeue(trial._replace(placement=place), trial.until)
        elif paused:
            self.ledger.pause(trial)
        else:
            self._fail(trial, describe(found, trial.placement, headline(event.error)))

    def _failed(self, event: Erred, paused: bool) -> Failed:
        return Failed(
            event.trial,
            event.attempt,
            event.error,
            self._seconds,
            event.retry,
            event.fatal,
            paused,
            event.out_of_memory,
        )

    def _fail(self, trial: Trial, reason: str) -> None:
        self._end(trial, Status.FAILED, reason)
        if self.limits.fail_fast:
            self._stop(f"trial {trial.id} failed")

    def _out_of_time(self, event: OutOfTime) -> None:
        if (trial := self.ledger.running(event.trial, event.attempt)) is not None:
            self._record(event)
            self._commands.append(Interrupt(trial.id, trial.attempt, alone=True))

    def _end_out_of_time(self, trial: Trial) -> None:
        """End a trial that has used its time; one without a report has failed."""
        if trial.best_loss < math.inf:
            self._end(trial, Status.STOPPED, OUT_OF_TIME)
            return
        reason = f"{OUT_OF_TIME}, before its first report"
        self._fail(trial, reason)
        self._stop_if_all_fail(trial, reason)

    def _edit(self, event: Edit) -> None:
        if self.edits.is_known(event.request):
            return
        self._record(event)  # even for a trial that has ended: it is not meant for a later attempt
        self.edits.add(event)
        if isinstance(event, Enqueued):
            return
        trial = self.ledger.trials.get(event.trial)
        if trial is None:
            self.edits.paused.discard(event.trial)
        elif isinstance(event, TrialPauseRequested) and not event.paused:
            self.ledger.release_withheld(trial.id)
        elif trial.status is Status.RUNNING:
            self._commands.append(Interrupt(trial.id, trial.attempt, alone=True))

    def _end_unwanted(self) -> None:
        """End the trials that people do not want, once they hold no slot."""
        unwanted, ledger = self.edits.unwanted, self.ledger
        for number in [*unwanted]:
            if (trial := ledger.trials.get(number)) is None:
                del unwanted[number]
            elif trial.status is not Status.RUNNING:
                ledger.withdraw(trial)
                self._end(trial, Status.STOPPED, unwanted[number])
                del unwanted[number]

    def _stop_if_all_fail(self, trial: Trial, error: str) -> None:
        self._failures.on_failure(trial, error)
        if (reason := self._failures.reason_to_stop(self.ledger.trials.values())) is not None:
            self._stop(reason)

    def _stop_at_target(self) -> None:
        target = self.limits.target
        if target is not None and self.objective.reached(self.ledger.best_loss, target):
            self._stop(f"the target of {target} was reached")

    def _stop(self, reason: str) -> None:
        if self.stop_reason is None:
            self._record(StopRequested(reason, self._seconds))
            self.stop_reason = reason
            for trial in self.ledger.trials.values():
                if trial.status is Status.RUNNING:
                    self._commands.append(Interrupt(trial.id, trial.attempt))

    # -- decisions -------------------------------------------------------------------------------

    def _save_or_apply(self, trial: Trial, decision: Decision) -> None:
        kept = self.ledger.would_retain(trial)
        is_needed = (
            self.stop_reason is not None
            or trial.id in self.edits.paused
            or (kept and trial.id in self.edits.unwanted)
            or next_checkpoint(self._policy, trial.resource - 1, trial.resource + 1)
            == trial.resource
        )
        continues = isinstance(decision, Continue) and is_needed
        probability = reuse_probability(self._policy, None if continues else decision, kept)
        if probability is None or not trial.resource:  # nothing to save
            self._apply(trial, decision, in_slot=True)
        else:
            self._save(self.ledger.decide(trial, decision), probability)

    def _apply(self, trial: Trial, decision: Decision, *, in_slot: bool) -> None:
        """Carry out a decision; the state that it needs is held by now, or given up."""
        is_out_of_time = isinstance(decision, Stop) and decision.reason == OUT_OF_TIME
        if in_slot and not is_out_of_time:
            self._failures.on_success()
        if isinstance(decision, Continue):
            self._continue(self.ledger.continue_until(trial, decision.until), in_slot=in_slot)
            return
        self._commands.append(Release(trial.id, trial.attempt))
        if isinstance(decision, Pause):
            if self.ledger.is_out_of_time(trial):
                self._end_out_of_time(trial)
            else:
                self.ledger.pause(trial)
        elif is_out_of_time:
            self._end_out_of_time(trial)
        else:
            full = self._is_full(trial) or decision.reason == RETURNED
            self._end(trial, Status.COMPLETED if full else Status.STOPPED, decision.reason)

    def _continue(self, trial: Trial, *, in_slot: bool) -> None:
        is_wanted = trial.id not in self.edits.unwanted and trial.id not in self.edits.paused
        stays = in_slot and self.stop_reason is None and is_wanted
        if stays and not self.ledger.is_out_of_time(trial):
            self._commands.append(self._train(trial, launch=False))
        else:
            self._requeue(trial, trial.until)

    def _preempt(self, trial: Trial) -> None:
        """Free the trial's slot in mid-segment; save its state first if the policy does."""
        probability = reuse_probability(self._policy, None, retained=False)
        if probability is not None and trial.resource > 0:
            self._save(self.ledger.mark_preempting(trial), probability)
        else:
            self._requeue(trial, trial.until)

    def _save(self, trial: Trial, probability: ReuseProbability) -> None:
        self._commands.append(
            Save(trial.id, trial.attempt, self.ledger.refs.allocate(trial), probability)
        )

    def _requeue(self, trial: Trial, until: int) -> None:
        self._commands.append(Release(trial.id, trial.attempt))
        if self.ledger.is_out_of_time(trial):
            self._end_out_of_time(trial)
        else:
            self.ledger.requeue(trial, until)

    def _end(self, trial: Trial, status: Status, reason: str) -> None:
        self._record(Ended(trial.id, status, reason, self._seconds))
        was_paused = trial.status is Status.PAUSED
        if status is Status.COMPLETED and (losses := self._full.pop(trial.id, None)) is not None:
            self.ledger.trained[trial.id] = trial._replace(
                status=status, losses=losses, held=None, checkpoint=None, previous=None
            )
        trial, freed = self.ledger.end(trial, status)
        self._delete_unreferenced(freed)
        if was_paused and trial.id in self.ledger.retained and trial.held is not None:
            self._commands.append(Write(trial.held))  # it may not have been worth a write before
        self._began.pop(trial.id, None)
        self.edits.paused.discard(trial.id)
        # What a person ends is, for a scheduler, gone for a reason that it does not know.
        by_hand = status is Status.STOPPED and trial.id in self.edits.unwanted
        self.scheduler.on_end(trial._replace(status=Status.FAILED) if by_hand else trial)
        self.searcher.on_end(trial)

    # -- checkpoints -----------------------------------------------------------------------------

    def _delete_unreferenced(self, freed: list[CheckpointRef], reason: str = "") -> None:
        """Delete checkpoints without references from memory and from the store."""
        for ref in freed:
            if ref.array:
                self._record(Deleted(ref.id, reason, self._seconds))
            self._commands.append(Delete(ref, reason))

    def _enforce_budget(self) -> None:
        """Delete checkpoints that exceed the budget, the least promising first."""
        ledger, rows = self.ledger, self.ledger.refs
        while is_full(self._policy, rows.n_bytes, rows.n_files):
            living = ledger.trials.values()
            alone = (
                t for t in living if rows.is_unshared(t.checkpoint) and rows.is_unshared(t.previous)
            )
            chances = self._chances()
            ref = eviction_candidate(
                alone, ledger.retained.values(), chances
            ) or eviction_candidate(living, (), chances)  # shared ones last
            if ref is None:
                return
            self._delete_unreferenced(ledger.evict(ref), BUDGET_REACHED)

    def _chances(self) -> dict[TrialId, float]:
        """Return the chances of paused trials among which a model chooses."""
        if self._choice is None or not self.trusted:
            return {}
        trials = self.ledger.trials.values()
        paused = [t for t in trials if t.status is Status.PAUSED and t.checkpoint is not None]
        chances = self.advisor.chances(paused, self._choice)
        return {trial.id: chance for trial, chance in zip(paused, chances, strict=True)}

    def _flush(self) -> None:
        """Write the best states and drop the others, at the end of the session.

        A study that was stopped is likely to be resumed. States that may be needed again are then
        written as well.
        """
        self._flushed = True
        n_best = self._policy.keep_best
        best = self.ledger.best(1 if n_best is None else n_best)
        rows = tuple(trial.held.id for trial in best if trial.held is not None)
        self._commands.append(Flush(rows, write=self.stop_reason is not None))

    # -- free slots ------------------------------------------------------------------------------

    def _assign_free_slots(self) -> None:
        """Give work to free slots: queued trials, then the scheduler's actions."""
        ledger = self.ledger
        while self.stop_reason is None:
            self._judge()  # what the searcher learns from a trial that ended here counts at once
            has_room = ledger.n_running < self.n_slots
            if not has_room and ledger.n_running:
                return
            if ledger.queue:
                if not has_room:
                    return
                trial = ledger.trials[ledger.queue.popleft()]
                if trial.id in self.edits.paused:
                    ledger.withhold(trial, trial.until)
                elif ledger.is_out_of_time(trial):  # this session has a shorter limit
                    self._end_out_of_time(trial)
                elif ledger.is_rolled_back(trial) and self.scheduler.on_rollback(trial):
                    self._record(RolledBack(trial.id, self._seconds))
                    ledger.pause_queued(trial)
                else:
                    self._launch(trial, trial.until)
                continue
            is_full = self.limits.num_trials is not None and (
                ledger.n_trials >= self.limits.num_trials
            )
            is_given = bool(ledger.to_restart or self.edits.configs)
            can_start = is_given or not (self._exhausted or is_full)
            action = self.scheduler.next_action(ledger.trials, can_start)
            self.idle = isinstance(action, Wait)
            match action:
                case Discard(number) | Resume(number) | Exploit(number) if ledger.is_pausing(
                    number
                ):
                    return  # it is paused once its state is held; then the scheduler is asked again
                case Resume(number) if ledger.is_out_of_time(ledger.paused(number)):
                    self._end_out_of_time(ledger.paused(number))
                case Discard(number, reason):
                    self._end(ledger.paused(number), Status.STOPPED, reason)
                case Exploit(number, source, config):
                    self._exploit(ledger.paused(number), source, config)
                case Start() if has_room:
                    self._start(action)
                case Choose() if has_room:
                    self._choose(action)
                case Resume(number, until) if has_room:
                    self._resume(ledger.paused(number), until)
                case _:
                    return

    def _judge(self) -> None:
        """Pass on the verdict on the searcher's model, if it is a new one."""
        trusted = self.advisor.judge(self.trusted)
        if trusted != self.trusted:
            self.trusted = trusted
            self._record(Judged(trusted, self._seconds))
            self.scheduler.on_trust(trusted)

    def _choose(self, choice: Choose) -> None:
        if self.ledger.to_restart or self.edits.configs:
            self._start(choice.start)
            return
        self._choice = choice
        if self.limits.trial_time_limit is not None:
            times, now = self.ledger.times, self._seconds
            paused = {n: until for n, until in choice.paused.items() if not times.is_up(n, now)}
            choice = replace(choice, paused=paused)
        given = self.advisor.choose(self.ledger.n_trials, choice)
        if isinstance(given, int):
            self._resume(self.ledger.paused(given), choice.paused[given])
        else:
            self._start_with(given, choice.start)

    def _start(self, action: Start) -> None:
        if self.ledger.to_restart:
            self._resume(self.ledger.restart(action.until, action.bracket), action.until)
        elif self.edits.configs:
            self.advisor.add(self.ledger.n_trials)
            self._start_with(Suggestion(self.edits.configs.popleft()), action, is_wanted=True)
        else:
            given = self.advisor.suggest(self.ledger.n_trials, action.explore)
            self._start_with(given, action)

    def _start_with(
        self, given: Suggestion | None, action: Start, *, is_wanted: bool = False
    ) -> None:
        """Start a new trial; None: the searcher has no further configuration.

        ``is_wanted``: a person asked for it, so it is not set aside.
        """
        if given is None:
            self._exhausted = True
            return
        until, bracket = action.until, action.bracket
        waited = given.waited * (self.n_slots - self.ledger.n_running)  # all free slots waited
        trial = self.ledger.add(given.config, until, bracket)
        self.searcher.on_start(trial.id, given.config)
        self._record(
            Suggested(trial.id, given.config, bracket, self._seconds, waited, given.fallback)
        )
        must_run = is_wanted or self.scheduler.is_population  # which needs all its members
        must_run = must_run or self._n_set_aside == MAX_SET_ASIDE
        found = None if must_run else self.foresight.shortage(trial.id, trial.config)
        if found is not None:
            self._set_aside(trial, found)
            return
        self._n_set_aside = 0
        self.scheduler.on_launch(self._launch(trial, until))

    def _set_aside(self, trial: Trial, found: Shortage) -> None:
        """End a new trial without a launch; the scheduler has not heard of it yet."""
        seconds, self._n_set_aside = self._seconds, self._n_set_aside + 1
        self._record(SetAside(trial.id, found.of, found.needs, found.has, seconds))
        self._record(Ended(trial.id, Status.FAILED, str(found), seconds))
        trial, _ = self.ledger.end(trial, Status.FAILED)
        self.searcher.on_end(trial)

    def _exploit(self, trial: Trial, source: TrialId, config: Config) -> None:
        donor = self.ledger.find(source)
        if donor is None or (donor.newest is None and donor is not trial):
            raise RuntimeError(
                f"the scheduler lets trial {trial.id} exploit trial {source}, which has no "
                f"state: {donor or 'it has ended, or never started'}"
            )
        trial, freed = self.ledger.exploit(trial, donor, config)
        self.scheduler.on_exploit(trial, source)
        resource = trial.resource
        self._record(Exploited(trial.id, source, config, resource, self._seconds))
        self._delete_unreferenced(freed)

    def _resume(self, trial: Trial, until: int) -> None:
        """Launch a trial as the scheduler decided, or once a person lets it."""
        if trial.id in self.edits.paused:
            trial = self.ledger.withhold(trial, until)
            self._record(Withheld(trial.id, until, self._seconds))
        else:
            trial = self._launch(trial, until)
        self.scheduler.on_launch(trial)

    def _launch(self, trial: Trial, until: int) -> Trial:
        trial = self.ledger.launch(trial, until)
        self._record(Launched(trial.id, trial.attempt, trial.resource, until, self._seconds))
        self._commands.append(self._train(trial, launch=True))
        self._failures.on_launch(trial.id)
        return trial

    def _train(self, trial: Trial, *, launch: bool) -> Train:
        self._began[trial.id] = self._seconds, trial.resource
        return Train(
            trial.id,
            trial.attempt,
            trial.config,
            trial.resource,
            next_checkpoint(self._policy, trial.resource, trial.until),
            trial.newest if launch else None,
            launch,
            trial.placement if launch else None,
        )


def _unseen(steps: tuple[Step, ...], resource: int) -> tuple[Step, ...]:
    """Return the steps that were not already reported in mid-segment."""
    if steps and steps[0].resource > resource:
        return steps
    return tuple(step for step in steps if step.resource > resource)
