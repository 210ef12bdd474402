"""Whole searches on worker processes: what dask-ml documents, and what its own tests skip today."""

from __future__ import annotations

import inspect
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from distributed import Client
from scipy import stats
from sklearn.base import clone
from sklearn.cluster import MiniBatchKMeans
from sklearn.compose import make_column_transformer
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import Ridge, SGDClassifier
from sklearn.model_selection import GridSearchCV, ParameterGrid, ParameterSampler, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.estimator_checks import check_estimator

from daskhpo import load_study
from daskhpo.core.errors import StudyMismatch
from daskhpo.searchers import GPSearch
from daskhpo.sklearn import (
    ASHASearchCV,
    HyperbandSearchCV,
    IncrementalSearchCV,
    RandomizedSearchCV,
    SuccessiveHalvingSearchCV,
)
from tests.sklearn.models import Constant, Fails, Line, Trees

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore:The total space of parameters:UserWarning"),
]

X, Y = make_classification(100, 5, random_state=0)
SGD = SGDClassifier(random_state=0)
VALUES = {"value": stats.uniform(0, 1)}


@pytest.fixture(scope="module")
def workers() -> Iterator[Client]:
    with Client(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as client:
        yield client


pytestmark.append(pytest.mark.usefixtures("workers"))


def dask_data() -> tuple[Any, Any]:
    return da.from_array(X, chunks=(10, 5)), da.from_array(Y, chunks=10)


# -- Hyperband ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("max_iter", "aggressiveness"), [(1, 3), (9, 3), (20, 3), (16, 4)])
def test_hyperband_does_what_its_metadata_said(max_iter: int, aggressiveness: int) -> None:
    search = HyperbandSearchCV(Constant(), VALUES, max_iter, aggressiveness, random_state=0)
    before = search.metadata
    assert set(before) == {"n_models", "partial_fit_calls", "brackets"}
    search.fit(X, Y)
    assert search.metadata_ == before
    models = search.model_history_
    assert len(models) == before["n_models"] == len(search.cv_results_["params"])
    calls = [rows[-1]["partial_fit_calls"] for rows in models.values()]
    assert (
        sum(calls) == before["partial_fit_calls"] == search.cv_results_["partial_fit_calls"].sum()
    )
    assert search.best_score_ == max(search.cv_results_["test_score"])
    assert search.n_iter_ == max_iter


def test_a_bracket_alone_does_as_much_as_in_hyperband() -> None:
    hyperband = HyperbandSearchCV(Constant(), VALUES, 9, random_state=42)
    for bracket in hyperband.metadata["brackets"]:
        alone = SuccessiveHalvingSearchCV(
            Constant(), VALUES, **bracket["SuccessiveHalvingSearchCV params"]
        ).fit(X, Y)
        assert alone.metadata_["n_models"] == bracket["n_models"]
        assert alone.metadata_["partial_fit_calls"] == bracket["partial_fit_calls"]


def test_results_history_and_models_tell_the_same() -> None:
    search = HyperbandSearchCV(Constant(), VALUES, 9, random_state=42).fit(X, Y)
    for row in pd.DataFrame({k: [*v] for k, v in search.cv_results_.items()}).to_dict("records"):
        last = search.model_history_[row["model_id"]][-1]
        assert row["bracket"] == last["bracket"]
        assert row["model_id"].startswith(f"bracket={row['bracket']}-")
        assert row["params"] == last["params"] == {"value": row["param_value"]}
        assert row["test_score"] == last["score"]
    times = [row["elapsed_wall_time"] for row in search.history_]
    assert times == sorted(times)
    for rows in search.model_history_.values():
        calls = [row["partial_fit_calls"] for row in rows]
        assert calls == [*range(1, len(calls) + 1)]


def test_a_search_can_be_cloned_and_has_all_its_arguments_as_parameters() -> None:
    search = HyperbandSearchCV(Constant(0.4), VALUES, 53, 4, 18, 0.0, 0.21, 42, prefix="a")
    params = clone(search).get_params()
    assert params["max_iter"] == 53
    assert params["patience"] == 18
    assert params["test_size"] == 0.21
    assert params["estimator__value"] == 0.4
    assert {"parameters", "aggressiveness", "tol", "random_state", "scoring", "verbose"} <= {
        *params
    }


OF_ALL = ["test_size", "patience", "tol", "random_state", "scoring", "verbose", "prefix"]


@pytest.mark.parametrize(
    ("search", "order"),
    [
        (
            HyperbandSearchCV,
            ["max_iter", "aggressiveness", "patience", "tol", "test_size", *OF_ALL[3:]],
        ),
        (
            SuccessiveHalvingSearchCV,
            ["n_initial_parameters", "n_initial_iter", "max_iter", "aggressiveness", *OF_ALL],
        ),
        (
            IncrementalSearchCV,  # without decay_rate and fits_per_score, which stand among these
            ["n_initial_parameters", *OF_ALL[:3], "max_iter", *OF_ALL[3:]],
        ),
    ],
)
def test_arguments_have_the_order_of_dask_ml(search: Any, order: list[str]) -> None:
    parameters = inspect.signature(search).parameters.values()
    by_position = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    assert by_position == ["estimator", "parameters", *order]


def test_the_same_random_state_draws_what_scikit_learn_draws() -> None:
    search = HyperbandSearchCV(Constant(), VALUES, 9, random_state=7).fit(X, Y)
    expected = [*ParameterSampler(VALUES, search.metadata["n_models"], random_state=7)]
    assert [*search.cv_results_["params"]] == expected
    again = IncrementalSearchCV(Constant(), VALUES, 5, max_iter=2, random_state=7).fit(X, Y)
    assert [*again.cv_results_["params"]] == [*ParameterSampler(VALUES, 5, random_state=7)]


def test_patience_trains_less_and_finds_as_much() -> None:
    search = HyperbandSearchCV(Constant(), VALUES, 27, patience=True, random_state=0).fit(X, Y)
    assert search.metadata_["partial_fit_calls"] < search.metadata["partial_fit_calls"]
    assert max(row["partial_fit_calls"] for row in search.history_) <= 9
    assert search.best_score_ > 0.9
    rounds = SuccessiveHalvingSearchCV(Constant(), VALUES, 9, 1, patience=2, random_state=0)
    assert rounds.metadata["max_iter"] == 9
    assert rounds.fit(X, Y).metadata_["max_iter"] == 2
    for tol in (math.nan, None):
        search = HyperbandSearchCV(Constant(), VALUES, 6, 2, patience=2, tol=tol).fit(X, Y)
        assert max(row["partial_fit_calls"] for row in search.history_) == 6
    with pytest.raises(ValueError, match="patience=1 always"):
        HyperbandSearchCV(Constant(), VALUES, 6, 2, patience=1).fit(X, Y)


# -- data --------------------------------------------------------------------------------------


def test_dask_arrays_are_trained_chunk_by_chunk() -> None:
    search = HyperbandSearchCV(
        Constant(), {"value": [0.1, 0.2]}, 3, random_state=0, test_size=0.25, refit=False
    ).fit(*dask_data())
    model = search.best_estimator_
    assert 0 < model.n_rows_ <= 10 * model.n_calls_
    refitted = HyperbandSearchCV(Constant(), {"value": [0.1, 0.2]}, 3, random_state=0)
    model = refitted.fit(*dask_data()).best_estimator_
    assert model.n_rows_ == 10 * model.n_calls_


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")  # log of a probability of 0
@pytest.mark.parametrize("kind", ["numpy", "dask", "frame", "dask frame"])
def test_classifiers_predict_for_whatever_they_were_given(kind: str) -> None:
    if kind == "dask frame":
        pytest.importorskip("pyarrow")  # without it there is no dask.dataframe
        import dask.dataframe as dd
    data: tuple[Any, Any] = {
        "numpy": lambda: (X, Y),
        "dask": dask_data,
        "frame": lambda: (pd.DataFrame(X), pd.Series(Y)),
        "dask frame": lambda: tuple(
            dd.from_pandas(of, npartitions=3)
            for of in (pd.DataFrame(X, columns=[*"abcde"]), pd.Series(Y))
        ),
    }[kind]()
    model = SGDClassifier(loss="log_loss", penalty="elasticnet", random_state=0)
    params = {"alpha": np.logspace(-4, 0, 100), "l1_ratio": np.linspace(0.01, 1, 200)}
    search = IncrementalSearchCV(model, params, 6, max_iter=3, random_state=0)
    search.fit(*data, classes=[0, 1])
    assert isinstance(search.best_estimator_, SGDClassifier)
    assert search.n_features_in_ == 5
    assert [*search.classes_] == [0, 1]
    proba = search.predict_proba(data[0])
    assert isinstance(proba, da.Array) == kind.startswith("dask")
    plain = np.asarray(proba)
    assert plain.shape == (100, 2)
    local = data[0].compute() if kind == "dask frame" else X  # names of columns count
    assert np.allclose(plain, np.exp(search.predict_log_proba(local)))
    assert np.array_equal(np.asarray(search.predict(data[0])), search.predict(local))
    assert 0.5 < search.score(local, Y) <= 1
    assert set(search.model_history_[0][0]) == {
        *("model_id", "params", "partial_fit_calls", "partial_fit_time", "score", "score_time"),
        "elapsed_wall_time",
    }
    assert {
        *("mean_partial_fit_time", "std_partial_fit_time", "mean_score_time", "std_score_time"),
        *("test_score", "rank_test_score", "model_id", "params", "partial_fit_calls"),
        *("param_alpha", "param_l1_ratio", "mean_test_score", "std_test_score", "mean_fit_time"),
    } <= set(search.cv_results_)


def test_partitions_of_a_frame_keep_their_columns() -> None:
    pytest.importorskip("pyarrow")  # without it there is no dask.dataframe
    import dask.dataframe as dd

    frame = pd.DataFrame({"a": X[:, 0], "kind": np.where(X[:, 1] > 0, "red", "blue")})
    by_name = make_column_transformer((StandardScaler(), ["a"]), (OneHotEncoder(), ["kind"]))
    model = make_pipeline(by_name, SGDClassifier(loss="log_loss", random_state=0))
    partitions = dd.from_pandas(frame, npartitions=3)
    search = RandomizedSearchCV(model, {"sgdclassifier__alpha": [1e-3]}, n_iter=1, cv=2)
    search.fit(partitions, dd.from_pandas(pd.Series(Y), npartitions=3))
    for method in ("predict", "predict_proba"):
        found = getattr(search, method)
        assert isinstance(found(partitions), da.Array)
        assert np.array_equal(np.asarray(found(partitions)), found(frame))


def test_sample_weights_are_split_with_their_rows() -> None:
    weight = np.where(np.arange(100) < 50, 1.0, 1e-6)
    search = RandomizedSearchCV(Ridge(), {"alpha": [1.0, 2.0]}, n_iter=2, cv=3, random_state=0)
    target = np.where(np.arange(100) < 50, X[:, 0], 100.0)
    search.fit(X, target, sample_weight=weight)
    assert abs(search.predict(X) - X[:, 0]).max() < 1


def test_a_clustering_transforms() -> None:
    model = MiniBatchKMeans(random_state=0)
    params = {"n_clusters": [3, 4], "n_init": [1, 2]}
    search = IncrementalSearchCV(model, params, "grid", max_iter=2, random_state=0).fit(X)
    assert [*search.cv_results_["params"]] == [*ParameterGrid(params)]
    assert search.transform(X).shape == (100, search.best_estimator_.n_clusters)
    lazily = search.transform(dask_data()[0])
    assert isinstance(lazily, da.Array)
    assert np.allclose(lazily, search.transform(X))
    assert not hasattr(search, "predict_proba")


# -- resources and splits ------------------------------------------------------------------------


def test_random_search_has_the_scores_of_cross_validation() -> None:
    params = {"alpha": stats.loguniform(1e-4, 1e2)}
    search = RandomizedSearchCV(Ridge(), params, n_iter=4, cv=3, random_state=1).fit(X, Y)
    for number, each in enumerate(ParameterSampler(params, 4, random_state=1)):
        scores = cross_val_score(Ridge(**each), X, Y, cv=3)
        found = [search.cv_results_[f"split{split}_test_score"][number] for split in range(3)]
        assert np.allclose(found, scores)
    best = search.cv_results_["params"][np.argmax(search.cv_results_["mean_test_score"])]
    assert search.best_params_ == best
    assert np.allclose(search.predict(X), Ridge(**best).fit(X, Y).predict(X))


def test_one_unit_of_all_rows_is_a_grid_search() -> None:
    model, grid = DecisionTreeClassifier(random_state=0), {"max_depth": [1, 2, 3]}
    found = IncrementalSearchCV(
        model, grid, "grid", max_iter=1, resource="n_samples", cv=3
    ).fit(X, Y)  # fmt: skip
    expected = GridSearchCV(model, grid, cv=3).fit(X, Y)
    assert found.best_params_ == expected.best_params_
    scores = "mean_test_score"
    assert np.allclose(found.cv_results_[scores], expected.cv_results_[scores])


def test_pipelines_grow_by_samples_or_by_a_parameter_of_a_step() -> None:
    pipeline = make_pipeline(StandardScaler(), SGD)
    search = ASHASearchCV(
        pipeline, {"sgdclassifier__alpha": stats.loguniform(1e-5, 1)}, n_iter=9, max_iter=9,
        cv=3, random_state=0,
    ).fit(X, Y)  # fmt: skip
    assert set(search.cv_results_["n_resources"]) <= {8, 23, 67, 66}  # 1/9, 3/9 and all of 66 or 67
    assert search.score(X, Y) > 0.8
    forest = make_pipeline(StandardScaler(), RandomForestClassifier(9, random_state=0))
    search = SuccessiveHalvingSearchCV(
        forest, {"randomforestclassifier__max_depth": [1, 2, 3, 4]}, 4, 3, 9,
        resource="randomforestclassifier__n_estimators", random_state=0,
    ).fit(X, Y)  # fmt: skip
    assert {*search.cv_results_["n_resources"]} == {3, 9}
    assert len(search.best_estimator_[-1].estimators_) == 9


def test_several_scores_and_the_one_that_counts() -> None:
    search = RandomizedSearchCV(
        SGD, {"alpha": [1e-4, 1e-2]}, n_iter=2, cv=3, random_state=0,
        scoring=["accuracy", "roc_auc"], refit="roc_auc",
    ).fit(X, Y)  # fmt: skip
    assert search.multimetric_
    assert search.best_score_ == search.cv_results_["mean_test_roc_auc"].max()
    assert {"split2_test_accuracy", "rank_test_accuracy"} <= set(search.cv_results_)
    with pytest.raises(ValueError, match=r"refit=True must be one of the scores \['accuracy'"):
        RandomizedSearchCV(SGD, {"alpha": [1.0]}, scoring=["accuracy"]).fit(X, Y)


def test_a_searcher_may_propose_the_candidates() -> None:
    search = ASHASearchCV(
        SGD, {"alpha": stats.loguniform(1e-6, 1), "penalty": ["l1", "l2"]}, n_iter=6, max_iter=3,
        searcher=GPSearch(n_initial_points=2), random_state=0,
    ).fit(X, Y)  # fmt: skip
    assert len(search.cv_results_["params"]) == 6
    assert {*search.cv_results_["param_penalty"]} <= {"l1", "l2"}


def test_without_refit_the_best_is_as_it_was_trained() -> None:
    search = SuccessiveHalvingSearchCV(Line(), VALUES, 9, 1, refit=False, random_state=0).fit(X, Y)
    assert search.best_estimator_.n_calls_ == search.n_iter_ == 9
    assert search.best_estimator_.value == search.best_params_["value"]
    assert search.best_score_ == search.best_estimator_.score(X)
    folds = IncrementalSearchCV(Line(), VALUES, 2, max_iter=2, cv=2, refit=False).fit(X, Y)
    assert not hasattr(folds, "best_estimator_")


# -- failures ------------------------------------------------------------------------------------


def test_a_candidate_that_fails_has_the_error_score() -> None:
    params = {"value": [-1.0, 0.5]}
    search = IncrementalSearchCV(Fails(), params, "grid", max_iter=2).fit(X, Y)
    assert np.isnan(search.cv_results_["test_score"][0])
    assert [*search.cv_results_["rank_test_score"]] == [2, 1]
    assert search.best_params_ == {"value": 0.5}
    for error_score, values in (("raise", [-1.0, 0.5]), (math.nan, [-1.0, -2.0])):
        with pytest.raises(ValueError, match="ArithmeticError: a negative value"):
            IncrementalSearchCV(
                Fails(), {"value": values}, "grid", max_iter=2, error_score=error_score
            ).fit(X, Y)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_iter": 0}, "max_iter=0 must be"),
        ({"resource": "partial_fits"}, "resource='partial_fits' must be 'auto'"),
        ({"resource": "value"}, "resource='value' is also searched"),
        ({"n_iter": 0}, "n_iter=0"),
        ({"min_iter": 28}, "min_iter=28"),
    ],
)
def test_a_bad_argument_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ASHASearchCV(Trees(), VALUES, **arguments).fit(X, Y)


