"""A candidate's trial in this process: units, states, milestones, patience."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import KFold

from daskhpo.sklearn.candidates import proposed
from daskhpo.sklearn.dataset import DataSet, Split, stored
from daskhpo.sklearn.trial import CandidateTrial, Growing, PartialFit, Task, refitted
from tests.sklearn.models import Line, Trees

X = np.random.default_rng(0).normal(size=(60, 3))
Y = (X[:, 0] > 0).astype(int)


def task(folder: Path, estimator: Any, resource: Any, cv: int = 2, **changed: Any) -> Task:
    data, _ = stored(None, folder, X, Y, {})
    splits = tuple(Split(*pair) for pair in KFold(cv, shuffle=True, random_state=0).split(X))
    given = {
        "estimator": estimator,
        "candidates": proposed({"value": [0.5, 1.0, 2.0]}),
        "data": data,
        "splits": splits,
        "scorer": lambda model, x, y: model.score(x, y),
        "metric": "score",
        "resource": resource,
        "fixed": {},
        "patience": 0,
        "tol": 0.0,
    }
    return Task(**(given | changed))


def trial(of: Task, config: dict[str, Any], max_t: int = 9) -> Any:
    made = type("Trial", (CandidateTrial,), {"task": of})()
    context = SimpleNamespace(resource=0, max_t=max_t, is_complete=False)
    context.complete = lambda: vars(context).update(is_complete=True)
    made.trial = context
    made.setup(config)
    return made


def steps(made: Any, n: int) -> list[dict[str, float]]:
    found = []
    for _ in range(n):
        found.append(dict(made.step()))
        made.trial.resource += 1
    return found


def scores(rows: list[dict[str, float]]) -> list[float]:
    return [row["score"] for row in rows]


def test_a_score_is_the_mean_of_the_splits(tmp_path: Path) -> None:
    made = trial(task(tmp_path, SGDClassifier(random_state=0), PartialFit(0), 3,
                      candidates=proposed({"alpha": [1e-3, 1e-2]}),
                      fixed={"classes": [0, 1]}), {"alpha": 1e-3})  # fmt: skip
    (row,) = steps(made, 1)
    assert row["score"] == np.mean([row[f"split{n}_score"] for n in range(3)])


@pytest.mark.parametrize("after", [1, 3, 5])
def test_a_trial_that_was_saved_continues_as_if_it_was_not(tmp_path: Path, after: int) -> None:
    of = task(tmp_path, SGDClassifier(random_state=0), PartialFit(0),
              candidates=proposed({"alpha": [1e-3, 1e-2]}), fixed={"classes": [0, 1]})  # fmt: skip
    undisturbed = scores(steps(trial(of, {"alpha": 1e-2}), 7))
    first = trial(of, {"alpha": 1e-2})
    begun = scores(steps(first, after))
    second = trial(of, {"alpha": 1e-2})
    second.load_checkpoint(first.save_checkpoint())
    second.trial.resource = after
    assert begun + scores(steps(second, 7 - after)) == undisturbed


def test_a_parameter_with_warm_start_grows_in_every_unit(tmp_path: Path) -> None:
    resource = Growing("n_estimators", 40, "warm_start", frozenset({1, 4}), 0)
    made = trial(task(tmp_path, Trees(), resource), {"value": 1.0}, max_t=4)
    assert [row["n_resources"] for row in steps(made, 4)] == [10, 20, 30, 40]
    assert made._models[0].fits_ == [10, 20, 30, 40]
    assert made._models[0].warm_start is True


def test_without_warm_start_only_milestones_are_fitted(tmp_path: Path) -> None:
    resource = Growing("n_estimators", 40, None, frozenset({1, 4}), 0)
    made = trial(task(tmp_path, Trees(), resource), {"value": 1.0}, max_t=4)
    assert [row["n_resources"] for row in steps(made, 4)] == [10, 10, 10, 40]


def test_samples_grow_and_contain_the_earlier_ones(tmp_path: Path) -> None:
    seen: list[set[float]] = []

    class Sees(Line):
        def fit(self, X: Any, y: Any = None) -> Sees:
            seen.append(set(np.asarray(X)[:, 0].tolist()))
            super().fit(X, y)
            return self

    resource = Growing("n_samples", None, None, frozenset(), 0)
    rows = steps(trial(task(tmp_path, Sees(), resource), {"value": 1.0}, max_t=3), 3)
    assert [row["n_resources"] for row in rows] == [10, 20, 30]  # of the 30 that train
    assert seen[0] < seen[2] < seen[4]


@pytest.mark.parametrize(
    ("most", "tol", "units"),
    [(math.inf, 4.0, 3), (math.inf, 1.0, 9), (math.inf, math.nan, 9), (4, 0.0, 7), (1, 0.0, 3)],
)
def test_patience_ends_a_trial_whose_score_grows_too_little(
    tmp_path: Path, most: float, tol: float, units: int
) -> None:
    made = trial(
        task(tmp_path, Line(most=most), PartialFit(0), patience=3, tol=tol), {"value": 1.0}
    )
    n = 0
    while n < 9 and not made.trial.is_complete:
        steps(made, 1)
        n += 1
    assert n == units


def test_the_last_estimator_is_fitted_with_all_rows(tmp_path: Path) -> None:
    model, seconds = refitted(task(tmp_path, Line(), PartialFit(0)), {"value": 1.0}, 4, 9)
    assert (model.n_calls_, model.n_rows_) == (4, 4 * 60)
    assert seconds > 0
    resource = Growing("n_estimators", 40, None, frozenset(), 0)
    model, _ = refitted(task(tmp_path, Trees(), resource), {"value": 1.0}, 3, 4)
    assert model.fits_ == [30]


@pytest.mark.parametrize("kind", ["array", "frame", "sparse", "list"])
def test_rows_come_back_whatever_they_are_in(tmp_path: Path, kind: str) -> None:
    make = {
        "array": lambda x: x,
        "frame": lambda x: pd.DataFrame(x, columns=["a", "b", "c"]),
        "sparse": scipy.sparse.csr_matrix,
        "list": lambda x: x.tolist(),
    }[kind]
    weight = np.arange(60.0)
    data, y = stored(None, tmp_path, make(X), Y, {"sample_weight": weight})
    rows = np.array([5, 2, 40])
    part = data.take(rows)
    got = part["X"].toarray() if kind == "sparse" else np.asarray(part["X"])
    assert np.array_equal(got, X[rows])
    assert np.array_equal(part["y"], Y[rows])
    assert np.array_equal(part["sample_weight"], rows)
    assert y is Y or np.array_equal(y, Y)


def test_a_worker_that_does_not_see_the_data_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="a folder that all workers see"):
        DataSet(tmp_path / "not-there", (0, 3), True, ()).block(0)


def test_each_block_comes_once_a_pass_in_changing_order(tmp_path: Path) -> None:
    of = task(tmp_path, Line(), PartialFit(3))
    many = Task(**{**vars(of), "data": DataSet(tmp_path, tuple(range(0, 80, 10)), True, ())})
    passes = [[many.block_of(7 * turn + n + 1) for n in range(7)] for turn in range(4)]
    assert all(sorted(each) == [*range(7)] for each in passes)
    assert len({tuple(each) for each in passes}) > 1
