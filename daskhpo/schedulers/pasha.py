"""PASHA: asynchronous successive halving whose ladder grows only while it must."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import numpy as np

from daskhpo.core.rungs import Ladder, check_ladder, longer, milestones
from daskhpo.core.scheduler import Compare, Scheduler, check_compare, ranked_loss
from daskhpo.core.types import (
    Action,
    Array,
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

PERCENTILE = 90  # of the differences that are noise
REESTIMATE = 1.2  # growth of the top rung after which the noise is estimated again
MOST_CURVES = 64  # the latest of the top rung, of which the noise is estimated


@final
class PASHA(Scheduler):
    """Progressive ASHA: training is as short as the order of trials allows.

    It is :class:`ASHA` in its promotion variant on a ladder that has two rungs at first. Whenever a
    trial reports at the top, the order of all trials there is compared with their order one rung
    below. If they differ by more than noise, the ladder grows by a rung, up to ``max_t``. If the
    orders agree, longer training would not change which trial is best, and its units are saved.

    So the best trial of a study may have been trained for less than ``max_t``: train its
    configuration to the end afterwards. Trials at the top are paused, since the ladder may grow.

    The noise is a difference of losses, ε. Two trials whose learning curves cross at least twice
    cannot be told apart; ε is the 90th percentile of the differences of such pairs at the top, and
    0 without such pairs. Trials within ε of each other may have either order.

    Parameters
    ----------
    max_t : largest resource of a trial, R.
    grace_period : resource of the first rung, r.
    reduction_factor : η; about ``1/η`` of the trials survive each rung.
    compare : rank by the ``"last"`` report, or by the ``"best"`` so far.

    Raises
    ------
    TypeError, ValueError : values that give no ladder.

    References
    ----------
    Bohdal et al. 2023, *PASHA: Efficient HPO and NAS with Progressive Resource Allocation*,
    Algorithm 1 and Sec. 4.2 (soft ranking). Here the noise is estimated from the latest 64 trials
    of the top, whenever its number of trials has grown by a fifth.
    """

    def __init__(
        self,
        max_t: int,
        grace_period: int = 1,
        reduction_factor: int = 3,
        compare: Compare = "last",
    ) -> None:
        max_t, grace_period, eta = check_ladder(max_t, grace_period, reduction_factor)
        self.max_t, self.grace_period, self.reduction_factor = max_t, grace_period, eta
        self._compare = check_compare(compare)
        self._levels = milestones(max_t, grace_period, eta)
        self._ladder = Ladder(self._levels, eta)
        self._top = min(1, len(self._levels) - 1)  # its place among the levels
        self._curves: dict[TrialId, list[float]] = {}  # all losses of trials that may rise
        self._ranked: dict[TrialId, float] = {}  # loss of each at its newest rung
        self._order = _Order()

    def __repr__(self) -> str:
        return (
            f"PASHA(max_t={self.max_t}, grace_period={self.grace_period}, "
            f"reduction_factor={self.reduction_factor}, compare={self._compare!r})"
        )

    @property
    def highest(self) -> int:
        """The resource at which training ends now; it may grow."""
        return self._levels[self._top]

    def next_action(self, trials: Mapping[TrialId, Trial], can_start: bool) -> Action:
        def can_go(trial: TrialId) -> bool:  # False while its state is being taken
            return trial in trials and trials[trial].status is Status.PAUSED

        if (action := self._ladder.promotion(can_go, below=self.highest)) is not None:
            return action
        return Start(self._ladder.first) if can_start else Wait()

    def on_launch(self, trial: Trial) -> None:
        if trial.until != self._ladder.first:
            self._ladder.rung_below[trial.until].settle(trial.id)

    def on_report(self, trial: Trial, report: Report) -> Decision:
        loss = ranked_loss(report, self._compare)
        below = self._ranked.get(trial.id)
        self._ranked[trial.id] = loss
        if report.resource == self._ladder.first:
            self._curves[trial.id] = []
        if (curve := self._curves.get(trial.id)) is not None:
            curve.extend(report.losses)
        if report.resource == self.highest and below is not None:
            self._order.add(below, loss, curve)
        until = self._ladder.next_of[report.resource]
        if until is None:
            return Stop("fully trained")
        rung = self._ladder.rungs[report.resource]
        rung.insert(trial.id, loss)
        if report.resource == self.highest:
            self._grow()
        if report.resource == self.highest or not rung.in_top(trial.id):
            return Pause(keep=rung.may_rise(trial.id))
        rung.settle(trial.id)
        return Continue(until)

    def on_end(self, trial: Trial) -> None:
        self._curves.pop(trial.id, None)
        self._ranked.pop(trial.id, None)
        for rung in self._ladder.rungs.values():
            rung.settle(trial.id)

    def on_retry(self, trial: Trial) -> bool:
        if isinstance(trial.decision, Pause):  # it may be promoted again
            self._ladder.rungs[trial.decided_at].reopen(trial.id)
        return True

    def on_extend(self, max_t: int, ended: Sequence[Trial]) -> dict[TrialId, Pause]:
        """Make a rung of the old ``max_t``; an unsettled order lets trials exceed it."""
        old, self.max_t = self.max_t, max_t
        self._levels = longer(self._levels, max_t, self.reduction_factor)
        self._ladder.extend(self._levels, self.reduction_factor)
        if old == self._ladder.first:  # it had one rung, and now has two
            self._top = 1
        for trial in ended:
            loss = trial.losses[-1] if self._compare == "last" else trial.best_loss
            self._ranked[trial.id] = loss
            self._ladder.rungs[old].insert(trial.id, loss)
        self._grow()
        return {trial.id: Pause() for trial in ended}

    def _grow(self) -> None:
        """Let the ladder grow by a rung if the order at its top is not settled."""
        if self._top < len(self._levels) - 1 and not self._order.is_settled():
            self._top += 1
            self._order = _Order()


class _Order:
    """The trials of the top rung, and their order there and one rung below."""

    def __init__(self) -> None:
        self._below: list[float] = []
        self._here: list[float] = []
        self._curves: list[list[float]] = []
        self._noise, self._next = 0.0, 1.0

    def add(self, below: float, here: float, curve: list[float] | None) -> None:
        """Add a trial's losses at both rungs, and all of its curve, if that is known."""
        self._below.append(below)
        self._here.append(here)
        if curve is not None:
            self._curves = [*self._curves[1 - MOST_CURVES :], list(curve)]
        if len(self._here) >= self._next and self._curves:
            self._next = REESTIMATE * len(self._here)
            self._noise = noise(self._curves)

    def is_settled(self) -> bool:
        """Return True if each rank here has the trial of that rank below, or one like it."""
        below = np.array(self._below)
        there, here = np.sort(below), below[np.argsort(self._here, kind="stable")]
        return bool((np.abs(here - there) <= self._noise).all())


def noise(curves: list[list[float]]) -> float:
    """Return ε: most curves that cross twice end closer to each other.

    Only the units that all curves have are compared.
    """
    n = min(map(len, curves))
    losses: Array = np.array([curve[:n] for curve in curves])
    first, second = np.triu_indices(len(losses), 1)
    apart = losses[first] - losses[second]
    signs = np.sign(apart) * np.sign(apart[:, -1:])  # 1: the order is that at the end
    was_other = np.maximum.accumulate(signs[:, ::-1] < 0, axis=1)[:, ::-1]  # now, or later
    crosses_twice = ((signs > 0) & was_other).any(axis=1)
    distances = np.abs(apart[crosses_twice, -1])
    return float(np.percentile(distances, PERCENTILE)) if len(distances) else 0.0
