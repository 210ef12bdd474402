"""Options of Ray Tune: what each becomes, and what is refused with both names."""

from __future__ import annotations

import importlib
from datetime import timedelta
from pathlib import Path

import optuna
import pytest

from daskhpo import schedulers, searchers, tune
from daskhpo.checkpoints import CheckpointPolicy
from daskhpo.core.errors import InvalidArgument
from daskhpo.space import Real
from daskhpo.tune import schedulers as s
from daskhpo.tune import search, stopper
from daskhpo.tune.plan import plan

SPACE = {"x": tune.uniform(0, 1)}
FRAMEWORKS = {
    "keras": "keras",
    "lightgbm": "lightgbm",
    "xgboost": "xgboost",
    "pytorch_lightning": "lightning",
}


def f(config):
    tune.report({"loss": config["x"]})


class C(tune.Trainable):
    def setup(self, config):
        self.n = 0

    def step(self):
        self.n += 1
        return {"loss": 1 / self.n}

    def save_checkpoint(self, checkpoint_dir):
        return {"n": self.n}

    def load_checkpoint(self, checkpoint):
        self.n = checkpoint["n"]


def planned(trainable=f, config=None, run=None, **given):
    given = {"metric": "loss", "mode": "min"} | given
    run_config = tune.RunConfig(**(run or {}))
    return plan(
        trainable, SPACE if config is None else config, tune.TuneConfig(**given), run_config
    )


