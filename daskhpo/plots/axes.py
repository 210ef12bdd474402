"""Axes of hyperparameters and of the metric: ends, ticks, places from 0 to 1."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from daskhpo.core.domains import Integer, Ordinal, Real
from daskhpo.core.types import Array
from daskhpo.plots.sampling import thinned
from daskhpo.plots.tables import StudyTables, short

LOG_RANGE = 100.0  # an axis without a domain is logarithmic from this ratio of its ends
LEAST, GREATEST = 1e-200, 1e300  # sizes of numbers whose powers of ten, and sums, are floats
MAX_DECADES = 12  # of more, not each has a tick


@dataclass(frozen=True)
class Scale:
    """A scale from ``low`` to a larger ``high``; both are positive if ``log``."""

    low: float
    high: float
    log: bool = False

    @classmethod
    def between(cls, low: float, high: float, log: bool = False) -> Scale:
        """Return the scale between two numbers; a wider one if they hardly differ."""
        least = LEAST if log else -GREATEST
        low, high = (float(min(max(end, least), GREATEST)) for end in (low, high))
        size = max(abs(low), abs(high))
        if high - low <= max(1e-12 * size, LEAST):
            room = 0.5 * size if size >= LEAST else 0.5
            low, high = low - room, high + room
        return cls(low, high, log)

    def places(self, values: Array) -> Array:
        """Return values as positions from 0 to 1; what is beyond an end is at the end."""
        values, low, high = np.clip(values, self.low, self.high), self.low, self.high
        if self.log:
            values, low, high = np.log(values), math.log(low), math.log(high)
        return np.clip((values - low) / (high - low), 0, 1)

    def ticks(self, *, whole: bool = False) -> tuple[list[float], list[str]]:
        """Return the places of round numbers, and their texts."""
        numbers, digits = self._decades(), 3
        if len(numbers) < 2:
            numbers, digits = self._steps(whole)
        places: list[float] = self.places(np.array(numbers)).tolist()
        return places, [f"{number:.{digits}g}" for number in numbers]

    def _decades(self) -> list[float]:
        """Return round numbers on a logarithmic scale."""
        if not self.log:
            return []
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        n = last - first + 1
        steps = (1,) if n > 4 else (1, 3) if n > 2 else (1, 2, 5)
        decades = range(first, last + 1, math.ceil(n / MAX_DECADES))
        numbers = [step * 10.0**decade for decade in decades for step in steps]
        return [n for n in numbers if self.low * (1 - 1e-9) <= n <= self.high * (1 + 1e-9)]

    def _steps(self, whole: bool) -> tuple[list[float], int]:
        """Return round numbers with equal distances, and the digits that tell them apart."""
        width = self.high - self.low
        unit = 10.0 ** math.floor(math.log10(width / 3))
        factor = next((m for m in (5, 2) if width / (m * unit) >= 3), 1)
        if whole and unit < 1:
            unit, factor = 1.0, 1
        step = factor * unit
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        n_digits = len(str(factor * max(abs(first), abs(last))))
        return [n * step for n in range(first, last + 1)], max(3, n_digits)


def scale_of(tables: StudyTables, name: str) -> Scale:
    """Return the scale of a hyperparameter: of its domain, or of the values seen."""
    domain, column = tables.facts.space.get(name), tables.config[name]
    if isinstance(domain, Real | Integer):
        return Scale.between(domain.low, domain.high, domain.log)
    if isinstance(domain, Ordinal):
        return Scale(-0.5, len(domain.values) - 0.5)
    if column.levels is not None:
        return Scale(-0.5, len(column.levels) - 0.5)
    return Scale.between(*_extremes(column.values), log=is_wide(column.values))


def is_wide(values: Array) -> bool:
    """Return True if values are positive and span decades."""
    values = values[np.isfinite(values)]
    return bool(values.size) and values.min() > LEAST and values.max() / LOG_RANGE >= values.min()


def _extremes(values: Array) -> tuple[float, float]:
    values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)


def places_on_axis(tables: StudyTables, name: str) -> Array:
    """Return the place of each trial's value on a hyperparameter's axis, from 0 to 1."""
    values = tables.config[name].values
    values = np.r_[values, np.full(tables.n_trials - len(values), np.nan)]
    if isinstance(domain := tables.facts.space.get(name), Ordinal):
        values = np.where(np.isnan(values), np.nan, np.searchsorted(domain.values, values))
    return scale_of(tables, name).places(values)


def ticks(tables: StudyTables, name: str) -> tuple[list[float], list[str]]:
    """Return places on a hyperparameter's axis, from 0 to 1, and their texts."""
    levels, domain = tables.config[name].levels, tables.facts.space.get(name)
    if isinstance(domain, Ordinal):
        levels = [short(value) for value in domain.values]
    scale = scale_of(tables, name)
    if levels is not None:
        shown = thinned(len(levels), 12)
        places = scale.places(shown.astype(float))
        return places.tolist(), [short(levels[place], 12) for place in shown]
    return scale.ticks(whole=isinstance(domain, Integer))


def value_scale(tables: StudyTables) -> Scale:
    """Return the metric's scale: from the best to the worst of nine tenths.

    It is logarithmic if these are positive and span a wide range.
    """
    values = _usual_values(tables)
    scale = Scale.between(*_extremes(values), log=is_wide(values))
    low, high = scale.low, scale.high  # made round: the axis moves seldom
    if scale.log:
        return Scale(_one_digit(low, math.floor), _one_digit(high, math.ceil), log=True)
    step = 10.0 ** math.floor(math.log10(high - low))
    return Scale(math.floor(low / step) * step, math.ceil(high / step) * step)


def _one_digit(number: float, to_int: Callable[[float], int]) -> float:
    step = 10.0 ** math.floor(math.log10(number))
    return max(1, to_int(number / step)) * step


def _usual_values(tables: StudyTables) -> Array:
    """Return the best value of each trial, without the worst tenth if there are many."""
    values: Array = tables.value(np.array(tables.best))
    values = values[np.isfinite(values)]
    if values.size > 20:  # a diverged trial must not squeeze the others
        cut = np.quantile(values, [0.0, 0.9] if tables.objective.mode == "min" else [0.1, 1.0])
        values = values[(values >= cut[0]) & (values <= cut[1])]
    return values


def value_window(tables: StudyTables) -> tuple[float, float]:
    """Return the part of the metric's axis that is shown: without what lies far off."""
    values = tables.value(np.array(tables.best))
    values = np.r_[values, tables.value(np.array(tables.unit_loss)[-5_000:])]
    values = np.clip(values[np.isfinite(values)], -GREATEST, GREATEST)
    scale = Scale.between(*_extremes(values))
    low, high = scale.low, scale.high
    if values.size >= 10:  # the bad end: what diverged must not squeeze the others
        sign = 1.0 if tables.objective.mode == "min" else -1.0
        losses = sign * values
        least, usual = float(losses.min()), float(np.quantile(losses, 0.9))
        if float(losses.max()) > usual + 3 * (usual - least) and usual > least:
            cut = sign * (usual + 0.5 * (usual - least))
            low, high = (low, cut) if sign > 0 else (cut, high)
    room = 0.04 * (high - low)
    return low - room, high + room
