"""`ray.tune.integration.lightgbm`: callbacks that report each boosting round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightgbm

from daskhpo.integrations.metrics import MetricNames
from daskhpo.tune.checkpoint import Checkpoint
from daskhpo.tune.integration import Reporting


class TuneReportCheckpointCallback:
    """Report each round, with the booster every ``frequency`` rounds and at the end."""

    CHECKPOINT_NAME = "model.txt"
    order = 20
    before_iteration = False

    def __init__(
        self,
        metrics: MetricNames = None,
        filename: str = CHECKPOINT_NAME,
        frequency: int = 0,
        checkpoint_at_end: bool = True,
        results_postprocessing_fn: Any = None,
    ) -> None:
        self._report = Reporting(metrics, filename, results_postprocessing_fn)
        self._frequency, self._at_end = frequency, checkpoint_at_end

    @classmethod
    def get_model(cls, checkpoint: Checkpoint, filename: str = CHECKPOINT_NAME) -> Any:
        """Return the booster of a checkpoint."""
        return lightgbm.Booster(model_file=str(Path(checkpoint.path, filename)))

    def __call__(self, env: Any) -> None:
        """Report the round."""
        is_cv = isinstance(env.model, lightgbm.engine.CVBooster)
        found = {}
        for data, name, value, _, *deviation in env.evaluation_result_list:
            found[f"{data}-{name}-mean" if is_cv else f"{data}-{name}"] = value
            if deviation:
                found[f"{data}-{name}-stdv"] = deviation[0]
        is_due = bool(self._frequency) and (env.iteration + 1) % self._frequency == 0
        is_end = self._at_end and env.iteration == env.end_iteration - 1
        is_saved = not is_cv and (is_due or is_end)
        self._report(found, env.model.save_model if is_saved else None)


class TuneReportCallback(TuneReportCheckpointCallback):
    """Report each round, without a checkpoint."""

    def __init__(self, metrics: MetricNames = None, results_postprocessing_fn: Any = None) -> None:
        super().__init__(
            metrics, checkpoint_at_end=False, results_postprocessing_fn=results_postprocessing_fn
        )
