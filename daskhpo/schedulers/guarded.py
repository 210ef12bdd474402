"""ASHA that a model speeds up, and that a reserve of Hyperband's brackets guards."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from heapq import heappop, heappush
from typing import Literal, final

import numpy as np

from daskhpo.core.arguments import check_int, shown
from daskhpo.core.errors import InvalidArgument
from daskhpo.core.random import rng
from daskhpo.core.rungs import Ladder, Rung, check_ladder, longer, milestones
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
from daskhpo.schedulers.orders import Orders

MEASURED = 50  # units of a full training for each of the first rung
RANDOM_SHARE = 1 / 3  # of the main arm's new trials
MARGIN = 0.2  # in the logarithm of a rank: what a paused trial must be ahead of a new one
# Share of the workers' time for the reserve.
NO_MODEL = REFUTED = 0.67
IN_DOUBT, BORNE_OUT = 0.20, 0.05
MAIN, RESERVE = 0, 1  # arms
# Share of paused trials that were resumed later, in "Checkpoints" of experiments/default_rule: of
# those in their rung's top, near it, and below.
IN_TOP, NEAR_TOP, BELOW = 0.85, 0.2, 0.02


@final
class GuardedASHA(Scheduler):
    """ASHA with a model, guarded by Hyperband in case early ranks mislead.

    The scheduler of a study that names none. Two arms share the workers:

    - The *main arm* is ASHA in its promotion variant, from the first rung on. If nothing is
      promotable, one new trial in three is random. Otherwise the searcher's model compares its
      best new configuration with all paused trials, whatever their rank, and the better one goes.
      A slow starter that the first rungs missed is thus *rescued*.
    - The *reserve* is asynchronous Hyperband without its most aggressive bracket, on random
      configurations. Its share of the time depends on evidence: 5 % if the orders at the main arm's
      rungs bear one another out, 20 % while that is in doubt, two thirds without a model that
      tells good configurations from bad ones. This limits how much later than asynchronous
      Hyperband a study can be.

    If the order at a rung is *refuted*, that is rather the opposite of that at the next one, new
    trials of both arms begin above it, nothing is promoted at it or below, and the reserve has two
    thirds of the time. It is judged again as results come in.

    Trials are ranked by their best report so far. When no new trial may start, the best paused
    trial is trained to the end, unless one that has ended is at least as good: a fully trained one,
    or one that ended before, such as at its time limit. Failed trials do not count for that, nor
    those that are stopped by hand.

    With :class:`daskhpo.searchers.ForestSearch` it has the model that it needs. With any other
    searcher it has none, and is about as fast as asynchronous Hyperband.

    Parameters
    ----------
    max_t : resource of a fully trained trial, R.
    grace_period : resource of the first rung, r; ``"auto"``: a fiftieth of ``max_t``, as it was
        measured. Where an order is refuted, the first rung of new trials rises by itself.
    reduction_factor : η; about ``1/η`` of the trials survive each rung.

    Raises
    ------
    TypeError, ValueError : values that give no ladder.

    References
    ----------
    Li et al. 2020, *A System for Massively Parallel Hyperparameter Tuning*, Algorithm 2, for each
    arm. ``experiments/default_rule`` measures the rule beside other methods.
    """

    def __init__(
        self, max_t: int, grace_period: int | Literal["auto"] = "auto", reduction_factor: int = 3
    ) -> None:
        max_t, first, eta = check_ladder(max_t, _first(grace_period, max_t), reduction_factor)
        self.max_t, self.grace_period, self.reduction_factor = max_t, first, eta
        self._levels = levels = milestones(max_t, first, eta)
        self._ladders = [Ladder(levels[s:], eta) for s in range(len(levels))]  # first: main arm's
        self._n_started = [0] * len(levels)
        self._shares = _shares(len(levels), eta)  # of the reserve's trials
        self._seed = 0
        self._n_launched = 0
        self._trusted = False
        self._time = _Time()
        self._orders = Orders(levels)
        self._paused: dict[TrialId, int] = {}  # the main arm's, with the next rung of each
        self._waiting: dict[TrialId, int] = {}  # the same of both arms
        self._by_loss: list[tuple[float, TrialId, int]] = []  # a heap of these, and of stale ones
        self._highest = levels[0]  # highest rung with a result
        # Best losses of the trials that have ended, and not failed.
        self._best_trained = self._best_stopped = math.inf

    def __repr__(self) -> str:
        return (
            f"GuardedASHA(max_t={self.max_t}, grace_period={self.grace_period}, "
            f"reduction_factor={self.reduction_factor})"
        )

    def setup(self, space: Space, seed: int) -> None:
        self._seed = check_int("seed", seed)

    def on_trust(self, trusted: bool) -> None:
        self._trusted = trusted

    # -- a free slot -----------------------------------------------------------------------------

    def next_action(self, trials: Mapping[TrialId, Trial], can_start: bool) -> Action:
        def can_go(trial: TrialId) -> bool:  # False while its state is being taken
            return trial in trials and trials[trial].status is Status.PAUSED

        arm = self._arm()
        if (action := self._promotion(arm, can_go)) is not None:
            return action
        if not can_start:
            return self._promotion(1 - arm, can_go) or self._finish(can_go)
        bracket = self._next_bracket() if arm == RESERVE else 0
        until = max(self._ladders[bracket].first, self._orders.first)
        if arm == RESERVE or not self._trusted or self._is_random():
            return Start(until, bracket, explore=True)
        start = Start(until, bracket)
        return Choose(start, self._highest, self._paused, can_go, MARGIN, self._chance)

    def _arm(self) -> int:
        """Return the reserve if the first rung of its next trial fits in its credit."""
        if len(self._ladders) == 1 or not self._time.n_units:
            return MAIN
        first = self._ladders[self._next_bracket()].first
        return RESERVE if self._time.affords(first) else MAIN

    def _next_bracket(self) -> int:
        """Return the reserve's bracket that lags most behind its share.

        Those that begin at a rung whose order is refuted are left out.
        """
        n = len(self._ladders)
        s = [s for s in range(1, n) if self._ladders[s].first >= self._orders.first]
        started = np.array(self._n_started)[s]
        shares = np.array(self._shares)[s]
        lag = shares / shares.sum() * (started.sum() + 1) - started
        return s[int(np.argmax(lag))]

    def _is_random(self) -> bool:
        return rng(self._seed, "random share", step=self._n_launched).random() < RANDOM_SHARE

    def _promotion(self, arm: int, can_go: Callable[[TrialId], bool]) -> Resume | None:
        for ladder in self._ladders[:1] if arm == MAIN else self._ladders[1:]:
            if (action := ladder.promotion(can_go, self._orders.first)) is not None:
                return action
        return None

    def _chance(self, trial: Trial) -> float:
        """Return the chance of a paused trial to be promoted."""
        rung = self._ladders[trial.bracket].rungs.get(trial.resource)
        if rung is None or trial.id not in rung:
            return BELOW
        if rung.in_top(trial.id):
            return IN_TOP
        return NEAR_TOP if rung.may_rise(trial.id) else BELOW

    def _finish(self, can_go: Callable[[TrialId], bool]) -> Action:
        """Train the best paused trial on, if it is better than all that have ended."""
        if self._time.n_charged:
            return Wait()  # one at a time, after all others
        while self._by_loss and self._waiting.get(self._by_loss[0][1]) != self._by_loss[0][2]:
            heappop(self._by_loss)
        if not self._by_loss:
            return Wait()
        loss, trial, until = self._by_loss[0]
        return Resume(trial, until) if loss < self._best_ended and can_go(trial) else Wait()

    # -- what happened ---------------------------------------------------------------------------

    def on_launch(self, trial: Trial) -> None:
        self._paused.pop(trial.id, None)
        if self._waiting.pop(trial.id, None) is None:
            self._n_started[trial.bracket] += 1
        else:
            rung = self._ladders[trial.bracket].rung_below[trial.until]
            rung.settle(trial.id)
            if not rung.in_top(trial.id):  # rescued, or finished
                self._orders.exclude(trial.id)
        self._n_launched += 1
        self._time.begin(trial.id, _arm_of(trial), trial.until - trial.resource, self._share)

    def on_report(self, trial: Trial, report: Report) -> Decision:
        ladder, arm, resource = self._ladders[trial.bracket], _arm_of(trial), report.resource
        self._time.end(trial.id, arm, len(report.losses), report.seconds, self._share)
        self._highest = max(self._highest, resource)
        self._orders.add(trial.id, report, arm == MAIN)
        until = ladder.next_of[resource]
        if until is None:
            self._best_trained = min(self._best_trained, report.best_loss)
            return Stop("fully trained")
        rung = ladder.rungs[resource]
        rung.insert(trial.id, report.best_loss)
        # It continues in its slot if it is what `next_action` would resume there.
        promoted = self._promotion(self._arm(), lambda trial: True)
        if promoted is not None and promoted.trial == trial.id:
            rung.settle(trial.id)
            self._time.begin(trial.id, arm, until - resource, self._share)
            return Continue(until)
        self._pause(trial.id, arm, until, report.best_loss)
        is_first = resource == ladder.first  # cheap to train again
        return Pause(keep=rung.may_rise(trial.id) or (arm == MAIN and not is_first))

    def on_end(self, trial: Trial) -> None:
        is_trained = trial.status is Status.COMPLETED and trial.resource >= self.max_t
        if is_trained:
            self._best_trained = min(self._best_trained, trial.best_loss)
        elif trial.status is not Status.FAILED:  # it may have ended at its time limit
            self._best_stopped = min(self._best_stopped, trial.best_loss)
        self._time.forget(trial.id)
        self._orders.forget(trial.id, for_good=not is_trained)
        self._paused.pop(trial.id, None)
        self._waiting.pop(trial.id, None)
        rungs = self._ladders[trial.bracket].rungs
        for rung in rungs.values():
            rung.settle(trial.id)
        if trial.status is Status.FAILED and trial.until in rungs:
            _count_failure(rungs[trial.until], trial.id)

    def on_retry(self, trial: Trial) -> bool:
        ladder, arm = self._ladders[trial.bracket], _arm_of(trial)
        if isinstance(trial.decision, Pause):  # it stands, and the trial will be paused
            ladder.rungs[trial.decided_at].reopen(trial.id)
            if (until := ladder.next_of[trial.decided_at]) is not None:
                self._pause(trial.id, arm, until, trial.best_loss)
        else:
            self._time.begin(trial.id, arm, trial.until, self._share)
        return True

    def on_extend(self, max_t: int, ended: Sequence[Trial]) -> dict[TrialId, Pause]:
        """Make a rung of the old ``max_t``, and a bracket of each new milestone."""
        old, eta = self.max_t, self.reduction_factor
        self._levels, self.max_t = longer(self._levels, max_t, eta), max_t
        n = len(self._levels)
        for s, ladder in enumerate(self._ladders):
            ladder.extend(self._levels[s:], eta)
        self._ladders += [Ladder(self._levels[s:], eta) for s in range(len(self._ladders), n)]
        self._n_started += [0] * (n - len(self._n_started))
        self._shares = _shares(n, eta)
        self._orders.extend(self._levels)
        self._best_trained = math.inf
        for trial in ended:
            ladder = self._ladders[trial.bracket]
            until = ladder.next_of[old]
            assert until is not None, "the old top is a rung now"
            ladder.rungs[old].insert(trial.id, trial.best_loss)
            self._orders.resume(trial.id, old, trial.losses[-1])
            self._pause(trial.id, _arm_of(trial), until, trial.best_loss)
        return {trial.id: Pause() for trial in ended}

    def _pause(self, trial: TrialId, arm: int, until: int, loss: float) -> None:
        if arm == MAIN:
            self._paused[trial] = until
        self._waiting[trial] = until
        heappush(self._by_loss, (loss, trial, until))

    @property
    def _best_ended(self) -> float:
        return min(self._best_trained, self._best_stopped)

    @property
    def _share(self) -> float:
        if self._orders.first > self.grace_period:
            return REFUTED
        if not self._trusted:
            return NO_MODEL
        return BORNE_OUT if self._orders.borne_out else IN_DOUBT


def _first(grace_period: int | Literal["auto"], max_t: int) -> int:
    if not isinstance(grace_period, str):
        return grace_period
    if grace_period != "auto":
        raise InvalidArgument(f"grace_period={shown(grace_period)} must be an int, or 'auto'")
    return max(1, check_int("max_t", max_t) // MEASURED)


def _shares(n: int, eta: int) -> list[float]:
    """Return the shares of ``n`` brackets; all but the first sum to 1."""
    shares = np.array([math.ceil(n / (n - s)) * float(eta) ** (n - s - 1) for s in range(n)])
    return [float(share) for share in shares / max(shares[1:].sum(), 1.0)]


class _Time:
    """The workers' time: that of each arm, and the reserve's credit.

    A segment is charged when it begins, by the mean time of a unit, and corrected at its end.
    """

    def __init__(self) -> None:
        self.n_units = 0
        self._seconds = 0.0  # of these units
        self._used = [0.0, 0.0]  # by arm
        self._credit = 0.0
        self._charged: dict[TrialId, tuple[int, float]] = {}  # units and seconds

    @property
    def n_charged(self) -> int:
        """Number of segments that have begun and not ended."""
        return len(self._charged)

    def affords(self, n_units: int) -> bool:
        """Return True if the reserve's credit covers so many units more."""
        return self._used[RESERVE] + n_units * self._seconds / self.n_units <= self._credit

    def begin(self, trial: TrialId, arm: int, n_units: int, share: float) -> None:
        seconds = n_units * self._seconds / self.n_units if self.n_units else 0.0
        self._charged[trial] = n_units, seconds
        self._charge(arm, seconds, share)

    def end(self, trial: TrialId, arm: int, n_units: int, seconds: float, share: float) -> None:
        n_units, charged = self._charged.pop(trial, (n_units, 0.0))
        self._seconds += seconds
        self.n_units += n_units
        self._charge(arm, seconds - charged, share)

    def forget(self, trial: TrialId) -> None:
        self._charged.pop(trial, None)

    def _charge(self, arm: int, seconds: float, share: float) -> None:
        self._used[arm] += seconds
        self._credit += share * seconds


def _arm_of(trial: Trial) -> int:
    return RESERVE if trial.bracket else MAIN


def _count_failure(rung: Rung, trial: TrialId) -> None:
    """Count a trial that failed before a rung as the worst of it."""
    stand_in = -1 - trial
    if trial not in rung and stand_in not in rung:
        rung.insert(stand_in, math.inf)
        rung.settle(stand_in)
