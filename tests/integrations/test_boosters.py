"""XGBoost, LightGBM and CatBoost: units of rounds, resumption, PBT, real workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from daskhpo import Study
from daskhpo.core.errors import InvalidArgument, MetricError
from daskhpo.schedulers import PBT
from daskhpo.space import Real
from tests.integrations import boosters
from tests.integrations.real_study import check_study
from tests.integrations.script import ScriptedTrial, run

LIBRARIES = ["xgboost", "lightgbm", "catboost"]


@pytest.fixture(params=LIBRARIES)
def train(request: pytest.FixtureRequest) -> Any:
    pytest.importorskip(request.param)
    return getattr(boosters, f"{request.param}_train")


@pytest.mark.slow
@pytest.mark.parametrize("stops", [(1,), (1, 2, 3, 4)])
def test_a_resumed_trial_reports_what_an_undisturbed_one_does(
    train: Any, stops: tuple[int, ...]
) -> None:
    undisturbed = [report["loss"] for report in run(train, {"lr": 0.2})]
    assert len(undisturbed) == 5
    assert undisturbed == sorted(undisturbed, reverse=True)
    resumed = [report["loss"] for report in run(train, {"lr": 0.2}, *stops)]
    assert resumed == pytest.approx(undisturbed, rel=1e-5)


@pytest.mark.cluster
def test_a_study_with_a_killed_worker(train: Any, tmp_path: Path, wait_for: Any) -> None:
    check_study(train, tmp_path, wait_for, "loss")


@pytest.mark.cluster
@pytest.mark.long
def test_a_population_exchanges_boosters(train: Any, tmp_path: Path) -> None:
    scheduler = PBT(5, 1, {"lr": Real(0.01, 0.5, log=True)}, quantile_fraction=0.5)
    study = Study(
        train, {"lr": Real(0.01, 0.5, log=True)}, "loss", scheduler=scheduler, storage=tmp_path
    )
    result = study.run(num_trials=4, max_concurrent=2, progress=False)
    assert not result.failed_trials()
    assert (result.lineage()["trial"].value_counts() > 1).any()


def test_a_metric_that_is_not_there_is_named() -> None:
    xgboost = pytest.importorskip("xgboost")
    from daskhpo.integrations.xgboost import ReportCallback

    report = ReportCallback(ScriptedTrial({}, 5), "valid-rmse", rounds_per_unit=1)
    data = xgboost.DMatrix(boosters.X, boosters.Y)
    with pytest.raises(MetricError, match=r"no metric 'valid-rmse'.*\['train-rmse'\]"):
        xgboost.train({}, data, 2, evals=[(data, "train")], callbacks=[report], verbose_eval=False)


def test_catboost_needs_a_learning_rate() -> None:
    catboost = pytest.importorskip("catboost")
    from daskhpo.integrations.catboost import fit

    with pytest.raises(InvalidArgument, match="no learning_rate"):
        fit(catboost.CatBoostRegressor(), ScriptedTrial({}, 5), boosters.X, boosters.Y)
