"""Running median of a growing set of values."""

from __future__ import annotations

from heapq import heappush, heappushpop


class RunningMedian:
    """Median of the values inserted so far; O(log n) to insert, O(1) to read."""

    def __init__(self) -> None:
        self._low: list[float] = []  # negated: the greatest of the lower half is at [0]
        self._high: list[float] = []

    def __len__(self) -> int:
        return len(self._low) + len(self._high)

    def insert(self, value: float) -> None:
        """Add one value."""
        if len(self._low) == len(self._high):
            heappush(self._low, -heappushpop(self._high, value))
        else:
            heappush(self._high, -heappushpop(self._low, -value))

    def value(self) -> float:
        """Return the median; for an even count, the mean of the two middle values."""
        assert self._low, "no value was inserted"
        if len(self._low) > len(self._high):
            return -self._low[0]
        return (self._high[0] - self._low[0]) / 2
