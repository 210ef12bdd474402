"""Keras 3: report each epoch, save and resume the model, of any backend."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskhpo.core.errors import CheckpointMissing, MissingLibrary
from daskhpo.integrations.metrics import MetricNames, check_metrics, selected
from daskhpo.integrations.random_state import random_state, set_random_state
from daskhpo.trainable import TrialContext

try:
    import keras
except ModuleNotFoundError as error:
    raise MissingLibrary(
        f"{error.name} is not installed: pip install daskhpo[keras], and a backend that "
        "KERAS_BACKEND names, such as torch"
    ) from error


class ReportCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Report each epoch of ``model.fit`` to its trial; the trial may end there.

    One unit is one epoch. When training begins, it restores the trial's state: weights, optimizer,
    and random states.

    Parameters
    ----------
    trial : the second argument of the study's function.
    metrics : names in the logs to report, such as ``"val_loss"``: one, several, or ``{reported
        name: the log's}``; None: all.

    Examples
    --------
    ::

        def train(config, trial):
            model = build(config)
            model.fit(
                x, y, validation_data=..., callbacks=[ReportCallback(trial, "val_loss")],
                initial_epoch=trial.resource, epochs=trial.max_t,
            )
    """

    def __init__(self, trial: TrialContext, metrics: MetricNames = None) -> None:
        super().__init__()
        self._trial, self._metrics = trial, check_metrics(metrics)
        self._state = trial.checkpoint

    def on_train_begin(self, logs: Any = None) -> None:
        if self._state is None:
            return
        optimizer = self.model.optimizer
        optimizer.build(self.model.trainable_variables)
        for owner, name in ((self.model, "model"), (optimizer, "optimizer")):
            for variable, value in zip(owner.variables, self._state[name], strict=True):
                variable.assign(value)
        set_random_state(self._state["random"])

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch != self._trial.resource:
            raise CheckpointMissing(
                f"trial {self._trial.id} has {self._trial.resource} epochs, but model.fit has "
                f"trained epoch {epoch}, counted from 0: give model.fit(..., "
                "initial_epoch=trial.resource, epochs=trial.max_t)"
            )
        self._state = None
        self._trial.report(selected(self._metrics, logs or {}), state=self._made)

    def _made(self) -> dict[str, Any]:
        return {
            "model": [np.asarray(_array(each)) for each in self.model.variables],
            "optimizer": [np.asarray(_array(each)) for each in self.model.optimizer.variables],
            "random": random_state(),
        }


def _array(variable: Any) -> Any:
    return keras.ops.convert_to_numpy(variable.value)
