"""Axes of hyperparameters and of the metric: their ends, ticks, and places from 0 to 1."""

from __future__ import annotations

import math

import numpy as np

from daskhpo.core.domains import Integer, Ordinal, Real
from daskhpo.core.types import Array
from daskhpo.plots.sampling import thinned
from daskhpo.plots.tables import StudyTables, short

LOG_RANGE = 100.0  # an axis without a domain is logarithmic from this ratio of its ends
TINY = 1e-200  # less is nothing: its powers of ten are zero


def is_log(tables: StudyTables, name: str) -> bool:
    """Return True if a hyperparameter's axis is logarithmic: as its domain, or wide."""
    domain = tables.facts.space.get(name)
    if isinstance(domain, Real | Integer):
        return domain.log
    if isinstance(domain, Ordinal):
        return False
    return tables.config[name].levels is None and is_wide(tables.config[name].values)


def is_wide(values: Array) -> bool:
    """Return True if values are positive and span decades."""
    values = values[np.isfinite(values)]
    return bool(values.size) and values.min() > TINY and values.max() >= LOG_RANGE * values.min()


def axis_range(tables: StudyTables, name: str) -> tuple[float, float]:
    """Return the ends of a hyperparameter's axis: its bounds, or the extremes seen."""
    domain = tables.facts.space.get(name)
    if isinstance(domain, Real | Integer):
        return float(domain.low), float(domain.high)
    if isinstance(domain, Ordinal):
        return -0.5, len(domain.values) - 0.5
    if (levels := tables.config[name].levels) is not None:
        return -0.5, len(levels) - 0.5
    values = tables.config[name].values
    return _ends(values[np.isfinite(values)])


def places_on_axis(tables: StudyTables, name: str) -> Array:
    """Return the place of each trial's value on a hyperparameter's axis, from 0 to 1."""
    values = tables.config[name].values
    values = np.r_[values, np.full(tables.n_trials - len(values), np.nan)]
    if isinstance(domain := tables.facts.space.get(name), Ordinal):
        values = np.where(np.isnan(values), np.nan, np.searchsorted(domain.values, values))
    return unit(values, axis_range(tables, name), is_log(tables, name))


def ticks(tables: StudyTables, name: str) -> tuple[list[float], list[str]]:
    """Return places on a hyperparameter's axis, from 0 to 1, and their texts."""
    levels, domain = tables.config[name].levels, tables.facts.space.get(name)
    if isinstance(domain, Ordinal):
        levels = [short(value) for value in domain.values]
    ends, log = axis_range(tables, name), is_log(tables, name)
    if levels is not None:
        shown = thinned(len(levels), 12)
        places = unit(shown.astype(float), ends, False)
        return places.tolist(), [short(levels[place], 12) for place in shown]
    return scale_ticks(ends, log, whole=isinstance(domain, Integer))


def value_is_log(tables: StudyTables) -> bool:
    """Return True if the metric is positive, and its usual values span a wide range."""
    return is_wide(_usual_values(tables))


def value_ends(tables: StudyTables) -> tuple[float, float]:
    """Return the ends of the metric's axis: from the best to the worst of nine tenths."""
    values = _usual_values(tables)
    low, high = _ends(values)
    step = 10.0 ** math.floor(math.log10(high - low))  # round: the axis moves seldom
    if has_decades := is_wide(values):
        step = 10.0 ** math.floor(math.log10(low))
    if not math.isfinite(high / step):  # a loss near the smallest float
        return low, high
    low = math.floor(low / step) * step
    return (low or step if has_decades else low), math.ceil(high / step) * step


def value_window(tables: StudyTables) -> tuple[float, float]:
    """Return the part of the metric's axis that is shown: without what lies far off."""
    values = tables.value(np.array(tables.best))
    values = np.r_[values, tables.value(np.array(tables.unit_loss)[-5_000:])]
    values = values[np.isfinite(values)]
    low, high = _ends(values)
    if values.size >= 10:  # the bad end: what diverged must not squeeze the others
        sign = 1.0 if tables.objective.mode == "min" else -1.0
        losses = sign * values
        least, usual = float(losses.min()), float(np.quantile(losses, 0.9))
        if float(losses.max()) > usual + 3 * (usual - least) and usual > least:
            cut = sign * (usual + 0.5 * (usual - least))
            low, high = (low, cut) if sign > 0 else (cut, high)
    room = 0.04 * (high - low)
    return low - room, high + room


def _usual_values(tables: StudyTables) -> Array:
    """Return the best value of each trial, without the worst tenth if there are many."""
    values: Array = tables.value(np.array(tables.best))
    values = values[np.isfinite(values)]
    if values.size > 20:  # a diverged trial must not squeeze the others
        cut = np.quantile(values, [0.0, 0.9] if tables.objective.mode == "min" else [0.1, 1.0])
        values = values[(values >= cut[0]) & (values <= cut[1])]
    return values


def _ends(values: Array) -> tuple[float, float]:
    if not values.size:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    size = max(abs(low), abs(high))
    if high - low > max(1e-12 * size, TINY):
        return low, high
    room = 0.5 * size if size > TINY else 0.5
    return low - room, high + room


def unit(values: Array, ends: tuple[float, float], log: bool) -> Array:
    """Return values as positions between the ends of an axis, from 0 to 1."""
    low, high = ends
    if log:
        with np.errstate(divide="ignore", invalid="ignore"):
            values, low, high = np.log(values), math.log(low), math.log(high)
    return np.clip((values - low) / (high - low), 0, 1)


def scale_ticks(
    ends: tuple[float, float], log: bool, whole: bool = False
) -> tuple[list[float], list[str]]:
    """Return the places of round numbers on a scale, from 0 to 1, and their texts."""
    low, high = ends
    if log:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        steps = (1,) if len(decades) > 4 else (1, 3) if len(decades) > 2 else (1, 2, 5)
        numbers = [step * 10.0**decade for decade in decades for step in steps]
    else:
        step = 10.0 ** math.floor(math.log10((high - low) / 3))
        step *= next((m for m in (5, 2) if (high - low) / (step * m) >= 3), 1)
        step = max(step, 1.0) if whole else step
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        numbers = [n * step for n in range(first, last + 1)]
    numbers = [n for n in numbers if low * (1 - 1e-9) <= n <= high * (1 + 1e-9) or n == 0]
    if len(numbers) < 2:
        numbers = [low, high]
    places = unit(np.array(numbers, float), ends, log)
    return places.tolist(), [f"{number:.3g}" for number in numbers]
