"""Whether a state is worth a file: the work that may be lost against the time of the write."""

from __future__ import annotations

from daskhpo.core.types import Chance

FIRST_SECONDS = 0.02  # of any write, before one was measured: two flushes and a rename
FIRST_BYTES_PER_SECOND = 200e6
_WEIGHT = 0.25  # of the newest measurement
_MOST = 10.0  # times the estimate, or its part, that one measurement counts for


def is_worth_writing(
    chance: Chance,
    unsaved_seconds: float,
    cost_seconds: float,
    *,
    is_leaving: bool,
    durability: float = 100.0,
) -> bool:
    """Whether a write costs less than what is lost without it, on average.

    Without the write, ``unsaved_seconds`` of training are lost if the state is needed again *and*
    it is not in memory any more. The write is worth its seconds when ::

        chance * risk * unsaved_seconds > cost_seconds

    The risk of a state that is about to leave memory is 1. That of one which stays there, because
    its worker may die, nobody knows: it follows from ``durability``, the wish that a state with a
    real chance is written once ``unsaved_seconds > durability * cost_seconds``. So it is
    ``1 / (durability * Chance.REAL)``: 1/20 by default. A durability below 5 asks for more than a
    risk of 1, and then does so for a state that leaves as well: what is written while it stays is
    never dropped when it leaves.

    Parameters
    ----------
    chance : that the state is needed again; `Chance.SURE` is always worth it.
    unsaved_seconds : training by one device since what is saved, or since the start.
    cost_seconds : of the write, in seconds.
    is_leaving : the state is evicted, its worker retires, or the job or the study ends.
    durability : at least 0 (all that holds work is written); infinity: nothing only because
        workers may die.
    """
    if chance is Chance.SURE:
        return True
    safety = durability * Chance.REAL.value  # 1 / risk
    if is_leaving:
        safety = min(1.0, safety)
    expected_loss: float = chance.value * unsaved_seconds
    return expected_loss > safety * cost_seconds


class WriteCost:
    """Estimates the seconds of a write from those that were measured.

    What is learnt is one factor, between measured seconds and those expected of a disk that takes
    20 ms and 200 MB/s. It is an exponentially weighted mean, in which one measurement counts for
    at most ten times the present factor and at least a tenth of it: a single hiccup must not keep
    states from being written, which is what would correct it.
    """

    def __init__(self) -> None:
        self._factor = 1.0

    def seconds(self, n_bytes: int) -> float:
        """Seconds that a write of so many bytes is expected to take."""
        return self._factor * _first(n_bytes)

    def observe(self, n_bytes: int, seconds: float) -> None:
        """Learn from a write that succeeded."""
        factor = seconds / _first(n_bytes)
        factor = min(max(factor, self._factor / _MOST), self._factor * _MOST)
        self._factor += _WEIGHT * (factor - self._factor)


def _first(n_bytes: int) -> float:
    return FIRST_SECONDS + n_bytes / FIRST_BYTES_PER_SECOND
