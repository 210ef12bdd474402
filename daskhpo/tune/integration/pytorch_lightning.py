"""`ray.tune.integration.pytorch_lightning`: callbacks that report values."""

from __future__ import annotations

from typing import Any

from daskhpo.core.arguments import check_choice
from daskhpo.integrations.lightning import lightning_bases
from daskhpo.integrations.metrics import MetricNames
from daskhpo.tune.integration import Reporting

HOOKS = ("validation_end", "train_epoch_end", "train_end", "fit_end", "test_end")


class TuneReportCheckpointCallback(*lightning_bases()):  # type: ignore[misc]
    """Report at a hook of the trainer, with its checkpoint if ``save_checkpoints``."""

    def __init__(
        self,
        metrics: MetricNames = None,
        filename: str = "checkpoint",
        save_checkpoints: bool = True,
        on: str = "validation_end",
    ) -> None:
        super().__init__()
        self._report = Reporting(metrics, filename)
        self._saves = save_checkpoints
        hook = check_choice("on", on.removeprefix("on_"), HOOKS)
        setattr(self, f"on_{hook}", self._handle)

    def _handle(self, trainer: Any, pl_module: Any) -> None:
        if trainer.sanity_checking:
            return
        found = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self._report(found, trainer.save_checkpoint if self._saves else None)


class TuneReportCallback(TuneReportCheckpointCallback):
    """Report at a hook of the trainer, without a checkpoint."""

    def __init__(self, metrics: MetricNames = None, on: str = "validation_end") -> None:
        super().__init__(metrics, save_checkpoints=False, on=on)


TuneCallback = TuneReportCheckpointCallback  # their base class in Ray
