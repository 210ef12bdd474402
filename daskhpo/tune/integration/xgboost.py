"""`ray.tune.integration.xgboost`: callbacks that report each boosting round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import xgboost

from daskhpo.integrations.metrics import MetricNames
from daskhpo.tune.checkpoint import Checkpoint
from daskhpo.tune.integration import Reporting


class TuneReportCheckpointCallback(xgboost.callback.TrainingCallback):  # type: ignore[misc]
    """Report each round, with the booster every ``frequency`` rounds and at the end."""

    CHECKPOINT_NAME = "model.ubj"

    def __init__(
        self,
        metrics: MetricNames = None,
        filename: str = CHECKPOINT_NAME,
        frequency: int = 0,
        checkpoint_at_end: bool = True,
        results_postprocessing_fn: Any = None,
    ) -> None:
        super().__init__()
        self._report = Reporting(metrics, filename, results_postprocessing_fn)
        self._frequency, self._at_end = frequency, checkpoint_at_end
        self._found: dict[str, Any] = {}
        self._is_saved = False

    @classmethod
    def get_model(cls, checkpoint: Checkpoint, filename: str = CHECKPOINT_NAME) -> Any:
        """Return the booster of a checkpoint."""
        return xgboost.Booster(model_file=str(Path(checkpoint.path, filename)))

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        """Report the round."""
        self._found = {
            f"{data}-{name}": values[-1][0] if isinstance(values[-1], tuple) else values[-1]
            for data, of in evals_log.items()
            for name, values in of.items()
        }
        self._is_saved = bool(self._frequency) and (epoch + 1) % self._frequency == 0
        self._report(self._found, model.save_model if self._is_saved else None)
        return False

    def after_training(self, model: Any) -> Any:
        """Report the last values once more, with the booster: as Ray does."""
        if self._at_end and self._found and not self._is_saved and hasattr(model, "save_model"):
            self._report(self._found, model.save_model)
        return model


class TuneReportCallback(TuneReportCheckpointCallback):
    """Report each round, without a checkpoint."""

    def __init__(self, metrics: MetricNames = None, results_postprocessing_fn: Any = None) -> None:
        super().__init__(
            metrics, checkpoint_at_end=False, results_postprocessing_fn=results_postprocessing_fn
        )
