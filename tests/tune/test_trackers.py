"""Runs of W&B and MLflow that a trial's code begins; loggers of 2020, one for each trial."""

from __future__ import annotations

import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import cloudpickle
import pytest

from daskhpo import tune
from daskhpo.core.errors import MissingLibrary
from daskhpo.tune.integration.mlflow import mlflow_mixin, setup_mlflow
from daskhpo.tune.integration.wandb import WandbTrainableMixin, setup_wandb, wandb_mixin
from daskhpo.tune.logger import Logger, MLFlowLogger, NoopLogger, pretty_print
from daskhpo.tune.space import ParamSpace
from daskhpo.tune.stopper import Rules
from daskhpo.tune.trainable import trial_of

cloudpickle.register_pickle_by_value(sys.modules[__name__])


def train(trainable, config):
    """Run a trial of one function or class here; return what it reported."""
    reports = []

    def report(metrics, state=None):
        reports.append(metrics)
        trial.resource += 1

    trial = SimpleNamespace(
        id=3, seed=0, resource=0, checkpoint=None, devices=("cpu",), report=report
    )
    made = trial_of(trainable, ParamSpace.of(config), Rules("loss", experiment="net"), reuse=False)
    config = ParamSpace.of(config).space
    if not isinstance(made, type):
        made(config, trial)
        return reports
    built = made.__new__(made)
    built.trial = trial
    built.setup(config)
    reports.append(built.step())
    built.cleanup()
    return reports


def library(monkeypatch, name):
    """Put a module of this name in its place, which writes down the calls of its functions."""
    calls = []
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)

    def called(function):
        def call(*args, **kwargs):
            calls.append((function, args, kwargs))
            return SimpleNamespace(
                finish=lambda: calls.append(("finish", (), {})), experiment_id="7"
            )

        return call

    module.__getattr__ = called
    monkeypatch.setitem(sys.modules, name, module)
    return calls


def test_a_function_has_a_run_of_wandb_until_its_end(monkeypatch):
    calls = library(monkeypatch, "wandb")
    monkeypatch.setenv("WANDB_API_KEY", "before")

    def function(config):
        run = setup_wandb(config, project="p", api_key="k")
        assert calls[-1][0] == "init"
        tune.report({"loss": 1.0})
        assert run.finish

    assert train(function, {"lr": 0.5, "wandb": {"tags": ["a"]}}) == [{"loss": 1.0}]
    began, *ended = calls
    assert began[2] == {
        **{"id": "net-00003", "name": "net-00003", "group": "net", "resume": "allow"},
        **{"config": {"lr": 0.5}, "project": "p", "tags": ["a"]},
    }
    assert [name for name, _, _ in ended] == ["finish", "teardown"]


def test_wrapped_functions_and_classes_have_runs_of_wandb(monkeypatch):
    calls = library(monkeypatch, "wandb")

    @wandb_mixin
    def function(config):
        tune.report({"loss": 1.0})

    class Net(tune.Trainable):
        def step(self):
            assert not isinstance(self, WandbTrainableMixin) or self.wandb is not None
            return {"loss": 2.0}

    train(function, {"wandb": {"project": "p"}})
    assert train(wandb_mixin(Net), {"wandb": {"project": "q"}}) == [{"loss": 2.0}]
    began = [kwargs["project"] for name, _, kwargs in calls if name == "init"]
    assert began == ["p", "q"]
    assert [name for name, _, _ in calls].count("finish") == 2


def test_a_function_has_a_run_of_mlflow_until_its_end(monkeypatch):
    calls = library(monkeypatch, "mlflow")

    def function(config):
        mlflow = setup_mlflow(config, tracking_uri="file:/x", tags={"a": 1})
        mlflow.log_metric("loss", 1.0)
        tune.report({"loss": 1.0})

    @mlflow_mixin
    def wrapped(config):
        tune.report({"loss": 1.0})

    train(function, {"model": {"lr": 0.5}})
    assert [call[:2] for call in calls] == [
        ("set_tracking_uri", ("file:/x",)),
        ("set_registry_uri", (None,)),
        ("set_experiment", ("net",)),
        ("start_run", ()),
        ("log_params", ({"model/lr": 0.5},)),
        ("log_metric", ("loss", 1.0)),
        ("end_run", ()),
    ]
    assert calls[3][2] == {"experiment_id": "7", "run_name": "net-00003", "tags": {"a": 1}}
    calls.clear()
    train(wrapped, {"lr": 1.0, "mlflow": {"experiment_id": "5"}})
    assert ("start_run", (), {"experiment_id": "5", "run_name": "net-00003", "tags": None}) in calls


