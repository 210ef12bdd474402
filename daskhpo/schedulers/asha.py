"""Asynchronous successive halving: two variants, one bracket or several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, final, get_args

from daskhpo.core.arguments import check_choice, check_int
from daskhpo.core.rungs import Ladder, Rung, check_ladder, longer, milestones
from daskhpo.core.scheduler import Compare, Scheduler, check_compare, ranked_loss
from daskhpo.core.types import (
    Action,
    Continue,
    Decision,
    Pause,
    Report,
    Start,
    Status,
    Stop,
    Trial,
    TrialId,
    Wait,
)

Variant = Literal["stopping", "promotion"]


class ASHA(Scheduler):
    """Asynchronous successive halving: the best trials of each rung continue.

    Parameters
    ----------
    max_t : resource of a fully trained trial, R.
    grace_period : resource of the first rung, r; no trial is compared before it.
    reduction_factor : η; about ``1/η`` of the trials survive each rung.
    brackets : number of brackets that share the trials; bracket ``s`` begins at ``r·η^s``. More
        brackets protect trials that improve slowly at first. Trials are distributed over the
        brackets in the proportions of Hyperband.
    variant : ``"stopping"``: a trial below its rung's best ``1/η`` ends at once; it needs no
        checkpoint. Ties with the last of the best continue, and so does the first trial to arrive.
        ``"promotion"``: it is paused, and resumed if it is among the best ``⌊n/η⌋`` later, as in
        the paper.
    compare : rank by the ``"last"`` report, or by the ``"best"`` so far, for a metric that jumps
        from one report to the next.

    Raises
    ------
    TypeError, ValueError : values that give no ladder, or more brackets than milestones.

    References
    ----------
    Li et al. 2020, *A System for Massively Parallel Hyperparameter Tuning*, Algorithm 2
    (promotion) and Sec. 3; the stopping variant is the one that most systems offer.
    """

    def __init__(
        self,
        max_t: int,
        grace_period: int = 1,
        reduction_factor: int = 3,
        brackets: int = 1,
        variant: Variant = "stopping",
        compare: Compare = "last",
    ) -> None:
        max_t, grace_period, reduction_factor = check_ladder(max_t, grace_period, reduction_factor)
        ladder = milestones(max_t, grace_period, reduction_factor)
        brackets = check_int(
            "brackets",
            brackets,
            at_least=1,
            at_most=len(ladder),
            why=f"there are {len(ladder)} milestones, {ladder}",
        )
        self.max_t = max_t
        self.grace_period, self.reduction_factor = grace_period, reduction_factor
        variant = self._variant = check_choice("variant", variant, get_args(Variant))
        compare = self._compare = check_compare(compare)
        self._levels = ladder
        self._ladders = [Ladder(ladder[s:], reduction_factor) for s in range(brackets)]
        self._n_started = [0] * brackets

    def __repr__(self) -> str:
        return (
            f"ASHA(max_t={self.max_t}, grace_period={self.grace_period}, "
            f"reduction_factor={self.reduction_factor}, brackets={len(self._ladders)}, "
            f"variant={self._variant!r}, compare={self._compare!r})"
        )

    def is_enough(self, num_trials: int) -> bool:
        if self._variant == "stopping":
            return True  # the first to arrive at a rung continues
        started = [0] * len(self._ladders)
        for _ in range(min(num_trials, self.reduction_factor ** len(self._ladders[0].rungs))):
            bracket = self._next_bracket(started)
            started[bracket] += 1
            # Of n trials in a rung ⌊n/η⌋ continue, so that the top needs η for each rung.
            if started[bracket] >= self.reduction_factor ** len(self._ladders[bracket].rungs):
                return True
        return False

    def next_action(self, trials: Mapping[TrialId, Trial], can_start: bool) -> Action:
        if self._variant == "promotion":

            def can_go(trial: TrialId) -> bool:  # False while its state is being taken
                return trial in trials and trials[trial].status is Status.PAUSED

            for ladder in self._ladders:
                if (action := ladder.promotion(can_go)) is not None:
                    return action
        if not can_start:
            return Wait()
        bracket = self._next_bracket(self._n_started)
        return Start(until=self._ladders[bracket].first, bracket=bracket)

    def on_launch(self, trial: Trial) -> None:
        ladder = self._ladders[trial.bracket]
        if trial.until == ladder.first:
            self._n_started[trial.bracket] += 1
        else:
            ladder.rung_below[trial.until].settle(trial.id)

    def on_report(self, trial: Trial, report: Report) -> Decision:
        ladder = self._ladders[trial.bracket]
        until = ladder.next_of[report.resource]
        if until is None:
            return Stop("fully trained")
        rung = ladder.rungs[report.resource]
        loss = ranked_loss(report, self._compare)
        rung.insert(trial.id, loss)
        if self._variant == "promotion":
            if not rung.in_top(trial.id):
                return Pause(keep=rung.may_rise(trial.id))
            rung.settle(trial.id)
            return Continue(until)
        return Continue(until) if _survives(rung, loss) else Stop("below the rung")

    def on_end(self, trial: Trial) -> None:
        for rung in self._ladders[trial.bracket].rungs.values():
            rung.settle(trial.id)

    def on_retry(self, trial: Trial) -> bool:
        if isinstance(trial.decision, Pause):  # it may be promoted again
            self._ladders[trial.bracket].rungs[trial.decided_at].reopen(trial.id)
        return True

    def on_extend(self, max_t: int, ended: Sequence[Trial]) -> Mapping[TrialId, Continue | Pause]:
        """Make a rung of the old ``max_t``, and compare there the trials that ended.

        If there was a bracket for each milestone, there is one for each new milestone, too.
        """
        old, eta = self.max_t, self.reduction_factor
        has_all = len(self._ladders) == len(self._levels) > 1
        self._levels, self.max_t = longer(self._levels, max_t, eta), max_t
        for s, ladder in enumerate(self._ladders):
            ladder.extend(self._levels[s:], eta)
        if has_all:
            new = range(len(self._ladders), len(self._levels))
            self._ladders += [Ladder(self._levels[s:], eta) for s in new]
            self._n_started += [0] * len(new)
        losses = {
            trial.id: trial.losses[-1] if self._compare == "last" else trial.best_loss
            for trial in ended
        }
        for trial in ended:
            self._ladders[trial.bracket].rungs[old].insert(trial.id, losses[trial.id])
        decisions: dict[TrialId, Continue | Pause] = {}
        for trial in ended:
            ladder = self._ladders[trial.bracket]
            until = ladder.next_of[old]
            assert until is not None, "the old top is a rung now"
            if self._variant == "promotion":
                decisions[trial.id] = Pause()
            elif _survives(ladder.rungs[old], losses[trial.id]):
                decisions[trial.id] = Continue(until)
        return decisions

    def _next_bracket(self, n_started: Sequence[int]) -> int:
        """Return the bracket that lags most behind its share of the trials.

        Hyperband starts about ``η^s / (s+1)`` trials in the bracket with ``s`` halvings (Li et
        al. 2018, Alg. 1, line 2). Filling the largest gap first keeps every prefix of the study
        near these proportions, without a random draw.
        """
        if len(self._ladders) == 1:
            return 0

        def load(bracket: int) -> float:
            s = len(self._ladders[bracket].next_of) - 1
            return (n_started[bracket] + 1) * (s + 1) / float(self.reduction_factor**s)

        return min(range(len(self._ladders)), key=load)


def _survives(rung: Rung, loss: float) -> bool:
    """Return True if a loss of the rung is at least as good as the worst of its top."""
    cutoff = rung.cutoff()
    assert cutoff is not None, "a rung that was just inserted into is not empty"
    return loss <= cutoff


@final
class AsyncHyperband(ASHA):
    """Asynchronous Hyperband: :class:`ASHA` over all brackets.

    The last bracket trains its trials to ``max_t`` without comparing them, so a study never
    depends on early results alone. Its ``repr`` is that of the equivalent :class:`ASHA`.

    References
    ----------
    Li et al. 2020, Sec. 3.2: "asynchronous Hyperband loops through brackets of ASHA".
    """

    def __init__(
        self,
        max_t: int,
        grace_period: int = 1,
        reduction_factor: int = 3,
        variant: Variant = "stopping",
        compare: Compare = "last",
    ) -> None:
        n_brackets = len(milestones(max_t, grace_period, reduction_factor))
        super().__init__(max_t, grace_period, reduction_factor, n_brackets, variant, compare)
