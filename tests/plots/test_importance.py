"""Importance: it finds what matters, and says nothing where nothing can be said."""

from __future__ import annotations

import numpy as np
import pytest

from daskhpo.core.objective import Objective
from daskhpo.plots.importance import (
    CELLS,
    MIN_R2,
    MIN_TRIALS,
    comparable,
    deciles,
    importance,
    maps,
)
from daskhpo.plots.tables import STATES, StudyTables
from tests.plots.made import asha_result

pytestmark = pytest.mark.slow  # importing scikit-learn takes seconds


def noise(n: int) -> StudyTables:
    """Trials whose values have nothing to do with their hyperparameters."""
    tables, generator = StudyTables(Objective("error")), np.random.default_rng(0)
    for number in range(n):
        tables.add_trial(0, 0.0)
        tables.set_config(
            tables.n_trials - 1, {"a": float(generator.random()), "b": "xyz"[number % 3]}
        )
        loss = float(generator.random())
        tables.add_unit(number, 1, loss, 1.0)
        tables.best[number] = loss
    return tables


def test_what_matters_most_comes_first() -> None:
    tables = asha_result().tables()
    found = importance(tables)
    assert found.problem == ""
    assert found.r2 > 0.5
    assert found.columns()["name"][-1] == "lr"
    assert sum(found.share) == pytest.approx(1)
    assert "R²" in found.describe()


def test_trials_are_compared_at_one_resource_and_failed_ones_are_the_worst() -> None:
    tables = asha_result().tables()
    resource, trials, losses = comparable(tables)
    assert resource == 1
    failed = np.flatnonzero(np.array(tables.status) == STATES.index("failed"))  # type: ignore[arg-type]
    assert set(failed.tolist()) <= set(trials.tolist())
    assert np.isfinite(losses).all()


def test_noise_has_no_importance() -> None:
    found = importance(noise(100))
    assert found.r2 < MIN_R2
    assert found.problem.startswith("Not shown")
    assert found.columns() == {"name": [], "share": [], "low": [], "high": []}
    assert maps(found)["image"] == []


@pytest.mark.parametrize("n", [0, 1, MIN_TRIALS - 1])
def test_few_trials_have_no_importance(n: int) -> None:
    assert importance(noise(n)).problem


def test_a_constant_space_has_no_importance() -> None:
    tables = StudyTables(Objective("error"))
    for _ in range(50):
        tables.add_trial(0, 0.0)
        tables.set_config(tables.n_trials - 1, {"a": 1.0})
    assert "same configuration" in importance(tables).problem


def test_the_map_is_dark_where_trials_are_good() -> None:
    tables = asha_result().tables()
    pairs = maps(importance(tables))
    named = [*zip(pairs["first"], pairs["second"], strict=True)]
    place = next(place for place, pair in enumerate(named) if "lr" in pair)
    image = pairs["image"][place]
    assert image.shape == (CELLS, CELLS)
    along = image.mean(axis=0) if pairs["first"][place] == "lr" else image.mean(axis=1)
    assert along[: CELLS // 4].mean() > along[CELLS // 2 : -2].mean()  # a small lr is bad


def test_deciles_follow_the_values() -> None:
    columns = deciles(asha_result().tables(), "lr")
    assert len(columns["at"]) == 10
    assert (columns["low"] <= columns["high"]).all()
    assert columns["middle"][0] > columns["middle"].min()
