"""XGBoost: a unit is some boosting rounds, and the state is the booster."""

from __future__ import annotations

from typing import Any

from daskhpo.core.arguments import check_int
from daskhpo.core.errors import MissingLibrary
from daskhpo.integrations.metrics import MetricNames, check_metrics, selected
from daskhpo.trainable import TrialContext

try:
    import xgboost
except ModuleNotFoundError as error:
    raise MissingLibrary(f"{error.name} is not installed: pip install daskhpo[xgboost]") from error


class ReportCallback(xgboost.callback.TrainingCallback):  # type: ignore[misc]
    """Report a booster to its trial every few rounds; the trial may end there.

    Parameters
    ----------
    trial : the second argument of the study's function.
    metrics : names to report, such as ``"validation-rmse"``: one, several, or ``{reported name:
        XGBoost's}``; None: all of ``evals``.
    rounds_per_unit : boosting rounds of a unit.

    Attributes
    ----------
    num_boost_round : rounds that the trial has still to train, for ``xgboost.train``.
    xgb_model : booster to continue from, for ``xgboost.train``; None: a new trial.

    Examples
    --------
    ::

        def train(config, trial):
            report = ReportCallback(trial, "validation-rmse", rounds_per_unit=10)
            xgboost.train(
                config, dtrain, report.num_boost_round, evals=[(dvalid, "validation")],
                xgb_model=report.xgb_model, callbacks=[report],
            )
    """

    def __init__(
        self, trial: TrialContext, metrics: MetricNames = None, rounds_per_unit: int = 10
    ) -> None:
        super().__init__()
        self._trial, self._metrics = trial, check_metrics(metrics)
        self._per_unit = check_int("rounds_per_unit", rounds_per_unit, at_least=1)
        self.num_boost_round = (trial.max_t - trial.resource) * self._per_unit
        self.xgb_model = None
        if (state := trial.checkpoint) is not None:
            self.xgb_model = xgboost.Booster(model_file=bytearray(state["model"]))
        self._n_rounds = 0

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        """Report after each unit's last round."""
        self._n_rounds += 1
        if self._n_rounds % self._per_unit == 0:
            found = {
                f"{data}-{name}": values[-1]
                for data, of in evals_log.items()
                for name, values in of.items()
            }
            numbers = {n: v[0] if isinstance(v, tuple) else v for n, v in found.items()}
            self._trial.report(
                selected(self._metrics, numbers),
                state=lambda: {"model": bytes(model.save_raw("ubj"))},
            )
        return False