# -- a study that stays --------------------------------------------------------------------------

SCRIPT = """
import sys
import numpy as np
from daskhpo.sklearn import HyperbandSearchCV
from tests.sklearn.models import Slow

if __name__ == "__main__":
    X = np.random.default_rng(0).normal(size=(40, 2))
    search = HyperbandSearchCV(
        Slow(gate=sys.argv[2]), {"value": np.linspace(0.1, 2, 40).tolist()}, max_iter=9,
        random_state=0, storage=sys.argv[1], n_jobs=2, refit=False,
    ).fit(X, X[:, 0])
    print(search.best_score_, search.best_params_, search.metadata == search.metadata_,
          search.best_estimator_.n_calls_, sorted(search.cv_results_["test_score"]))
"""


def test_a_search_that_was_killed_continues(tmp_path: Path, wait_for: Callable[..., Any]) -> None:
    script, gate, opened = (tmp_path / name for name in ("search.py", "gate", "opened"))
    opened.touch()
    script.write_text(SCRIPT)

    def begin(name: str, gate: Path) -> subprocess.Popen[bytes]:
        with (tmp_path / f"{name}.txt").open("wb") as printed:
            return subprocess.Popen(
                [sys.executable, str(script), str(tmp_path / name), str(gate)],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
                stdout=printed,
                start_new_session=True,
            )

    journal = tmp_path / "killed/journal.jsonl"
    first, undisturbed = begin("killed", gate), begin("undisturbed", opened)
    wait_for(
        lambda: journal.exists() and journal.read_text().count('"reported"') >= 6, "six reports"
    )
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    gate.touch()
    second = begin("killed", gate)
    assert second.wait(100) == undisturbed.wait(100) == 0
    printed = (tmp_path / "killed.txt").read_text()
    assert printed == (tmp_path / "undisturbed.txt").read_text()
    assert "True 9" in printed
    assert not (tmp_path / "killed-data").exists()
    assert load_study(tmp_path / "killed").num_trials == 15


