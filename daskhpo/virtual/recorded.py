"""Recorded learning curves as a source for the virtual clock."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np


class RecordedCurve:
    """A recorded learning curve, extrapolated after its end.

    There the last value is repeated. Each unit takes the mean time of the recorded units, without
    the first one.

    Parameters
    ----------
    values : the metric after 1, 2, … units; NaN where training failed.
    seconds : seconds of training up to the end of each unit.
    later : time of a later unit as a fraction of the first one's, which may include a launch. Used
        only if one unit was recorded.
    """

    __slots__ = ("_pace", "_seconds", "_values", "n_units")

    def __init__(
        self, values: Sequence[float], seconds: Sequence[float], later: float = 1.0
    ) -> None:
        self._values, self._seconds = values, seconds
        self.n_units = len(values)  #: recorded units
        self._pace = _pace(seconds) if seconds[1:] else later * seconds[0]

    def metric(self, resource: int) -> float:
        return self._values[min(resource, self.n_units) - 1]

    def seconds(self, resource: int) -> float:
        beyond = resource - self.n_units
        return (
            self._seconds[-1] + beyond * self._pace if beyond > 0 else self._seconds[resource - 1]
        )


def recorded_curves(
    recorded: Iterable[tuple[Sequence[float], Sequence[float]]],
) -> tuple[RecordedCurve, ...]:
    """Return curves of recorded values and seconds.

    The time of a later unit is in the same proportion to that of the first one in all of them.
    """
    recorded = list(recorded)
    shares = [_pace(times) / times[0] for _, times in recorded if times[1:] and times[0]]
    later = float(np.median(shares)) if shares else 1.0
    return tuple(RecordedCurve(values, times, later) for values, times in recorded)


def _pace(seconds: Sequence[float]) -> float:
    """Return the mean seconds of the units after the first."""
    return (seconds[-1] - seconds[0]) / (len(seconds) - 1)
