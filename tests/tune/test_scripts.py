"""Scripts in the form of Ray Tune's own examples, of both generations, on real workers.

Each test is one kind of script; docs/how-to/from-ray-tune.md lists them.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
from daskhpo.tune.search.optuna import OptunaSearch
from distributed import LocalCluster

from daskhpo import load_study, tune
from daskhpo.core.errors import StudyFailed
from daskhpo.tune import ray, track, train
from daskhpo.tune.logger import LoggerCallback
from daskhpo.tune.schedulers import (
    PB2,
    ASHAScheduler,
    AsyncHyperBandScheduler,
    HyperBandScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    PopulationBasedTrainingReplay,
)
from daskhpo.tune.search import ConcurrencyLimiter
from daskhpo.tune.utils import validate_save_restore

pytestmark = pytest.mark.cluster

cloudpickle.register_pickle_by_value(sys.modules[__name__])


def loss_at(step, width, height):
    return 1 / (0.1 + width * step / 100) + height * 0.1


SPACE = {"width": tune.uniform(1, 20), "height": tune.uniform(-100, 100)}


# -- functions, today ----------------------------------------------------------------------------


def with_files(config):
    """Reports a checkpoint of files every other step, and continues from one."""
    start = 1
    checkpoint = tune.get_checkpoint()
    if checkpoint:
        with checkpoint.as_directory() as folder:
            start = json.loads(Path(folder, "deep", "step.json").read_text())["step"] + 1
    for step in range(start, 28):
        if config.get("kill") and step == 5 and not os.path.exists(config["kill"]):
            Path(config["kill"]).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        metrics = {"loss": loss_at(step, config["width"], config["height"]), "step": step}
        if step % 2:
            tune.report(metrics)
            continue
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "deep").mkdir()
            Path(folder, "deep", "step.json").write_text(json.dumps({"step": step}))
            tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))


def check_losses(results):
    """Every report is that of an undisturbed run, each once."""
    history = results.study.history()
    assert not history.duplicated(["trial", "resource"]).any()
    for row in history.itertuples():
        config = results[row.trial].config
        assert row.loss == loss_at(row.resource, config["width"], config["height"])
        assert row.step == row.resource


def test_tuner_with_asha_and_checkpoints(tmp_path, cluster):
    tuner = tune.Tuner(
        tune.with_resources(with_files, {"cpu": 1}),
        param_space=SPACE,
        tune_config=tune.TuneConfig(
            metric="loss", mode="min", num_samples=8, scheduler=ASHAScheduler(max_t=27)
        ),
        run_config=tune.RunConfig(
            name="asha",
            storage_path=str(tmp_path),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=2),
            verbose=0,
        ),
        client=cluster,
    )
    results = tuner.fit()
    assert len(results) == 8
    assert not results.errors
    check_losses(results)
    best = results.get_best_result()
    assert best.metrics["training_iteration"] == 27
    assert best.metrics["loss"] == min(r.metrics["loss"] for r in results)
    with best.checkpoint.as_directory() as folder:
        assert json.loads(Path(folder, "deep", "step.json").read_text()) == {"step": 26}
    assert len(best.metrics_dataframe) == 27
    frame = results.get_dataframe(filter_metric="loss", filter_mode="min")
    assert {"loss", "config/width", "training_iteration", "trial_id"} <= set(frame.columns)
    with pytest.raises(ValueError, match="scope"):
        results.get_best_result(scope="first")


def test_hyperband_pauses_and_continues_exactly(tmp_path, cluster):
    results = tune.Tuner(
        with_files,
        param_space=SPACE,
        tune_config=tune.TuneConfig(
            metric="loss", mode="min", num_samples=30, scheduler=HyperBandScheduler(max_t=27)
        ),
        run_config=tune.RunConfig(name="hb", storage_path=str(tmp_path), verbose=0),
        client=cluster,
    ).fit()
    check_losses(results)
    assert max(results.study.trial(n).attempt for n in range(30)) > 1


def test_a_killed_worker_and_a_restored_tuner(tmp_path):
    marker = tmp_path / "killed"
    given = {
        "param_space": {**SPACE, "kill": str(marker)},
        "tune_config": tune.TuneConfig(
            metric="loss", mode="min", num_samples=3, scheduler=ASHAScheduler(max_t=27)
        ),
        "run_config": tune.RunConfig(name="killed", storage_path=str(tmp_path), verbose=0),
    }
    with LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0"
    ) as cluster:
        assert not tune.Tuner.can_restore(tmp_path / "killed-study")
        results = tune.Tuner(with_files, **given, client=cluster).fit()
        assert marker.exists()
        check_losses(results)
        assert tune.Tuner.can_restore(results.experiment_path)
        again = tune.Tuner.restore(
            results.experiment_path, trainable=with_files, resume_errored=True, client=cluster
        )
        restored = again.fit()
    assert len(restored) == 3
    check_losses(restored)


def test_everything_that_a_space_may_hold(tmp_path, cluster):
    def objective(config):
        assert config["activation"] in (np.tanh, np.sin)
        assert config["double"] == 2 * config["model"]["width"]
        assert config["data"].shape == (3,)
        return {"score": config["model"]["width"] + config["grid"], "nested": {"a": 1, "s": "x"}}

    results = tune.Tuner(
        tune.with_parameters(objective),
        param_space={
            "model": {"width": tune.qrandint(2, 8, 2), "rate": tune.qloguniform(1e-4, 1e-1, 5e-5)},
            "activation": tune.choice([np.tanh, np.sin]),
            "noise": tune.randn(0, 1),
            "double": tune.sample_from(lambda spec: 2 * spec.config["model"]["width"]),
            "data": np.zeros(3),
            "grid": tune.grid_search([0, 10]),
        },
        tune_config=tune.TuneConfig(metric="score", mode="max", num_samples=3),
        run_config=tune.RunConfig(name="space", storage_path=str(tmp_path), verbose=0),
        client=cluster,
    ).fit()
    assert not results.errors
    assert [r.config["grid"] for r in results] == [0, 10] * 3
    best = results.get_best_result()
    assert best.config["activation"] in (np.tanh, np.sin)
    assert best.metrics["nested/a"] == 1
    assert best.metrics["score"] == best.config["model"]["width"] + best.config["grid"]


def test_failures_and_stoppers(tmp_path, cluster):
    class UntilGood(tune.Stopper):
        def __init__(self):
            self.good = False

        def __call__(self, trial_id, result):
            self.good = self.good or result["acc"] > 0.95
            return self.good or result["training_iteration"] >= 40

        def stop_all(self):
            return self.good

    def learns(config):
        for n in range(1000):
            if config["bad"] and n == 3:
                raise RuntimeError("deliberately")
            tune.report({"acc": 1 - 1 / (n + 1)})

    results = tune.Tuner(
        learns,
        param_space={"bad": tune.grid_search([True, False, False])},
        tune_config=tune.TuneConfig(metric="acc", mode="max", num_samples=2000),
        run_config=tune.RunConfig(
            name="stop",
            storage_path=str(tmp_path),
            stop=UntilGood(),
            failure_config=train.FailureConfig(max_failures=0),
            verbose=0,
        ),
        client=cluster,
    ).fit()
    assert "deliberately" in str(results.errors[0])
    assert (
        results.num_errors + results.num_terminated <= len(results) < 6000
    )  # a callback sees reports a little later
    assert results.get_best_result().metrics["training_iteration"] == 21
    with pytest.raises(tune.TuneError, match="deliberately"):
        tune.run(learns, config={"bad": True}, local_dir=str(tmp_path), client=cluster, verbose=0)


def test_a_searcher_with_a_limit_and_callbacks(tmp_path, cluster):
    heard = []

    class Listens(LoggerCallback):
        def log_trial_result(self, iteration, trial, result):
            heard.append((trial.trial_id, result["training_iteration"], result["loss"]))

        def log_trial_end(self, trial, failed=False):
            heard.append((trial.trial_id, failed, trial.status, len(trial.config)))

    def easy(config):
        for step in range(3):
            tune.report({"loss": loss_at(step, config["width"], config["height"])})

    results = tune.Tuner(
        easy,
        param_space=SPACE,
        tune_config=tune.TuneConfig(
            metric="loss",
            mode="min",
            search_alg=ConcurrencyLimiter(OptunaSearch(), max_concurrent=1),
            scheduler=AsyncHyperBandScheduler(),
            num_samples=4,
        ),
        run_config=tune.RunConfig(
            name="search", storage_path=str(tmp_path), callbacks=[Listens()], verbose=0
        ),
        client=cluster,
    ).fit()
    assert results.num_terminated == 4
    ended = [row[1:] for row in heard if len(row) == 4]
    assert ended == [(False, "TERMINATED", len(SPACE))] * 4
    assert {row[1] for row in heard if len(row) == 3} == {1, 2, 3}


# -- classes -------------------------------------------------------------------------------------


class Sigmoid(tune.Trainable):
    """A class of today; its state is a file."""

    def setup(self, config, data=None):
        self.t = 0
        self.data = data

    def step(self):
        self.t += 1
        value = np.tanh(self.t / self.config["width"]) * self.config["height"]
        return {"reward": value, "t": self.t, "is_data": self.data is not None}

    def save_checkpoint(self, checkpoint_dir):
        path = os.path.join(checkpoint_dir, "checkpoint")
        with open(path, "w") as file:
            file.write(json.dumps({"t": self.t}))
        return path

    def load_checkpoint(self, checkpoint):
        with open(checkpoint) as file:
            self.t = json.loads(file.read())["t"]

    def reset_config(self, new_config):
        self.t = 0
        return True


class Sigmoid2020(tune.Trainable):
    """The same with the names of 2020."""

    def _setup(self, config):
        self.t = 0

    def _train(self):
        self.t += 1
        value = np.tanh(self.t / self.config["width"]) * self.config["height"]
        return {"reward": value, "t": self.t, "done": self.t == 20}

    def _save(self, checkpoint_dir):
        return {"t": self.t}

    def _restore(self, checkpoint):
        self.t = checkpoint["t"]


@pytest.mark.parametrize("trainable", [Sigmoid, Sigmoid2020])
def test_classes_of_both_generations(tmp_path, cluster, trainable):
    analysis = tune.run(
        trainable,
        name="class",
        local_dir=str(tmp_path),
        scheduler=HyperBandScheduler(metric="reward", mode="max", max_t=27),
        stop={"training_iteration": 24},
        num_samples=30,
        config={
            "width": tune.sample_from(lambda spec: 10 + int(90 * random.random())),
            "height": tune.sample_from(lambda spec: int(100 * random.random()) + 1),
        },
        checkpoint_at_end=True,
        reuse_actors=trainable is Sigmoid,
        fail_fast=True,
        verbose=0,
        sync_on_checkpoint=False,
        client=cluster,
    )
    history = analysis._result.history()
    assert (history["t"] == history["resource"]).all()
    for row in history.itertuples():
        config = analysis.trials[row.trial].config
        assert row.reward == np.tanh(row.t / config["width"]) * config["height"]
    last = 20 if trainable is Sigmoid2020 else 24
    assert analysis.best_result["training_iteration"] == last
    assert analysis.best_config == analysis.best_trial.config
    restored = trainable(analysis.best_config)
    restored.restore(analysis.best_checkpoint)
    assert restored.t == last
    assert restored.train()["t"] == last + 1
    assert validate_save_restore(trainable, analysis.best_config)


def test_large_objects_come_with_parameters(tmp_path, cluster):
    analysis = tune.run(
        tune.with_parameters(Sigmoid, data=np.zeros(1000)),
        config={"width": 10, "height": tune.grid_search([1, 2])},
        stop={"training_iteration": 2},
        storage_path=str(tmp_path),
        client=cluster,
        verbose=0,
    )
    assert [trial.last_result["is_data"] for trial in analysis.trials] == [1, 1]
    assert analysis.get_best_config("reward", "max")["height"] == 2
    assert analysis.dataframe(metric="reward", mode="max")["config/height"].tolist() == [1, 2]
    with pytest.raises(ValueError, match="metric="):
        _ = analysis.best_config


# -- populations ---------------------------------------------------------------------------------


def population(config):
    """A function whose best rate changes while it trains."""
    score, start = 0.0, 0
    checkpoint = train.get_checkpoint()
    if checkpoint:
        state = checkpoint.to_dict()
        score, start = state["score"], state["step"]
    for step in range(start + 1, 31):
        score += 1 - abs(config["lr"] - 0.01 * step) - 0.01 * (config["factor"] - 1)
        train.report(
            {"score": score, "lr": config["lr"]},
            checkpoint=train.Checkpoint.from_dict({"score": score, "step": step}),
        )


@pytest.mark.parametrize("kind", ["pbt", "pb2"])
def test_populations_mutate_constants(tmp_path, cluster, kind):
    if kind == "pbt":
        scheduler = PopulationBasedTraining(
            time_attr="training_iteration",
            perturbation_interval=4,
            hyperparam_mutations={"lr": lambda: random.uniform(1e-4, 0.5), "factor": [1, 2]},
        )
    else:
        scheduler = PB2(perturbation_interval=4, hyperparam_bounds={"lr": [1e-4, 0.5]})
    ray.init(num_cpus=2)
    results = tune.Tuner(
        population,
        param_space={"lr": 0.001, "factor": 1},
        tune_config=tune.TuneConfig(metric="score", mode="max", num_samples=4, scheduler=scheduler),
        run_config=train.RunConfig(
            name=kind, storage_path=str(tmp_path), stop={"training_iteration": 30}, verbose=0
        ),
        client=cluster,
    ).fit()
    ray.shutdown()
    assert not results.errors
    history = results.study.history()
    assert set(history[history["resource"] <= 4]["lr"]) == {0.001}
    assert history["lr"].nunique() > 1
    schedule = results.study.schedule()
    schedule.save(tmp_path / "schedule.json")
    again = tune.Tuner(
        population,
        param_space={"factor": 1},
        tune_config=tune.TuneConfig(
            metric="score",
            mode="max",
            scheduler=PopulationBasedTrainingReplay(str(tmp_path / "schedule.json")),
        ),
        run_config=train.RunConfig(name="replay", storage_path=str(tmp_path), verbose=0),
        client=cluster,
    ).fit()
    assert again.get_best_result().metrics["training_iteration"] == 30


# -- functions of 2020 ---------------------------------------------------------------------------


def with_checkpoint_dir(config, checkpoint_dir=None):
    start = 0
    if checkpoint_dir:
        with open(os.path.join(checkpoint_dir, "checkpoint")) as file:
            start = json.loads(file.read())["step"]
    for step in range(start + 1, 10):
        with tune.checkpoint_dir(step=step) as folder:
            Path(folder, "checkpoint").write_text(json.dumps({"step": step}))
        tune.report(mean_loss=loss_at(step, config["width"], config["height"]), step=step)


def with_reporter(config, reporter):
    for step in range(1, 10):
        reporter(mean_loss=loss_at(step, config["width"], config["height"]), step=step)


def with_track(config):
    for step in range(1, 10):
        track.log(mean_loss=loss_at(step, config["width"], config["height"]), step=step)


def with_yield(config):
    for step in range(1, 10):
        yield {"mean_loss": loss_at(step, config["width"], config["height"]), "step": step}


@pytest.mark.parametrize("trainable", [with_checkpoint_dir, with_reporter, with_track, with_yield])
def test_functions_of_2020(tmp_path, cluster, trainable):
    tune.register_trainable("my_function", trainable)
    analysis = tune.run(
        "my_function",
        name="function",
        metric="mean_loss",
        mode="min",
        scheduler=HyperBandScheduler(max_t=9),
        num_samples=9,
        config={**SPACE, "list": [1, 2]},
        resources_per_trial={"cpu": 1, "gpu": 0},
        local_dir=str(tmp_path),
        keep_checkpoints_num=1,
        checkpoint_score_attr="mean_loss",
        progress_reporter=tune.CLIReporter(metric_columns=["mean_loss"]),
        verbose=0,
        client=cluster,
    )
    history = analysis._result.history()
    assert (history["step"] == history["resource"]).all()
    assert not history.duplicated(["trial", "resource"]).any()
    assert analysis.best_config["list"] == [1, 2]
    assert analysis.get_best_trial("mean_loss", "min", "all").trial_id
    if trainable is with_checkpoint_dir:
        path = os.path.join(analysis.best_checkpoint, "checkpoint")
        assert json.loads(Path(path).read_text())["step"] == 9


def test_experiments_in_dicts_and_the_median_rule(tmp_path, cluster):
    rule = MedianStoppingRule(reward_attr="neg_loss", grace_period=2, min_samples_required=2)
    trials = tune.run_experiments(
        {
            "median": {
                "run": lambda config, reporter: (
                    [reporter(neg_loss=-config["x"]) for n in range(1, 10)] and None
                ),
                "num_samples": 6,
                "trial_resources": {"cpu": 1},
                "stop": {"training_iteration": 8},
                "config": {"x": tune.grid_search([1, 2, 3])},
                "local_dir": str(tmp_path),
            }
        },
        scheduler=rule,
        client=cluster,
        verbose=0,
    )
    assert len(trials) == 18
    assert {trial.last_result["training_iteration"] for trial in trials} > {8}
    resumed = tune.run(
        with_reporter,
        name="median",
        resume="AUTO",
        local_dir=str(tmp_path / "new"),
        config=SPACE,
        metric="mean_loss",
        mode="min",
        client=cluster,
        verbose=0,
    )
    assert len(resumed.trials) == 1
    assert load_study(tmp_path / "new" / "median").num_trials == 1


def test_a_time_attribute_that_does_not_count_reports_is_refused(tmp_path, cluster):
    def counts(config):
        for n in range(9):
            tune.report({"loss": 1.0, "epoch": n * config["by"]})

    def fit(by):
        return tune.Tuner(
            counts,
            param_space={"by": by},
            tune_config=tune.TuneConfig(
                metric="loss", mode="min", scheduler=ASHAScheduler(time_attr="epoch", max_t=9)
            ),
            run_config=tune.RunConfig(storage_path=str(tmp_path), verbose=0),
            client=cluster,
        ).fit()

    assert fit(1).num_terminated == 1
    with pytest.raises(StudyFailed, match="time_attr='epoch' must count the reports"):
        fit(2)
