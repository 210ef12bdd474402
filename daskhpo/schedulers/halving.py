"""Synchronous successive halving and Hyperband: a rung is judged when it is full."""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import final

from daskhpo.core.arguments import check_int, optional
from daskhpo.core.rungs import (
    Level,
    check_ladder,
    halving_levels,
    hyperband_brackets,
    longer,
)
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
    max_t, grace_period, reduction_factor : R, r and η.
    compare : rank by the ``"last"`` report, or by the ``"best"`` so far.
    """

    def __init__(
        self, max_t: int, grace_period: int, reduction_factor: int, compare: Compare
    ) -> None:
        self.max_t, self.grace_period, self.reduction_factor = check_ladder(
            max_t, grace_period, reduction_factor
        )
        self._compare = check_compare(compare)
        self._open: dict[int, _Bracket] = {}
        self._n_opened = 0

    @abstractmethod
    def _templates(self) -> Sequence[tuple[Level, ...]]:
        """Return the levels of each bracket, by resource; the last is ``max_t``."""

    def _levels(self) -> tuple[Level, ...]:
        """Return the levels of the next bracket."""
        templates = self._templates()
        return templates[self._n_opened % len(templates)]

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
        return Start(until=self._levels()[0].resource, bracket=self._n_opened)

    def on_launch(self, trial: Trial) -> None:
        if trial.bracket == self._n_opened:
            self._open[self._n_opened] = _Bracket(self._levels())
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

    def on_extend(self, max_t: int, ended: Sequence[Trial]) -> Mapping[TrialId, Continue | Pause]:
        """Add levels to each bracket: the old ``max_t`` is judged as any other.

        New brackets are those of a study that begins with the new ``max_t``.
        """
        old, self.max_t = self.max_t, max_t
        members: dict[int, list[Trial]] = {number: [] for number in self._open}
        for trial in ended:
            members.setdefault(trial.bracket, []).append(trial)
        decisions: dict[TrialId, Continue | Pause] = {}
        for number, those in members.items():
            if number not in self._open:  # it was over: all that it had left are these
                self._open[number] = _Bracket((Level(len(those), old),), n_joined=len(those))
            bracket = self._open[number]
            bracket.extend(max_t, self.reduction_factor)
            bracket.rejoin(
                {t.id: t.losses[-1] if self._compare == "last" else t.best_loss for t in those}, old
            )
            for trial in those:
                match bracket.decision(trial.id, old):
                    case Continue() | Pause() as decision:
                        decisions[trial.id] = decision
                    case Stop():  # it has ended already
                        bracket.end(trial.id, failed=False)
            if bracket.is_over():
                del self._open[number]
        return decisions


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
        super().__init__(max_t, grace_period, reduction_factor, compare)
        least = self.reduction_factor ** self._n_halvings()
        few = f"fewer leave no trial at max_t={self.max_t}"
        given = optional(check_int, "num_configs", num_configs, at_least=least, why=few)
        self._num_configs = least if given is None else given

    def __repr__(self) -> str:
        return (
            f"SuccessiveHalving(max_t={self.max_t}, grace_period={self.grace_period}, "
            f"reduction_factor={self.reduction_factor}, num_configs={self._num_configs}, "
            f"compare={self._compare!r})"
        )

    def _n_halvings(self) -> int:
        return len(hyperband_brackets(self.max_t, self.grace_period, self.reduction_factor)) - 1

    def _templates(self) -> Sequence[tuple[Level, ...]]:
        s, eta = self._n_halvings(), self.reduction_factor
        n_trials = max(self._num_configs, eta**s)  # an extension may need more
        return [halving_levels(n_trials, self.max_t, s, eta)]


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
        super().__init__(max_t, grace_period, reduction_factor, compare)

    def __repr__(self) -> str:
        return (
            f"Hyperband(max_t={self.max_t}, grace_period={self.grace_period}, "
            f"reduction_factor={self.reduction_factor}, compare={self._compare!r})"
        )

    def _templates(self) -> Sequence[tuple[Level, ...]]:
        return hyperband_brackets(self.max_t, self.grace_period, self.reduction_factor)


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
    """One running bracket; only events judge its rungs, queries change nothing.

    ``n_joined``: trials that joined at its bottom before.
    """

    def __init__(self, levels: tuple[Level, ...], n_joined: int = 0) -> None:
        self.levels = levels
        self._level_of = {level.resource: i for i, level in enumerate(levels)}
        self._rungs = [_Rung() for _ in levels]
        self._rungs[0].n_joined = n_joined
        self._at: dict[TrialId, int] = {}  # level of each trial that has not ended

    def has_room(self) -> bool:
        """Return True if trials may still join at the bottom: it is not full or judged."""
        bottom = self._rungs[0]
        return bottom.n_joined < self.levels[0].n_trials and not bottom.judged

    def is_over(self) -> bool:
        return not self.has_room() and not self._at

    def extend(self, max_t: int, eta: int) -> None:
        """Add levels up to a larger ``max_t``; at least one trial reaches each."""
        top = self.levels[-1]
        new = longer((top.resource,), max_t, eta)[1:]
        for i, resource in enumerate(new, start=1):
            self.levels = (*self.levels, Level(max(1, top.n_trials // eta**i), resource))
            self._level_of[resource] = len(self._rungs)
            self._rungs.append(_Rung())

    def rejoin(self, losses: Mapping[TrialId, float], resource: int) -> None:
        """Let trials that ended at what was the top wait there for the others."""
        level = self._level_of[resource]
        self._rungs[level].losses |= losses
        self._at |= dict.fromkeys(losses, level)
        self._judge_if_full(level)

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