@pytest.mark.parametrize("setup", [setup_wandb, setup_mlflow])
def test_a_library_that_is_not_there_is_named(monkeypatch, setup):
    for name in ("wandb", "mlflow"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingLibrary, match=r"pip install 'daskhpo\["):
        setup({})


def test_wandb_itself_keeps_the_runs_of_trials_apart(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="W&B is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)

    def function(config):
        setup_wandb(config, project="p").log({"loss": 1.0})
        tune.report({"loss": 1.0})

    train(function, {"lr": 0.1})
    train(function, {"lr": 0.2})
    assert len([*tmp_path.glob("wandb/offline-run-*-net-00003*/*.wandb")]) == 2


def test_mlflow_itself_has_a_run_for_each_trial(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a database needs the larger package

    uri = (tmp_path / "mlruns").as_uri()

    def function(config):
        setup_mlflow(
            config,
            tracking_uri=uri,
            experiment_name="mine",
            create_experiment_if_not_exists=True,
        ).log_metric("loss", 1.0)
        tune.report({"loss": 1.0})

    train(function, {"lr": 0.1})
    train(function, {"lr": 0.2})
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("mine")
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.params["lr"] for run in runs) == ["0.1", "0.2"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    with pytest.raises(ValueError, match="there is no experiment 'other'"):
        setup_mlflow({}, tracking_uri=uri, experiment_name="other")


def function_of_2020(config):
    for step in range(3):
        tune.report(loss=config["model"]["width"] / (step + 1))


@pytest.mark.cluster
def test_loggers_of_2020_are_made_for_each_trial(tmp_path, cluster):
    class Mine(Logger):
        def _init(self):
            self.file = Path(self.logdir, "mine.jsonl").open("w")  # noqa: SIM115
            self.file.write(json.dumps(self.config) + "\n")

        def on_result(self, result):
            row = {n: result[n] for n in ("loss", "training_iteration", "trial_id", "config")}
            self.file.write(json.dumps(row) + "\n")

        def close(self):
            self.file.close()

    config = {"model": {"width": tune.grid_search([1, 2])}}
    tune.run(
        function_of_2020,
        name="loggers",
        config=config,
        loggers=[Mine, NoopLogger],
        storage_path=str(tmp_path),
        client=cluster,
        verbose=0,
    )
    files = sorted((tmp_path / "loggers").glob("trial_*/mine.jsonl"))
    assert len(files) == 2
    for file in files:
        given, *rows = map(json.loads, file.read_text().splitlines())
        assert [row["training_iteration"] for row in rows] == [1, 2, 3]
        assert [row["loss"] for row in rows] == [given["model"]["width"] / n for n in (1, 2, 3)]
        assert all(row["config"] == given for row in rows)
        assert {row["trial_id"] for row in rows} == {file.parent.name.removeprefix("trial_")}


def test_the_logger_of_2020_for_mlflow(monkeypatch):
    calls = library(monkeypatch, "mlflow")
    client = SimpleNamespace(
        create_run=lambda experiment: (
            calls.append(experiment) or SimpleNamespace(info=SimpleNamespace(run_id="r"))
        ),
        log_param=lambda *given: calls.append(given),
        log_metric=lambda *given, step: calls.append((*given, step)),
        set_terminated=calls.append,
    )
    sys.modules["mlflow"].MlflowClient = lambda: client
    logger = MLFlowLogger({"mlflow_experiment_id": 4, "model": {"lr": 1}}, "/tmp")
    logger.on_result({"loss": 0.5, "training_iteration": 2})
    logger.close()
    assert calls == [
        "4",
        ("r", "mlflow_experiment_id", 4),
        ("r", "model/lr", 1),
        ("r", "loss", 0.5, 2),
        "r",
    ]
    assert pretty_print({"b": 1, "a": 2}) == "a: 2\nb: 1\n"
