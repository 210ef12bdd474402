"""All races as one table, and what is read from it."""

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
    """A row for each race.

    Columns: those of a race, ``family``; ``reached`` (full trainings; inf: never), ``started``,
    ``finished``; and against random search with the same seed, which draws the same
    configurations: ``sooner``, how many times sooner it came to where that came. That is the
    target, or in a budget the last mean of the best six. 0: never; NaN: neither did.
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
    """How many times sooner a race came to where random search came; 0: never."""
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
    """Median, and the ends of the middle 80 %; NaN left out."""
    known = np.asarray(values, dtype=float)
    known = known[~np.isnan(known)]
    if not len(known):
        return math.nan, math.nan, math.nan
    # Two values may be infinite, and there is nothing between them.
    low, middle, high = np.quantile(known, [0.1, 0.5, 0.9], method="nearest")
    return float(middle), float(low), float(high)


def finished(table: pd.DataFrame) -> dict[str, tuple[float, float, float]]:
    """Trials finished in a budget, over those of random search, as the reference counts them."""
    within = table[table["share"].isna()]
    wide = within.pivot_table(index=["task", "seed"], columns="method", values="finished")
    return {method.name: spread(wide[method.name] / wide[REFERENCE.name]) for method in COUNTED}


def per_cent(share: Any) -> str:
    """``1 %``."""
    return f"{100 * share:.2g} %"


def _same(ran: Ran) -> tuple[Any, ...]:
    """What races to be compared have in common."""
    race = ran.race
    return race.task, race.workers, race.seed, race.share
