"""A table of all races, and statistics of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from experiments.simulated.methods import COUNTED, REFERENCE
from experiments.simulated.races import Ran


def frame(races: Iterable[Ran], families: Mapping[str, str]) -> pd.DataFrame:
    """Return a table with a row per race.

    Columns: those of a race; ``family``; ``reached`` (full trainings; inf: never), ``started``,
    ``finished``; ``sooner``: the speedup over random search with the same seed, which draws the
    same configurations (see :func:`sooner`).
    """
    races = list(races)
    references = {_same(ran): ran for ran in races if ran.race.method == REFERENCE.name}
    rows = []
    for ran in races:
        row = asdict(ran.race) | {"family": families[ran.race.task]}
        row |= {"reached": ran.reached, "started": ran.started, "finished": ran.finished}
        reference = references.get(_same(ran))
        rows.append(row | {"sooner": math.nan if reference is None else sooner(ran, reference)})
    return pd.DataFrame(rows)


def sooner(ran: Ran, reference: Ran) -> float:
    """Return the speedup of a race over random search.

    It is the ratio of their times to the target; without one, to the last mean of the best six of
    random search. 0: the race never reached it; inf: only the race did; NaN: neither did, or random
    search has fewer than six trials.
    """
    if ran.race.share is not None:
        theirs, ours = reference.reached, ran.reached
    elif reference.top:
        last = reference.top[-1][1]
        theirs, ours = reference.time_to(last), ran.time_to(last)
    else:
        return math.nan
    if math.isinf(theirs):
        return math.nan if math.isinf(ours) else math.inf
    return theirs / ours  # by inf: 0


def spread(values: Any) -> tuple[float, float, float]:
    """Return the median, and the ends of the middle 80 %; NaN values are ignored."""
    known = np.asarray(values, dtype=float)
    known = known[~np.isnan(known)]
    if not len(known):
        return math.nan, math.nan, math.nan
    # No interpolation: values may be infinite.
    low, middle, high = np.quantile(known, [0.1, 0.5, 0.9], method="nearest")
    return float(middle), float(low), float(high)


def finished(table: pd.DataFrame) -> dict[str, tuple[float, float, float]]:
    """Return trials finished in a budget, as ratios to those of random search.

    They are counted as in the reference study.
    """
    within = table[table["share"].isna()]
    wide = within.pivot_table(index=["task", "seed"], columns="method", values="finished")
    return {method.name: spread(wide[method.name] / wide[REFERENCE.name]) for method in COUNTED}


def per_cent(share: Any) -> str:
    """Format a share: ``1 %`` for 0.01."""
    return f"{100 * share:.2g} %"


def _same(ran: Ran) -> tuple[Any, ...]:
    """Return a key that is equal for races to compare."""
    race = ran.race
    return race.task, race.workers, race.seed, race.share
