"""`ray.tune.integration` and `ray.air.integrations`.

Its modules are imported by their names: ``wandb``, ``mlflow``, ``xgboost``, ``lightgbm``, ``keras``
and ``pytorch_lightning``. Those of a framework need it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from daskhpo.integrations.metrics import MetricNames, check_metrics, selected
from daskhpo.tune.checkpoint import Checkpoint
from daskhpo.tune.session import report


class Reporting:
    """The common part of the callbacks of frameworks.

    Parameters
    ----------
    metrics : names to report: one, several, or ``{reported name: logged name}``; None: all.
    filename : of the model in a checkpoint.
    results_postprocessing_fn : makes the reported dict of that of all logged values.
    """

    def __init__(
        self,
        metrics: MetricNames = None,
        filename: str = "checkpoint",
        results_postprocessing_fn: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    ) -> None:
        self.metrics, self.filename = check_metrics(metrics), filename
        self._processed = results_postprocessing_fn

    def __call__(self, found: dict[str, Any], save: Callable[[str], Any] | None) -> None:
        """Report; ``save`` writes the model to a path."""
        numbers = found if self._processed is None else self._processed(found)
        numbers = selected(self.metrics, numbers)
        if save is None:
            report(numbers)
            return
        with tempfile.TemporaryDirectory(prefix="daskhpo-checkpoint-") as folder:
            save(str(Path(folder, self.filename)))
            report(numbers, checkpoint=Checkpoint.from_directory(folder))
