"""Whether a state is worth a file: the work that may be lost against the time of the write."""

from __future__ import annotations

from daskhpo.core.types import ReuseProbability

DEFAULT_WRITE_SECONDS = 0.02  # of any write, before one was measured: two flushes and a rename
DEFAULT_BYTES_PER_SECOND = 200e6
_WEIGHT = 0.25  # of the newest measurement
_MOST = 10.0  # times the estimate, or its part, that one measurement counts for


def should_write(
    probability: ReuseProbability,
    unsaved_seconds: float,
    cost_seconds: float,
    *,
    is_evicting: bool,
    durability: float = 100.0,
) -> bool:
    """Whether a write costs less than what is lost without it, on average.

    Without the write, ``unsaved_seconds`` of training are lost if the state is needed again *and*
    it is not in memory any more. The write is worth its seconds when ::

        probability * risk * unsaved_seconds > cost_seconds

    The risk of a state that is about to leave memory is 1. The risk of one that stays, because its
    worker may die, nobody knows: it follows from ``durability``, the wish that a state that is
    likely needed again is written once ``unsaved_seconds > durability * cost_seconds``. So it is
    ``1 / (durability * ReuseProbability.LIKELY)``: 1/20 by default. A durability below 5 asks for
    more than a risk of 1, and then does so for a state that leaves as well: what is written while
    it stays is never dropped when it leaves.

    Parameters
    ----------
    probability : that the state is needed again; `ReuseProbability.CERTAIN` always pays a write.
    unsaved_seconds : training by one device since what is saved, or since the start.
    cost_seconds : of the write, in seconds.
    is_evicting : the state is evicted, its worker retires, or the job or the study ends.
    durability : at least 0 (all that holds work is written); infinity: nothing only because
        workers may die.
    """
    if probability is ReuseProbability.CERTAIN:
        return True
    safety = durability * ReuseProbability.LIKELY.value  # 1 / risk
    if is_evicting:
        safety = min(1.0, safety)
    expected_loss: float = probability.value * unsaved_seconds
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
        return self._factor * _default_seconds(n_bytes)

    def observe(self, n_bytes: int, seconds: float) -> None:
        """Learn from a write that succeeded."""
        factor = seconds / _default_seconds(n_bytes)
        factor = min(max(factor, self._factor / _MOST), self._factor * _MOST)
        self._factor += _WEIGHT * (factor - self._factor)


def _default_seconds(n_bytes: int) -> float:
    return DEFAULT_WRITE_SECONDS + n_bytes / DEFAULT_BYTES_PER_SECOND
