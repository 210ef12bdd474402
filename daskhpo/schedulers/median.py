"""The median stopping rule, added to any other scheduler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from daskhpo.core.arguments import check_int, check_kind
from daskhpo.core.errors import InvalidArgument
from daskhpo.core.medians import RunningMedian
from daskhpo.core.rungs import RESOURCE
from daskhpo.core.scheduler import Scheduler
from daskhpo.core.space import Space
from daskhpo.core.types import (
    Action,
    Choose,
    Continue,
    Decision,
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


class MedianStopping(Scheduler):
    """Scheduler that adds the median stopping rule to another scheduler.

    A trial is stopped if its best loss is worse than the median of the others' running averages.
    The other scheduler decides everything else. Its segments are cut every ``interval`` units, so
    that the rule can be applied in between. It does not see the cuts, but is notified when one of
    its trials is stopped. A trial that takes over a state also takes over its running average.

    Parameters
    ----------
    scheduler : decides how far trials train, for example ``FIFO(max_t)`` or ``ASHA(...)``.
    grace_period : no trial is stopped before this resource.
    interval : units of training between two applications of the rule.
    min_samples : other trials needed at a resource before a trial is stopped there.

    Raises
    ------
    TypeError, ValueError : ``scheduler`` is not a scheduler, or a number is below 1.

    References
    ----------
    Golovin et al. 2017, *Google Vizier*, Sec. 3.2.1. A trial is compared with all trials that
    reached the same resource, not only with completed ones. An asynchronous study may have no
    completed trials for a long time.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        grace_period: int = 1,
        interval: int = 1,
        min_samples: int = 3,
    ) -> None:
        check_kind("scheduler", scheduler, Scheduler, "a scheduler, such as FIFO(max_t=27)")
        grace_period = check_int("grace_period", grace_period, at_least=1, why=RESOURCE)
        interval = check_int("interval", interval, at_least=1, why=RESOURCE)
        min_samples = check_int("min_samples", min_samples, at_least=1)
        if grace_period > scheduler.max_t:
            raise InvalidArgument(
                f"grace_period={grace_period} is above the scheduler's max_t={scheduler.max_t}: "
                "no trial would ever be stopped"
            )
        self.max_t, self.mutates = scheduler.max_t, scheduler.mutates
        self.is_population = scheduler.is_population
        self._inner = scheduler
        self._grace_period, self._interval = grace_period, interval
        self._min_samples = min_samples
        self._averages: dict[int, RunningMedian] = {}  # of all trials, by resource
        self._sums: dict[TrialId, tuple[float, int]] = {}  # sum and number of its state's losses
        self._unseen: dict[TrialId, tuple[float, ...]] = {}  # not yet reported to _inner
        self._seconds: dict[TrialId, float] = {}  # of these
        self._until: dict[TrialId, int] = {}  # end of _inner's segment
        # The three of each trial that failed and may run again.
        self._failed: dict[TrialId, tuple[int, tuple[float, int], tuple[float, ...]]] = {}
        self._trained: dict[TrialId, tuple[float, int]] = {}  # sums of fully trained ones
        self._asked: Action = Wait()  # last action of _inner, for on_launch

    def __repr__(self) -> str:
        return (
            f"MedianStopping({self._inner!r}, grace_period={self._grace_period}, "
            f"interval={self._interval}, min_samples={self._min_samples})"
        )

    def setup(self, space: Space, seed: int) -> None:
        self._inner.setup(space, seed)

    def is_enough(self, num_trials: int) -> bool:
        return self._inner.is_enough(num_trials)

    def next_action(self, trials: Mapping[TrialId, Trial], can_start: bool) -> Action:
        self._asked = self._inner.next_action(trials, can_start)
        if isinstance(self._asked, Choose):  # the segment of a paused trial would need a cut, too
            self._asked = self._asked.start
        match self._asked:
            case Start(until):
                return replace(self._asked, until=self._cut(0, until))
            case Resume(trial, until):
                return Resume(trial, self._cut(trials[trial].resource, until))
            case action:
                return action

    def on_launch(self, trial: Trial) -> None:
        assert isinstance(self._asked, Start | Resume), f"{trial} was launched unasked"
        self._until[trial.id] = self._asked.until
        self._inner.on_launch(trial._replace(until=self._asked.until))

    def on_report(self, trial: Trial, report: Report) -> Decision:
        resource = report.resource
        total, n = self._sums.get(trial.id, (0.0, 0))
        total, n = self._sums[trial.id] = total + sum(report.losses), n + len(report.losses)
        others = self._averages.setdefault(resource, RunningMedian())
        hopeless = (
            resource >= self._grace_period
            and len(others) >= self._min_samples
            and report.best_loss > others.value()
        )
        others.insert(total / n)
        if hopeless and resource < self.max_t:
            return Stop("worse than the median of the running averages")
        losses = self._unseen.pop(trial.id, ()) + report.losses
        until = self._until[trial.id]
        seconds = self._seconds.pop(trial.id, 0.0) + report.seconds
        if resource < until:
            self._unseen[trial.id], self._seconds[trial.id] = losses, seconds
            return Continue(self._cut(resource, until))
        decision = self._inner.on_report(
            trial._replace(until=until), replace(report, losses=losses, seconds=seconds)
        )
        if isinstance(decision, Continue):
            self._until[trial.id] = decision.until
            return Continue(self._cut(resource, decision.until), decision.keep)
        return decision

    def on_trust(self, trusted: bool) -> None:
        self._inner.on_trust(trusted)

    def on_exploit(self, trial: Trial, source: TrialId) -> None:
        self._unseen.pop(trial.id, None)  # losses of its old state
        if trial.id != source:
            self._sums[trial.id] = self._sums.get(source, (0.0, 0))
        self._inner.on_exploit(trial, source)

    def on_rollback(self, trial: Trial) -> bool:
        return self._inner.on_rollback(trial)

    def on_failure(self, trial: Trial) -> bool:
        return self._inner.on_failure(trial)

    def on_end(self, trial: Trial) -> None:
        number = trial.id
        until, sums = self._until.pop(number), self._sums.pop(number, (0.0, 0))
        unseen = self._unseen.pop(number, ())
        self._seconds.pop(number, None)
        if trial.status is Status.FAILED:
            self._failed[number] = until, sums, unseen
        elif trial.status is Status.COMPLETED and trial.resource >= self.max_t:
            self._trained[number] = sums
        self._inner.on_end(trial)

    def on_retry(self, trial: Trial) -> bool:
        until, sums, unseen = self._failed.pop(trial.id)
        # A decision before the end of the other scheduler's segment is not its own.
        decision = trial.decision if trial.decided_at == until else None
        if not self._inner.on_retry(trial._replace(until=until, decision=decision)):
            return False
        self._until[trial.id], self._sums[trial.id] = until, sums
        if unseen:
            self._unseen[trial.id] = unseen
        return True

    def on_extend(self, max_t: int, ended: Sequence[Trial]) -> dict[TrialId, Continue | Pause]:
        decided = self._inner.on_extend(max_t, ended)
        old, self.max_t = self.max_t, max_t
        trained, self._trained = self._trained, {}
        decisions: dict[TrialId, Continue | Pause] = {}
        for number, decision in decided.items():
            self._sums[number] = trained[number]
            self._until[number] = old
            if isinstance(decision, Continue):
                self._until[number] = decision.until
                decision = Continue(self._cut(old, decision.until))
            decisions[number] = decision
        return decisions

    def _cut(self, resource: int, until: int) -> int:
        """Return the resource where the rule applies next, at most ``until``."""
        first = max(self._grace_period, resource + 1)
        question = -(-first // self._interval) * self._interval  # the next multiple
        return min(question, until)
