"""A small regression by each library of boosted trees."""

from __future__ import annotations

from typing import Any

import numpy as np

X = np.random.default_rng(0).normal(size=(200, 4))
Y = X[:, 0] ** 2 + X[:, 1]
TRAIN, VALID = slice(0, 150), slice(150, 200)


def xgboost_train(config: Any, trial: Any) -> None:
    import xgboost

    from daskhpo.integrations.xgboost import ReportCallback

    report = ReportCallback(trial, {"loss": "validation-rmse"}, rounds_per_unit=3)
    xgboost.train(
        {"max_depth": 2, "eta": config["lr"], "nthread": 1},
        xgboost.DMatrix(X[TRAIN], Y[TRAIN]),
        report.num_boost_round,
        evals=[(xgboost.DMatrix(X[VALID], Y[VALID]), "validation")],
        xgb_model=report.xgb_model,
        callbacks=[report],
        verbose_eval=False,
    )


def lightgbm_train(config: Any, trial: Any) -> None:
    import lightgbm

    from daskhpo.integrations.lightgbm import ReportCallback

    report = ReportCallback(trial, {"loss": "valid-l2"}, rounds_per_unit=3)
    data = lightgbm.Dataset(X[TRAIN], Y[TRAIN], free_raw_data=False)
    lightgbm.train(
        {"objective": "l2", "num_leaves": 4, "learning_rate": config["lr"], "num_threads": 1,
         "verbose": -1, "deterministic": True},
        data,
        report.num_boost_round,
        valid_sets=[lightgbm.Dataset(X[VALID], Y[VALID], reference=data, free_raw_data=False)],
        valid_names=["valid"],
        init_model=report.init_model,
        callbacks=[report],
    )  # fmt: skip


def catboost_train(config: Any, trial: Any) -> None:
    from catboost import CatBoostRegressor

    from daskhpo.integrations.catboost import fit

    model = CatBoostRegressor(
        learning_rate=config["lr"], depth=2, thread_count=1, random_seed=0, verbose=False
    )
    fit(
        model,
        trial,
        X[TRAIN],
        Y[TRAIN],
        eval_set=(X[VALID], Y[VALID]),
        metrics={"loss": "validation-RMSE"},
        rounds_per_unit=3,
    )