@pytest.mark.parametrize(
    ("given", "made"),
    [
        (None, schedulers.FIFO(2**31 - 1)),
        ("asha", schedulers.ASHA(100, 1, 4)),
        (s.ASHAScheduler(max_t=27, grace_period=3, reduction_factor=3.0), schedulers.ASHA(27, 3)),
        (s.HyperBandScheduler(max_t=27), schedulers.Hyperband(27)),
        (s.FIFOScheduler(), schedulers.FIFO(2**31 - 1)),
        (
            s.MedianStoppingRule("training_iteration", grace_period=2),
            schedulers.MedianStopping(schedulers.FIFO(2**31 - 1), 2),
        ),
        (
            s.PopulationBasedTraining(
                "training_iteration", perturbation_interval=4, hyperparam_mutations=SPACE
            ),
            schedulers.PBT(2**31 - 1, 4, {"x": Real(0, 1)}),
        ),
        (
            s.PB2("training_iteration", perturbation_interval=4, hyperparam_bounds={"x": [0.0, 1]}),
            schedulers.PB2(2**31 - 1, 4, {"x": Real(0.0, 1)}),
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_schedulers(given, made):
    study = planned(scheduler=given, num_samples=4).study
    assert repr(study.problem.scheduler) == repr(made)


def test_a_stop_at_an_iteration_is_the_end_of_a_trial():
    stops = {"stop": {"training_iteration": 7, "loss": 3}}
    made = planned(run=stops).study
    assert made.problem.scheduler.max_t == 7
    assert made.trainable._rules.reached == {"loss": 3}
    made = planned(run=stops, scheduler=s.ASHAScheduler(max_t=20)).study
    assert made.problem.scheduler.max_t == 20
    assert made.trainable._rules.reached == {"loss": 3, "training_iteration": 7}


@pytest.mark.parametrize(
    ("given", "made"),
    [
        (None, searchers.RandomSearch()),
        ("optuna", searchers.OptunaSearch()),
        (search.HyperOptSearch(), searchers.HyperOptSearch()),
        (
            search.OptunaSearch(points_to_evaluate=[{"x": 0.5}]),
            searchers.OptunaSearch(points_to_evaluate=[{"x": 0.5}]),
        ),
        (
            search.BayesOptSearch(
                random_search_steps=4, utility_kwargs={"kind": "ei", "xi": 0.1}, random_state=3
            ),
            searchers.GPSearch(acq="EI", n_initial_points=4, kappa=2.576, xi=0.1),
        ),
        (search.HyperOptSearch(n_initial_points=7), searchers.HyperOptSearch(7)),
        (
            search.OptunaSearch(sampler=optuna.samplers.TPESampler(seed=1)),
            searchers.OptunaSearch("tpe"),
        ),
        (searchers.GPSearch(), searchers.GPSearch()),
        (
            search.Repeater(search.ConcurrencyLimiter(search.SkOptSearch(), 3), repeat=2),
            searchers.Repeater(searchers.SkoptSearch(), 2),
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_searchers(given, made):
    assert repr(planned(search_alg=given).study.problem.searcher) == repr(made)


def test_limits_budgets_and_failures():
    limited = search.ConcurrencyLimiter(search.OptunaSearch(seed=3), max_concurrent=2)
    p = planned(
        search_alg=limited,
        num_samples=5,
        time_budget_s=timedelta(minutes=2),
        run={
            "failure_config": tune.FailureConfig(max_failures=-1, fail_fast="raise"),
            "stop": [stopper.TimeoutStopper(60), stopper.MaximumIterationStopper(4)],
        },
    )
    assert p.keywords["max_concurrent"] == 2
    assert p.keywords["num_trials"] == 5
    assert p.keywords["time_budget"] == 60
    assert p.keywords["max_failures"] > 1000
    assert p.keywords["fail_fast"]
    assert p.study.problem.seed == 3
    assert p.study.problem.scheduler.max_t == 4


@pytest.mark.parametrize(
    ("trainable", "config", "policy"),
    [
        (f, {}, CheckpointPolicy("end")),
        (C, {}, CheckpointPolicy("auto")),
        (C, {"checkpoint_at_end": True}, CheckpointPolicy("end")),
        (C, {"checkpoint_frequency": 3}, CheckpointPolicy("every", 3, keep_best=2**31 - 1)),
    ],
)
def test_checkpoint_policies(trainable, config, policy):
    run = {"checkpoint_config": tune.CheckpointConfig(**config)}
    assert planned(trainable, run=run).keywords["checkpoint"] == policy


def test_resources():
    needs = tune.with_resources(f, {"cpu": 2, "gpu": 0.5})
    assert planned(needs).keywords["resources"] == {"cpu": 2, "gpu": 0.5}
    group = tune.PlacementGroupFactory([{"CPU": 1, "GPU": 1}])
    assert planned(tune.with_resources(C, group)).keywords["resources"] == {"cpu": 1, "gpu": 1}
    half = planned(tune.with_resources(f, lambda config: {"cpu": 0.5}))
    assert half.keywords["resources"] == {"cpu": 1}


def test_grids():
    config = {"a": tune.grid_search([1, 2]), "x": tune.uniform(0, 1)}
    p = planned(config=config, num_samples=3)
    assert repr(p.study.problem.searcher) == "GridSearch(num_points=5, sampled=['x'], repeats=3)"
    assert p.keywords["num_trials"] is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: s.ASHAScheduler(time_attr="time_total_s"), r"time_attr='time_total_s'.*time_budg"),
        (lambda: s.ASHAScheduler(reduction_factor=2.5), "whole number"),
        (lambda: s.ASHAScheduler(stop_last_trials=False), "stop_last_trials=False.*max_t"),
        (lambda: s.MedianStoppingRule(hard_stop=False), "hard_stop"),
        (lambda: s.HyperBandForBOHB(), "HyperBandForBOHB.*ASHAScheduler"),
        (
            lambda: s.PopulationBasedTraining(
                hyperparam_mutations=SPACE, custom_explore_fn=lambda c: c
            ),
            "custom_explore_fn.*daskhpo",
        ),
        (
            lambda: s.PopulationBasedTraining(hyperparam_mutations=SPACE, burn_in_period=3),
            "burn_in_period.*perturbation_interval",
        ),
        (
            lambda: s.PopulationBasedTraining(
                hyperparam_mutations=SPACE, perturbation_factors=(1.5, 0.5)
            ),
            "perturbation_factors.*1.2 or 0.8",
        ),
        (lambda: s.PopulationBasedTrainingReplay("pbt_policy_1.txt"), "Result.schedule"),
        (lambda: search.NevergradSearch(), "NevergradSearch.*OptunaSearch"),
        (lambda: search.OptunaSearch(sampler=object()), r"OptunaSearch\(sampler=.*TPESampler"),
        (lambda: search.SkOptSearch(optimizer=3), r"SkOptSearch\(optimizer=.*SkoptSearch"),
        (lambda: search.OptunaSearch(metric=["a", "b"], mode=["min", "max"]), "one metric"),
        (lambda: search.ConcurrencyLimiter(search.OptunaSearch(), 2, batch=True), "batch"),
        (lambda: tune.PlacementGroupFactory([{"CPU": 1}, {"CPU": 1}]), "2 bundles.*launch"),
        (lambda: search.AxSearch(parameter_constraints=["x <= y"]), "parameter_constraints.*Ax"),
        (lambda: search.AxSearch(outcome_constraints=["l <= 1"]), "outcome_constraints.*Ax"),
        (lambda: search.AxSearch(ax_client=object()), "ax_client.*Ax"),
        (lambda: tune.run(f, restore="x"), "restore=.*branch"),
        (lambda: tune.run(f, config=SPACE, colour="red"), "no colour="),
        (lambda: tune.run("nobody"), "register_trainable"),
        (lambda: tune.run(lambda: 0), "must take config"),
        (lambda: tune.run(f, config=SPACE, scheduler=schedulers.FIFO(3)), "daskhpo.Study"),
        (
            lambda: tune.run(tune.Experiment("e", f, config=SPACE), scheduler=schedulers.FIFO(3)),
            "daskhpo.Study",
        ),
        (lambda: tune.run(tune.Experiment("e", f, config=SPACE), colour="red"), "no colour="),
        (lambda: planned(scheduler="asha", metric=None), "metric= is not given"),
        (lambda: planned(search_alg=search.OptunaSearch(metric="acc")), "given twice.*'acc'"),
        (
            lambda: planned(config={"a": tune.grid_search([1, 2])}, search_alg="optuna"),
            "grid_search.*choice",
        ),
        (lambda: planned(num_samples=-1), "num_samples=-1"),
        (lambda: planned(run={"storage_path": "s3://bucket/x"}), "URL"),
        (lambda: planned(run={"stop": 3}), "stop=3"),
        (lambda: tune.get_context(), "outside a trial"),
        (
            lambda: plan(f, SPACE, tune.TuneConfig(), tune.RunConfig(), resources={"extra_gpu": 1}),
            "extra_gpu",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_with_both_names(make, message):
    with pytest.raises((ValueError, RuntimeError), match=message):
        make()


class OwnSearcher(search.Searcher):
    def suggest(self, trial_id):
        return {"width": 1}


class OwnScheduler(s.FIFOScheduler):
    def on_trial_result(self, runner, trial, result):
        return "STOP"


# Each line: a version of Ray Tune, a module, and the public names that it defines.
NAMES = [
    line.split() for line in Path(__file__).with_name("ray_names.txt").read_text().splitlines()
]


@pytest.mark.parametrize(
    ("module", "names"), [pytest.param(m, n, id=f"{v}-{m}") for v, m, *n in NAMES]
)
def test_every_public_name_of_ray_tune_is_there(module, names):
    if (framework := module.rpartition(".")[2]) in FRAMEWORKS:
        pytest.importorskip(FRAMEWORKS[framework])
    found = importlib.import_module("daskhpo.tune" + f".{module}" * (module != "tune"))
    assert not [name for name in names if not hasattr(found, name)]


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("train", "Checkpoint report get_checkpoint get_context RunConfig CheckpointConfig"),
        ("air", "session RunConfig"),
        ("air.session", "report get_checkpoint get_trial_id get_experiment_name get_world_rank"),
        ("ray", "init shutdown put get tune train air"),
        ("suggest.hyperopt", "HyperOptSearch"),
        ("integration.mlflow", "mlflow_mixin"),
        ("result", "SHOULD_CHECKPOINT TRAINING_ITERATION TIME_TOTAL_S DONE MEAN_ACCURACY"),
    ],
)
def test_further_modules_are_there(module, names):
    found = importlib.import_module(f"daskhpo.tune.{module}")
    assert not [name for name in names.split() if not hasattr(found, name)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: search.NevergradSearch(), "NevergradSearch of Ray Tune.*OptunaSearch"),
        (lambda: tune.register_env("e", f), "register_env of Ray Tune.*RLlib"),
        (lambda: type("Mine", (s.ResourceChangingScheduler,), {}), "Resource.*fixed"),
        (
            lambda: importlib.import_module("daskhpo.tune.integration.torch").Creator(f),
            "integration.torch.Creator of Ray Tune.*daskhpo.distributed",
        ),
        (
            lambda: importlib.import_module("daskhpo.tune.train.torch").TorchTrainer(f),
            "train.torch.TorchTrainer of Ray Tune.*get_context",
        ),
        (lambda: planned(search_alg=OwnSearcher(metric="loss", mode="min")), "searcher of your"),
        (lambda: planned(scheduler=OwnScheduler()), "on_trial_result of OwnScheduler"),
        (lambda: tune.Analysis("runs/x"), "Analysis of Ray Tune.*load_study"),
        (lambda: search.create_searcher("bohb"), "TuneBOHB of Ray Tune"),
        (lambda: s.create_scheduler("hb_bohb"), "HyperBandForBOHB of Ray Tune"),
    ],
)
def test_a_name_without_a_meaning_says_what_to_use(make, message):
    with pytest.raises(InvalidArgument, match=message):
        make()


@pytest.mark.parametrize(
    "name",
    [
        *("TuneBOHB", "HEBOSearch", "NevergradSearch", "ZOOptSearch", "BlendSearch", "CFO"),
        *("DragonflySearch", "SigOptSearch"),
    ],
)
def test_a_searcher_that_is_not_there_names_another_one(name):
    with pytest.raises(InvalidArgument, match=f"^{name} of Ray Tune.*Search"):
        getattr(search, name)(metric="loss", mode="min")


def test_every_public_name_is_there():
    assert not [name for name in tune.__all__ if not hasattr(tune, name)]


def test_stoppers():
    plateau = stopper.TrialPlateauStopper("loss", std=0.01, num_results=3, grace_period=4)
    values = [3, 2, 1.5, 1, 1, 1, 1]
    said = [plateau("0", {"loss": value}) for value in values]
    assert said == [False] * 5 + [True] * 2
    whole = stopper.ExperimentPlateauStopper("loss", std=0.01, top=2, mode="max", patience=1)
    for value in (1, 2, 3, 3, 2):
        whole("0", {"loss": value})
    assert whole.stop_all()
