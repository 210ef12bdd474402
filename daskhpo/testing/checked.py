"""A scheduler whose answers are checked."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Mapping, Sequence

from daskhpo.core.scheduler import Scheduler
from daskhpo.core.space import Space
from daskhpo.core.types import (
    Action,
    Continue,
    Decision,
    Pause,
    Report,
    Resume,
    Start,
    Status,
    Trial,
    TrialId,
)


class CheckedScheduler(Scheduler):
    """A wrapper that checks each answer of a scheduler, and records its trials.

    Its ``setup`` does nothing: a test sets its scheduler up itself, where that is needed.

    Parameters
    ----------
    inner : the scheduler.
    suspicious : True: request each action twice, and once with the opposite ``can_start``, and
        check that the scheduler does not change.

    Attributes
    ----------
    reached : trials that reported at (bracket, resource), in the order of arrival.
    ended : status and resource at which each trial ended.
    """

    def __init__(self, inner: Scheduler, suspicious: bool = False) -> None:
        self.inner, self._suspicious = inner, suspicious
        self.max_t = inner.max_t
        self.reached: dict[tuple[int, int], list[TrialId]] = defaultdict(list)
        self.ended: dict[TrialId, tuple[Status, int]] = {}

    def setup(self, space: Space, seed: int) -> None:
        pass

    def next_action(self, trials: Mapping[TrialId, Trial], can_start: bool) -> Action:
        action = self._ask(trials, can_start)
        match action:
            case Start(until):
                assert can_start, "more than num_trials were started"
                assert 0 < until <= self.max_t
            case Resume(number, until) if number in trials:  # the coordinator rejects any other
                assert trials[number].decided_at < until <= self.max_t
        return action

    def _ask(self, trials: Mapping[TrialId, Trial], can_start: bool) -> Action:
        if not self._suspicious:
            return self.inner.next_action(trials, can_start)
        unasked = copy.deepcopy(self.inner)
        self.inner.next_action(trials, not can_start)
        first = self.inner.next_action(trials, can_start)
        assert self.inner.next_action(trials, can_start) == first
        assert unasked.next_action(trials, can_start) == first
        return first

    def on_launch(self, trial: Trial) -> None:
        self.inner.on_launch(trial)

    def on_report(self, trial: Trial, report: Report) -> Decision:
        self.reached[trial.bracket, report.resource].append(trial.id)
        decision = self.inner.on_report(trial, report)
        if isinstance(decision, Continue):
            assert report.resource < decision.until <= self.max_t
        return decision

    def on_exploit(self, trial: Trial, source: TrialId) -> None:
        self.inner.on_exploit(trial, source)

    def on_rollback(self, trial: Trial) -> bool:
        return self.inner.on_rollback(trial)

    def on_failure(self, trial: Trial) -> bool:
        return self.inner.on_failure(trial)

    def on_retry(self, trial: Trial) -> bool:
        del self.ended[trial.id]
        return self.inner.on_retry(trial)

    def on_extend(self, max_t: int, ended: Sequence[Trial]) -> Mapping[TrialId, Continue | Pause]:
        decisions = self.inner.on_extend(max_t, ended)
        assert self.inner.max_t == max_t
        assert decisions.keys() <= {trial.id for trial in ended}
        for trial in ended:
            if (decision := decisions.get(trial.id)) is not None:
                del self.ended[trial.id]
            if isinstance(decision, Continue):
                assert trial.resource < decision.until <= max_t
        self.max_t = max_t
        return decisions

    def on_end(self, trial: Trial) -> None:
        self.ended[trial.id] = (trial.status, trial.resource)
        self.inner.on_end(trial)
