"""A network of Keras on torch."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

os.environ.setdefault("KERAS_BACKEND", "torch")


def train(config: Any, trial: Any) -> None:
    import keras

    from daskhpo.integrations.keras import ReportCallback

    keras.utils.set_random_seed(3)
    x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    model = keras.Sequential(
        [
            keras.layers.Dense(8, activation="tanh"),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.Adam(config["lr"]), "mse")
    model.fit(
        x,
        x.sum(1),
        batch_size=16,
        validation_data=(x, x.sum(1)),
        initial_epoch=trial.resource,
        epochs=trial.max_t,
        callbacks=[ReportCallback(trial, "val_loss")],
        verbose=0,
    )
