"""Callbacks of frameworks by Ray Tune's names, in trials on real workers."""

from __future__ import annotations

import sys
from pathlib import Path

import cloudpickle
import numpy as np
import pytest

from daskhpo import tune

pytestmark = [pytest.mark.cluster, pytest.mark.long]

cloudpickle.register_pickle_by_value(sys.modules[__name__])
X = np.random.default_rng(0).normal(size=(60, 3))
Y = (X[:, 0] > 0).astype(int)


def of_xgboost(config):
    import xgboost

    from daskhpo.tune.integration.xgboost import TuneReportCheckpointCallback as Report

    data = xgboost.DMatrix(X, Y)
    report = Report({"loss": "train-logloss"}, "model.json", frequency=2)
    params = {"objective": "binary:logistic", "eta": config["lr"]}
    xgboost.train(params, data, 3, evals=[(data, "train")], callbacks=[report])


def of_lightgbm(config):
    import lightgbm

    from daskhpo.tune.integration.lightgbm import TuneReportCheckpointCallback as Report

    data = lightgbm.Dataset(X, Y)
    params = {"objective": "binary", "learning_rate": config["lr"], "verbose": -1}
    report = Report({"loss": "train-binary_logloss"}, "model.txt")
    lightgbm.train(params, data, 3, valid_sets=[data], valid_names=["train"], callbacks=[report])


def of_lightning(config):
    import lightning.pytorch as pl
    import torch

    from daskhpo.tune.integration.pytorch_lightning import TuneReportCheckpointCallback as Report

    class Net(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Linear(3, 1)

        def training_step(self, batch, _):
            return ((self.net(batch[0])[:, 0] - batch[1]) ** 2).mean()

        def validation_step(self, batch, _):
            self.log("val_loss", self.training_step(batch, 0))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), config["lr"])

    data = torch.utils.data.TensorDataset(torch.tensor(X).float(), torch.tensor(Y).float())
    loader = torch.utils.data.DataLoader(data, batch_size=30)
    report = Report({"loss": "val_loss"}, "trainer.ckpt")
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    trainer = pl.Trainer(max_epochs=3, callbacks=[report], accelerator="cpu", **quiet)
    trainer.fit(Net(), loader, loader)


def of_keras(config):
    import keras

    from daskhpo.tune.integration.keras import TuneReportCheckpointCallback as Report

    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(config["lr"]), "mse")
    model.fit(X, Y, epochs=3, verbose=0, callbacks=[Report({"loss": "loss"}, "model.keras")])


@pytest.mark.parametrize(
    ("trainable", "file", "n"),
    [
        (of_xgboost, "model.json", 4),  # the last of them only has the booster
        (of_lightgbm, "model.txt", 3),
        (of_lightning, "trainer.ckpt", 3),
        (of_keras, "model.keras", 3),
    ],
)
def test_callbacks_report_and_keep_the_model(tmp_path, cluster, trainable, file, n):
    analysis = tune.run(
        trainable,
        metric="loss",
        mode="min",
        config={"lr": tune.grid_search([0.01, 0.1])},
        storage_path=str(tmp_path),
        client=cluster,
        verbose=0,
    )
    assert [trial.last_result["training_iteration"] for trial in analysis.trials] == [n, n]
    first, last = analysis.trials
    assert first.last_result["loss"] > last.last_result["loss"] > 0
    with analysis.best_checkpoint.as_directory() as folder:
        assert [path.name for path in Path(folder).iterdir() if path.is_file()] == [file]


def ends_itself(config):
    for step in range(9):
        tune.report({"loss": 1, "done": step == config["last"]})


def test_a_report_may_say_that_it_is_done(tmp_path, cluster):
    analysis = tune.run(
        ends_itself,
        config={"last": tune.grid_search([1, 4])},
        stop={"done": True},
        storage_path=str(tmp_path),
        client=cluster,
        verbose=0,
    )
    assert [t.last_result["training_iteration"] for t in analysis.trials] == [2, 5]