def test_a_stored_study_is_for_the_same_data(tmp_path: Path) -> None:
    path = tmp_path / "study"
    search = IncrementalSearchCV(Line(), VALUES, 3, max_iter=2, random_state=0, storage=path)
    first = search.fit(X, Y).history_
    assert search.fit(X, Y).history_ == first
    assert search.study_path_ == path
    assert "_data" not in search.best_params_
    with pytest.raises(StudyMismatch):
        search.fit(X + 1, Y)


# -- scikit-learn's own checks -------------------------------------------------------------------

WORKERS_RAISE = "the error of a worker is a ValueError here, with the worker's traceback"
AS_THERE = "scikit-learn's own searches do not pass it either"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "search",
    [
        HyperbandSearchCV(SGD, {"alpha": [1e-4, 1e-3]}, max_iter=3, random_state=0),
        pytest.param(
            RandomizedSearchCV(Ridge(), {"alpha": [0.1, 1.0]}, n_iter=2, cv=2, random_state=0),
            marks=pytest.mark.long,
        ),
    ],
    ids=["Hyperband", "random"],
)
def test_scikit_learns_checks_of_estimators_pass(search: Any) -> None:
    expected = {"check_dtype_object": WORKERS_RAISE, "check_requires_y_none": AS_THERE}
    with Client(
        processes=False, n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0"
    ):
        results = check_estimator(
            search, expected_failed_checks=expected, on_skip=None, on_fail=None
        )
    failed = [r["check_name"] for r in results if r["status"] == "failed"]
    assert not failed
    assert sum(r["status"] == "passed" for r in results) > 40
