"""Functions in Ray Tune's words whose trials train in several processes."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from pathlib import Path

import cloudpickle
import pytest

from daskhpo import tune
from daskhpo.distributed import launch
from daskhpo.tune import train
from daskhpo.tune.air import session
from daskhpo.tune.schedulers import HyperBandScheduler

pytestmark = pytest.mark.cluster

cloudpickle.register_pickle_by_value(sys.modules[__name__])


def each_rank(config, trial):
    """Reports in Ray's words; it writes a checkpoint every other unit."""
    context = train.get_context()
    ranks = (context.get_world_size(), context.get_world_rank(), context.get_local_rank())
    assert (
        ranks
        == (trial.world_size, trial.rank, trial.local_rank)
        == (2, session.get_world_rank(), trial.rank)
    )
    assert (session.get_local_world_size(), session.get_node_rank()) == (2, 0)
    assert context.get_trial_id() == f"{trial.id:05d}"
    start = 1
    checkpoint = train.get_checkpoint()
    if checkpoint:
        with checkpoint.as_directory() as folder:
            start = json.loads(Path(folder, "step.json").read_text())["step"] + 1
    for step in range(start, 10):
        if step == 6 and trial.rank and config["kill"] and not os.path.exists(config["kill"]):
            Path(config["kill"]).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        metrics = {"loss": config["model"]["x"] / step + trial.rank, "step": step}
        if step % 2:
            train.report(metrics)
            continue
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "step.json").write_text(json.dumps({"step": step}))
            train.report(metrics, checkpoint=train.Checkpoint.from_directory(folder))


def in_ranks(config):
    assert train.get_context().get_world_size() == 1
    launch(each_rank, train.get_context().trial, n_processes=2)


def in_ranks_of_daskhpo(config):
    """The ranks report in daskhpo's words."""

    def rank(config, trial):
        total = 0 if trial.checkpoint is None else trial.checkpoint["total"]
        assert total == trial.resource
        for step in range(trial.resource + 1, 10):
            total += 1
            trial.report(
                {"loss": config["model"]["x"] / step, "step": step},
                state=lambda total=total: {"total": total},
            )

    launch(rank, train.get_context().trial, n_processes=2)


@pytest.mark.parametrize("trainable", [in_ranks, in_ranks_of_daskhpo])
def test_ranks_report_pause_and_continue(tmp_path, cluster, trainable):
    marker = tmp_path / "killed"
    results = tune.Tuner(
        trainable,
        param_space={"model": {"x": tune.uniform(1, 2)}, "kill": str(marker)},
        tune_config=tune.TuneConfig(
            metric="loss", mode="min", num_samples=5, scheduler=HyperBandScheduler(max_t=9)
        ),
        run_config=tune.RunConfig(
            name="ranks",
            storage_path=str(tmp_path),
            failure_config=tune.FailureConfig(max_failures=2),
            verbose=0,
        ),
        client=cluster,
    ).fit()
    assert not results.errors
    assert marker.exists() == (trainable is in_ranks)
    history = results.study.history()
    assert not history.duplicated(["trial", "resource"]).any()
    for row in history.itertuples():
        assert row.loss == results[row.trial].config["model"]["x"] / row.resource
        assert row.step == row.resource
    assert max(results.study.trial(n).attempt for n in range(5)) > 1
    assert results.get_best_result().metrics["training_iteration"] == 9


def test_a_stop_rule_ends_all_ranks(tmp_path, cluster):
    results = tune.Tuner(
        in_ranks,
        param_space={"model": {"x": 1.0}, "kill": ""},
        tune_config=tune.TuneConfig(metric="loss", mode="min"),
        run_config=tune.RunConfig(storage_path=str(tmp_path), stop={"step": 3}, verbose=0),
        client=cluster,
    ).fit()
    assert not results.errors
    assert results[0].metrics["training_iteration"] == 3
