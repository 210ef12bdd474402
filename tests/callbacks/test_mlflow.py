"""Runs of MLflow, in its own folder; only where MLflow is installed."""

from __future__ import annotations

import importlib.util

import pytest

from daskhpo.callbacks import MLflowLogger
from daskhpo.core.errors import MissingLibrary
from daskhpo.testing.callback import BEGAN, STORIES, an_info, follow, resumed

IS_INSTALLED = importlib.util.find_spec("mlflow") is not None


@pytest.mark.skipif(IS_INSTALLED, reason="MLflow is installed")
def test_without_mlflow_the_message_says_what_to_install():
    with pytest.raises(MissingLibrary, match=r"pip install 'daskhpo\[mlflow\]'"):
        MLflowLogger()


def runs(info):
    mlflow = pytest.importorskip("mlflow")
    client = mlflow.MlflowClient(tracking_uri=(info.directory / "mlruns").as_uri())
    found = client.get_experiment_by_name(info.name)
    return client, client.search_runs([found.experiment_id])


@pytest.mark.slow
@pytest.mark.skipif(not IS_INSTALLED, reason="MLflow is not installed")
@pytest.mark.parametrize("story", STORIES)
def test_mlflow_reads_a_resumed_study_as_one(tmp_path, story):
    records = [BEGAN, *STORIES[story]]
    after = resumed(records)
    for told in (records, after):
        followers = follow([MLflowLogger()], told, an_info(tmp_path / "s", told))
        followers.end()
        assert followers.callbacks
    client, found = runs(an_info(tmp_path / "s", after))
    (study,) = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
    trials = [run for run in found if run is not study]
    assert {run.data.tags["mlflow.parentRunId"] for run in trials} <= {study.info.run_id}
    numbers = [run.data.tags["daskhpo.trial"] for run in trials]
    assert len(numbers) == len(set(numbers))
    for run in trials:
        assert run.info.status == (
            "FAILED" if run.data.tags["daskhpo.status"] == "failed" else "FINISHED"
        )
        steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "loss")]
        assert (
            sorted(steps) == sorted({*steps}) or story == "a trial takes over another one's state"
        )
        assert run.data.params["optimizer"] == "adam"
