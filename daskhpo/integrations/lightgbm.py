"""LightGBM: a unit is some boosting rounds, and the state is the booster."""

from __future__ import annotations

from typing import Any

from daskhpo.core.arguments import check_int
from daskhpo.core.errors import MissingLibrary
from daskhpo.integrations.metrics import MetricNames, check_metrics, selected
from daskhpo.trainable import TrialContext

try:
    import lightgbm
except ModuleNotFoundError as error:
    raise MissingLibrary(f"{error.name} is not installed: pip install daskhpo[lightgbm]") from error


class ReportCallback:
    """Report a booster to its trial every few rounds; the trial may end there.

    Parameters
    ----------
    trial : the second argument of the study's function.
    metrics : names to report, such as ``"valid-l2"`` (data set, hyphen, metric): one, several, or
        ``{reported name: that name}``; None: all.
    rounds_per_unit : boosting rounds of a unit.

    Attributes
    ----------
    num_boost_round : rounds that the trial has still to train, for ``lightgbm.train``.
    init_model : booster to continue from, for ``lightgbm.train``; None: a new trial.

    Examples
    --------
    ::

        def train(config, trial):
            report = ReportCallback(trial, "valid-l2", rounds_per_unit=10)
            lightgbm.train(
                config, data, report.num_boost_round, valid_sets=[valid], valid_names=["valid"],
                init_model=report.init_model, callbacks=[report],
            )
    """

    order = 40  # after those that record and stop early, as LightGBM sorts its callbacks
    before_iteration = False

    def __init__(
        self, trial: TrialContext, metrics: MetricNames = None, rounds_per_unit: int = 10
    ) -> None:
        self._trial, self._metrics = trial, check_metrics(metrics)
        self._per_unit = check_int("rounds_per_unit", rounds_per_unit, at_least=1)
        self.num_boost_round = (trial.max_t - trial.resource) * self._per_unit
        self.init_model = None
        if (state := trial.checkpoint) is not None:
            self.init_model = lightgbm.Booster(model_str=state["model"])
        self._n_rounds = 0

    def __call__(self, env: Any) -> None:
        """Report after each unit's last round."""
        self._n_rounds += 1
        if self._n_rounds % self._per_unit == 0:
            found = {f"{data}-{name}": v for data, name, v, *_ in env.evaluation_result_list}
            self._trial.report(
                selected(self._metrics, found),
                state=lambda: {"model": env.model.model_to_string(num_iteration=-1)},
            )
