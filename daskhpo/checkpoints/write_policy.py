"""Worth of a write: the expected loss of training against the time of the write."""

from __future__ import annotations

from daskhpo.core.types import ReuseProbability

DEFAULT_WRITE_SECONDS = 0.02  # for two flushes and a rename, before any write was measured
DEFAULT_BYTES_PER_SECOND = 200e6
_WEIGHT = 0.25  # of the newest measurement
_MOST = 10.0  # a measurement counts for at most this times the estimate, at least 1 / this


def should_write(
    probability: ReuseProbability,
    unsaved_seconds: float,
    cost_seconds: float,
    *,
    is_evicting: bool,
    durability: float = 100.0,
) -> bool:
    """Return True if a write costs less than the expected loss without it.

    Without the write, ``unsaved_seconds`` of training are lost if the state is needed again *and*
    is no longer in memory. The write is worth its time if ::

        probability * risk * unsaved_seconds > cost_seconds

    The risk of a state that leaves memory is 1. The risk of a state that stays is that its worker
    may die, which is unknown. It follows from ``durability``: a state that is likely needed again
    is written once ``unsaved_seconds > durability * cost_seconds``. The risk is therefore
    ``1 / (durability * ReuseProbability.LIKELY)``, 1/20 by default. For a durability below 5 it
    exceeds 1. It is then also applied to evictions, so that a state worth writing while it stays
    is never dropped when it leaves.

    Parameters
    ----------
    probability : that the state is needed again; `ReuseProbability.CERTAIN`: always write.
    unsaved_seconds : training time of one device since the last saved state, or since the start.
    cost_seconds : expected seconds of the write.
    is_evicting : True if the state leaves memory: it is evicted, its worker retires, or the job or
        the study ends.
    durability : at least 0, which writes every state that holds work; infinity: write no state
        only because its worker may die.
    """
    if probability is ReuseProbability.CERTAIN:
        return True
    safety = durability * ReuseProbability.LIKELY.value  # 1 / risk
    if is_evicting:
        safety = min(1.0, safety)
    expected_loss: float = probability.value * unsaved_seconds
    return expected_loss > safety * cost_seconds


class WriteCost:
    """Estimate of the seconds of a write, from measured writes.

    It learns one factor: measured seconds divided by those of a disk that takes 20 ms and 200 MB/s.
    The factor is an exponentially weighted mean. One measurement counts for at most ten times the
    current factor and at least a tenth of it. Otherwise a single slow write could prevent further
    writes, which alone can correct the estimate.
    """

    def __init__(self) -> None:
        self._factor = 1.0

    def seconds(self, n_bytes: int) -> float:
        """Return the expected seconds of a write of ``n_bytes``."""
        return self._factor * _default_seconds(n_bytes)

    def observe(self, n_bytes: int, seconds: float) -> None:
        """Update the estimate from a successful write."""
        factor = seconds / _default_seconds(n_bytes)
        factor = min(max(factor, self._factor / _MOST), self._factor * _MOST)
        self._factor += _WEIGHT * (factor - self._factor)


def _default_seconds(n_bytes: int) -> float:
    return DEFAULT_WRITE_SECONDS + n_bytes / DEFAULT_BYTES_PER_SECOND
