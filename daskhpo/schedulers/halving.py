"""Synchronous successive halving and Hyperband: a rung is judged when it is full."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import final

from daskhpo.core.arguments import check_int, optional
from daskhpo.core.rungs import Level, check_ladder, halving_levels, hyperband_brackets
from daskhpo.core.scheduler import Compare, Scheduler, check_compare, ranked_loss
from daskhpo.core.types import (
    Action,
    Continue,
    Decision,
    Discard,
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

LOST_ITS_RUNG = "not among the best of its rung"


class SynchronousHalving(Scheduler):
    """Scheduler that runs brackets of successive halving in turn, then repeats them.

    While a bracket waits for the rest of a rung, free slots begin the next bracket. A trial that
    fails counts as the worst of its rung. If the study has no more trials, a rung that no other
    trial can join counts as full, and keeps the share ``n_next/n`` of its trials.

    Parameters
    ----------
    brackets : levels of each bracket, by increasing resource; the last one is ``max_t``.
    compare : rank by the ``"last"`` report, or by the ``"best"`` so far.
    """

    def __init__(
        self, brackets: Sequence[Sequence[Level]], compare: Compare, described: str
    ) -> None:
        self.max_t = brackets[0][-1].resource
        self._templates = [tuple(levels) for levels in brackets]
        self._compare = check_compare(compare)
        self._described = described
        self._open: dict[int, _Bracket] = {}
        self._n_opened = 0

    def __repr__(self) -> str:
        return self._described

    def next_action(self, trials: Mapping[TrialId, Trial], can_start: bool) -> Action:
        def is_paused(trial: TrialId) -> bool:  # False while its state is being taken
            return trial in trials and trials[trial].status is Status.PAUSED

        for bracket in self._open.values():
            if (action := bracket.verdict(can_start, is_paused)) is not None:
                return action
        if not can_start:
            return Wait()
        for number, bracket in self._open.items():
            if bracket.has_room():
                return Start(until=bracket.levels[0].resource, bracket=number)
        levels = self._templates[self._n_opened % len(self._templates)]
        return Start(until=levels[0].resource, bracket=self._n_opened)

    def on_launch(self, trial: Trial) -> None:
        if trial.bracket == self._n_opened:
            levels = self._templates[self._n_opened % len(self._templates)]
            self._open[self._n_opened] = _Bracket(levels)
            self._n_opened += 1
        self._open[trial.bracket].launch(trial.id, trial.until)

    def on_report(self, trial: Trial, report: Report) -> Decision:
        if report.resource == self.max_t:
            return Stop("fully trained")
        bracket = self._open[trial.bracket]
        bracket.report(trial.id, report.resource, ranked_loss(report, self._compare))
        return bracket.decision(trial.id, report.resource)

    def on_end(self, trial: Trial) -> None:
        if (bracket := self._open.get(trial.bracket)) is None:
            return
        bracket.end(trial.id, failed=trial.status is Status.FAILED)
        if bracket.is_over():
            del self._open[trial.bracket]


@final
class SuccessiveHalving(SynchronousHalving):
    """Synchronous successive halving: one bracket, repeated until the trials run out.

    Parameters
    ----------
    max_t, grace_period, reduction_factor : R, r and η.
    num_configs : number of trials that start a bracket; None: the least that leaves one at
        ``max_t``.
    compare : rank by the ``"last"`` report, or by the ``"best"`` so far.

    Raises
    ------
    TypeError, ValueError : values that give no ladder, or too few configurations for it.

    References
    ----------
    Jamieson and Talwalkar 2016; Li et al. 2018, Algorithm 1, lines 4-10.
    """

    def __init__(
        self,
        max_t: int,
        grace_period: int = 1,
        reduction_factor: int = 3,
        num_configs: int | None = None,
        compare: Compare = "last",
    ) -> None:
        max_t, grace_period, reduction_factor = check_ladder(max_t, grace_period, reduction_factor)
        self.grace_period, self.reduction_factor = grace_period, reduction_factor
        n_halvings = len(hyperband_brackets(max_t, grace_period, reduction_factor)) - 1
        least = reduction_factor**n_halvings
        few = f"fewer leave no trial at max_t={max_t}"
        given = optional(check_int, "num_configs", num_configs, at_least=least, why=few)
        n_trials = least if given is None else given
        compare = check_compare(compare)
        described = (
            f"SuccessiveHalving(max_t={max_t}, grace_period={grace_period}, "
            f"reduction_factor={reduction_factor}, num_configs={n_trials}, compare={compare!r})"
        )
        levels = halving_levels(n_trials, max_t, n_halvings, reduction_factor)
        super().__init__([levels], compare, described)


@final
class Hyperband(SynchronousHalving):
    """Hyperband: each bracket begins with fewer trials, at a higher resource.

    Parameters
    ----------
    max_t, grace_period, reduction_factor : R, r and η.
    compare : rank by the ``"last"`` report, or by the ``"best"`` so far.

    Raises
    ------
    TypeError, ValueError : values that give no ladder.

    References
    ----------
    Li et al. 2018, *Hyperband*, JMLR 18(185), Algorithm 1 and Table 1.
    """

    def __init__(
        self,
        max_t: int,
        grace_period: int = 1,
        reduction_factor: int = 3,
        compare: Compare = "last",
    ) -> None:
        max_t, grace_period, reduction_factor = check_ladder(max_t, grace_period, reduction_factor)
        compare = check_compare(compare)
        self.grace_period, self.reduction_factor = grace_period, reduction_factor
        described = (
            f"Hyperband(max_t={max_t}, grace_period={grace_period}, "
            f"reduction_factor={reduction_factor}, compare={compare!r})"
        )
        brackets = hyperband_brackets(max_t, grace_period, reduction_factor)
        super().__init__(brackets, compare, described)


class _Rung:
    """One level of a running bracket: pending trials, losses, and their outcome."""

    def __init__(self) -> None:
        self.n_joined = 0
        self.pending: set[TrialId] = set()
        self.losses: dict[TrialId, float] = {}
        self.judged = False
        self.winners: OrderedDict[TrialId, None] = OrderedDict()  # judged, not resumed yet
        self.losers: OrderedDict[TrialId, None] = OrderedDict()  # judged, not discarded yet


class _Bracket:
    """One running bracket; only events judge its rungs, queries change nothing."""

    def __init__(self, levels: tuple[Level, ...]) -> None:
        self.levels = levels
        self._level_of = {level.resource: i for i, level in enumerate(levels)}
        self._rungs = [_Rung() for _ in levels]
        self._at: dict[TrialId, int] = {}  # level of each trial that has not ended

    def has_room(self) -> bool:
        """Return True if trials may still join at the bottom: it is not full or judged."""
        bottom = self._rungs[0]
        return bottom.n_joined < self.levels[0].n_trials and not bottom.judged

    def is_over(self) -> bool:
        return not self.has_room() and not self._at

    def launch(self, trial: TrialId, until: int) -> None:
        level = self._level_of[until]
        if level > 0:
            if not self._rungs[level - 1].judged:  # the study ran out of trials
                self._judge(level - 1)
            del self._rungs[level - 1].winners[trial]
        self._rungs[level].n_joined += 1
        self._rungs[level].pending.add(trial)
        self._at[trial] = level

    def report(self, trial: TrialId, resource: int, loss: float) -> None:
        level = self._level_of[resource]
        self._rungs[level].pending.remove(trial)
        self._rungs[level].losses[trial] = loss
        self._judge_if_full(level)

    def end(self, trial: TrialId, failed: bool) -> None:
        level = self._at.pop(trial)
        rung = self._rungs[level]
        if trial in rung.pending:
            rung.pending.remove(trial)
            self._judge_if_full(level)
            return
        if not rung.judged:
            if failed or rung.pending:  # it reported, and its checkpoint could not be written
                del rung.losses[trial]
                return
            self._judge(level)  # discarded, because the study ran out of trials
        rung.winners.pop(trial, None)
        rung.losers.pop(trial, None)
        self._judge_if_full(level + 1)

    def decision(self, trial: TrialId, resource: int) -> Decision:
        """Return the decision on a report, which may have filled its level."""
        level = self._level_of[resource]
        if trial in self._rungs[level].losers:
            return Stop(LOST_ITS_RUNG)
        if trial not in self._rungs[level].winners:
            return Pause()
        until = self.levels[level + 1].resource
        self.launch(trial, until)
        return Continue(until)

    def verdict(self, can_start: bool, is_paused: Callable[[TrialId], bool]) -> Action | None:
        """Return the next action on a full level; losers first: they may hold checkpoints."""
        for level, rung in enumerate(self._rungs[:-1]):
            winners, losers = iter(rung.winners), iter(rung.losers)
            if not rung.judged:
                if can_start or level > 0 or rung.pending:
                    return None
                ranked, n_kept = self._ranked(level)  # not stored: more trials may come later
                winners, losers = iter(ranked[:n_kept]), iter(ranked[n_kept:])
            if (trial := next(filter(is_paused, losers), None)) is not None:
                return Discard(trial, LOST_ITS_RUNG)
            if (trial := next(filter(is_paused, winners), None)) is not None:
                return Resume(trial, until=self.levels[level + 1].resource)
        return None

    def _judge_if_full(self, level: int) -> None:
        """Judge a level once all trials that can reach it have reported there or ended."""
        if level >= len(self.levels) - 1 or self._rungs[level].judged:
            return
        if level == 0:
            complete = not self.has_room()
        else:
            below = self._rungs[level - 1]
            complete = below.judged and not below.winners
        if complete and not self._rungs[level].pending:
            self._judge(level)

    def _judge(self, level: int) -> None:
        ranked, n_kept = self._ranked(level)
        rung = self._rungs[level]
        rung.judged = True
        rung.winners = OrderedDict.fromkeys(ranked[:n_kept])
        rung.losers = OrderedDict.fromkeys(ranked[n_kept:])

    def _ranked(self, level: int) -> tuple[list[TrialId], int]:
        """Return the trials of a level, best first, and how many continue.

        Equal losses rank by trial number, the lower one first.
        """
        rung = self._rungs[level]
        n_kept, n_here = self.levels[level + 1].n_trials, self.levels[level].n_trials
        if rung.n_joined < n_here:  # trials ran out, or failed below: keep the same share
            n_kept = max(1, rung.n_joined * n_kept // n_here)
        return sorted(rung.losses, key=lambda trial: (rung.losses[trial], trial)), n_kept
