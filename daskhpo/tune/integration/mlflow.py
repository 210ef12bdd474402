"""`ray.tune.integration.mlflow`: runs of MLflow, by a study or by a trial's code."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

from daskhpo.core.libraries import need
from daskhpo.tune.logger import MLflowLoggerCallback
from daskhpo.tune.names import flat
from daskhpo.tune.session import session_or_none

__all__ = ["MLflowLoggerCallback", "mlflow_mixin", "setup_mlflow"]


def setup_mlflow(
    config: Mapping[str, Any] | None = None,
    tracking_uri: str | None = None,
    registry_uri: str | None = None,
    experiment_id: str | None = None,
    experiment_name: str | None = None,
    tracking_token: str | None = None,
    artifact_location: str | None = None,
    run_name: str | None = None,
    create_experiment_if_not_exists: bool = False,
    tags: Mapping[str, Any] | None = None,
    rank_zero_only: bool = True,
) -> Any:
    """Begin a run of MLflow that ends with the running trial; return the module.

    Parameters
    ----------
    config : the trial's, which become the run's parameters; its ``"mlflow"``, if it has that, are
        arguments of this function.
    experiment_id : the experiment; it comes before its name.
    experiment_name : by default the study's name.
    create_experiment_if_not_exists : without it, an experiment that is named must exist.
    rank_zero_only : without effect: a trial is one process.

    A trial that continues elsewhere begins another run of the same name.

    Raises
    ------
    MissingLibrary : MLflow is not installed.
    ValueError : there is no such experiment.
    """
    need("mlflow", "mlflow")
    import mlflow

    config = dict(config or {})
    if own := config.pop("mlflow", None):
        return setup_mlflow(config, **own)
    session = session_or_none()
    name = "trial" if session is None else session.name
    if tracking_token is not None:
        os.environ["MLFLOW_TRACKING_TOKEN"] = tracking_token
    mlflow.set_tracking_uri(tracking_uri)
    mlflow.set_registry_uri(registry_uri)
    if experiment_id is None and experiment_name is not None:
        is_there = mlflow.get_experiment_by_name(experiment_name) is not None
        if not is_there and not create_experiment_if_not_exists:
            raise ValueError(
                f"setup_mlflow: there is no experiment {experiment_name!r}; give "
                "create_experiment_if_not_exists=True to make it"
            )
        if not is_there and artifact_location is not None:
            experiment_id = mlflow.create_experiment(experiment_name, artifact_location)
    if experiment_id is None:
        experiment_name = experiment_name or name.rpartition("-")[0] or "daskhpo"
        experiment_id = mlflow.set_experiment(experiment_name).experiment_id
    mlflow.start_run(experiment_id=experiment_id, run_name=run_name or name, tags=tags)
    if session is not None:
        session.at_end.append(mlflow.end_run)
    mlflow.log_params(dict(flat(config)))
    return mlflow


def mlflow_mixin(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function with a run of MLflow; ``config["mlflow"]`` has its options."""

    @functools.wraps(function)
    def with_run(config: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        setup_mlflow(config)
        return function(config, *args, **kwargs)

    return with_run
