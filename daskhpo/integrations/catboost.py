"""CatBoost: a unit is some boosting rounds, and the state is the model.

Its callbacks do not see the model, so a unit is a call of ``fit`` that continues the last one.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from daskhpo.core.arguments import check_int
from daskhpo.core.errors import InvalidArgument, MissingLibrary
from daskhpo.integrations.metrics import MetricNames, check_metrics, selected
from daskhpo.trainable import TrialContext

try:
    import catboost  # noqa: F401
except ModuleNotFoundError as error:
    raise MissingLibrary(f"{error.name} is not installed: pip install daskhpo[catboost]") from error


def fit(
    model: Any,
    trial: TrialContext,
    *data: Any,
    metrics: MetricNames = None,
    rounds_per_unit: int = 10,
    **fit_params: Any,
) -> Any:
    """Fit a CatBoost model unit by unit, and report each; the trial may end there.

    Parameters
    ----------
    model : such as ``CatBoostRegressor(learning_rate=0.1, ...)``, not fitted. Its ``iterations``
        are not used. Its learning rate must be given: CatBoost's own choice depends on them.
    trial : the second argument of the study's function.
    *data : the positional arguments of ``model.fit``: a Pool, or ``X, y``.
    metrics : names to report, such as ``"validation-RMSE"`` (data set, hyphen, metric): one,
        several, or ``{reported name: that name}``; None: all.
    rounds_per_unit : boosting rounds of a unit.
    **fit_params : others of the model's own, such as the set for evaluation.

    Returns
    -------
    The fitted model of the trial's last unit.
    """
    chosen = check_metrics(metrics)
    n = check_int("rounds_per_unit", rounds_per_unit, at_least=1)
    params = model.get_params()
    if not {"learning_rate", "eta"} & set(params):
        raise InvalidArgument(
            "the CatBoost model has no learning_rate: give one, because CatBoost's own choice "
            "depends on the number of rounds, of which a trial does not train all at once"
        )
    for name in ("num_boost_round", "n_estimators", "num_trees", "iterations"):
        params.pop(name, None)
    params.setdefault("allow_writing_files", False)  # else all trials write to one folder
    seed = params.pop("random_state", None) or params.pop("random_seed", None) or 0
    state = trial.checkpoint
    unit = None if state is None else _loaded(model, state["model"])
    for number in range(trial.resource, trial.max_t):
        # A model continues otherwise in the memory of its training than when it was loaded, and
        # with one seed each unit would draw the same samples.
        last = None if unit is None else _loaded(model, _bytes(unit))
        unit = type(model)(**params, iterations=n, random_seed=seed + number)
        unit.fit(*data, init_model=last, **fit_params)
        found = {
            f"{data_set}-{name}": values[-1]
            for data_set, of in unit.get_evals_result().items()
            for name, values in of.items()
        }
        trial.report(selected(chosen, found), state=lambda of=unit: {"model": _bytes(of)})  # type: ignore[misc]
    return unit


def _loaded(model: Any, state: bytes) -> Any:
    return type(model)().load_model(blob=state)


def _bytes(model: Any) -> bytes:
    with tempfile.TemporaryDirectory(prefix="daskhpo-") as folder:
        path = Path(folder, "model.cbm")
        model.save_model(str(path))
        return path.read_bytes()
