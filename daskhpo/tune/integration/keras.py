"""`ray.tune.integration.keras`: callbacks that report each epoch."""

from __future__ import annotations

from typing import Any

import keras

from daskhpo.core.arguments import check_choice
from daskhpo.integrations.metrics import MetricNames
from daskhpo.tune.integration import Reporting

EVENTS = ("epoch_end", "train_end", "test_end", "train_batch_end")


class TuneReportCheckpointCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Report at some of the events of ``fit``, perhaps with the model.

    Parameters
    ----------
    checkpoint_on, report_metrics_on : an event, or a list: ``"epoch_end"`` or another one. Without
        a report at its event, a model is not kept.
    """

    def __init__(
        self,
        metrics: MetricNames = None,
        filename: str = "checkpoint.keras",
        checkpoint_on: str | list[str] = "epoch_end",
        report_metrics_on: str | list[str] = "epoch_end",
        results_postprocessing_fn: Any = None,
    ) -> None:
        super().__init__()
        if not filename.endswith((".keras", ".h5")):
            filename += ".keras"
        self._report = Reporting(metrics, filename, results_postprocessing_fn)
        self._saves, self._reports = _events(checkpoint_on), _events(report_metrics_on)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._handle("epoch_end", logs)

    def on_train_end(self, logs: Any = None) -> None:
        self._handle("train_end", logs)

    def on_test_end(self, logs: Any = None) -> None:
        self._handle("test_end", logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._handle("train_batch_end", logs)

    def _handle(self, event: str, logs: Any) -> None:
        if event in self._reports:
            found = {name: float(value) for name, value in (logs or {}).items()}
            self._report(found, self.model.save if event in self._saves else None)


ReportCheckpointCallback = TuneReportCheckpointCallback  # its name in ray.air


class TuneReportCallback(TuneReportCheckpointCallback):
    """Report at some of the events of ``fit``, without a checkpoint."""

    def __init__(self, metrics: MetricNames = None, on: str | list[str] = "epoch_end") -> None:
        super().__init__(metrics, checkpoint_on=[], report_metrics_on=on)


def _events(given: str | list[str]) -> list[str]:
    events = [given] if isinstance(given, str) else list(given)
    return [check_choice("on", event, EVENTS) for event in events]


class TuneReporterCallback(TuneReportCallback):
    """Report each epoch; the accuracy is ``mean_accuracy``, as in 2020."""

    def __init__(self, reporter: Any = None, freq: str = "epoch") -> None:
        super().__init__(on="epoch_end" if freq == "epoch" else "train_batch_end")

    def _handle(self, event: str, logs: Any) -> None:
        logs = dict(logs or {})
        for name in ("acc", "accuracy"):
            if name in logs:
                logs["mean_accuracy"] = logs.pop(name)
        super()._handle(event, logs)
