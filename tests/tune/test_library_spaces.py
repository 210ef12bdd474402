"""Search spaces in other libraries' words, as Ray Tune's searchers take them."""

from __future__ import annotations

import math

import optuna
import pytest
import skopt
from hyperopt import hp

from daskhpo import tune
from daskhpo.space import Categorical, Integer, Ordinal, Real
from daskhpo.tune import search
from daskhpo.tune.plan import plan


def params_of(search_alg, config=None):
    def train(config):
        tune.report({"loss": 0})

    options = tune.TuneConfig(metric="loss", mode="min", search_alg=search_alg)
    return plan(train, config, options, tune.RunConfig()).params


def test_a_space_of_hyperopt_has_its_conditions():
    space = {
        "kind": hp.choice("which", [{"name": "tree", "depth": hp.randint("depth", 2, 9)}, "flat"]),
        "act": hp.choice("act", ["relu", "tanh"]),
        "lr": hp.loguniform("lr", math.log(1e-4), math.log(1e-1)),
        "width": hp.quniform("width", 8, 64, 8),
        "n": hp.uniformint("n", 1, 4),
        "shift": hp.normal("shift", 0, 2),
    }
    params = params_of(search.HyperOptSearch(space), {"steps": 100})
    low, high = params.space["lr"].low, params.space["lr"].high
    assert (low, high) == (pytest.approx(1e-4), pytest.approx(1e-1))
    assert {name: params.space[name] for name in ("which", "act", "depth", "width")} == {
        "which": Categorical([0, 1]),
        "act": Categorical(["relu", "tanh"]),
        "depth": Integer(2, 8),
        "width": Ordinal([float(k) for k in range(8, 65, 8)]),
    }
    raw = {"which": 0, "act": "tanh", "lr": 0.01, "width": 16.0, "n": 2.0, "depth": 3, "shift": 0.5}
    raw["steps"] = 100
    expected = {"act": "tanh", "lr": 0.01, "width": 16.0, "n": 2, "shift": 0.0, "steps": 100}
    tree = {"name": "tree", "depth": 3}
    assert params.config(raw, 0) == {"kind": tree, **expected}
    assert params.config(raw | {"which": 1}, 0) == {"kind": "flat", **expected}


def test_points_for_hyperopt_have_indices_of_choices():
    space = {"act": hp.choice("act", ["relu", "tanh"]), "x": hp.uniform("x", 0, 1)}
    params = params_of(search.HyperOptSearch(space))
    assert params.raw({"act": 1, "x": 0.5}) == {"act": "tanh", "x": 0.5}


def test_a_choice_may_be_the_whole_space_of_hyperopt():
    space = hp.choice("model", [{"c": hp.uniform("c", 0, 1)}, {"k": hp.randint("k", 5)}])
    params = params_of(search.HyperOptSearch(space))
    assert params.config({"model": 1, "c": 0.5, "k": 3}, 0) == {"k": 3}


def suggest(trial):
    if trial.suggest_categorical("act", ["relu", "tanh"]) == "tanh":
        trial.suggest_float("slope", 1, 2)
    trial.suggest_int("n", 1, 3)
    return {"steps": 100}


def test_a_function_of_optunas_trial_is_a_space():
    params = params_of(search.ConcurrencyLimiter(search.OptunaSearch(suggest), 2))
    assert params.space == {
        "act": Categorical(["relu", "tanh"]),
        "slope": Real(1, 2),
        "n": Integer(1, 3),
    }
    raw = {"act": "relu", "slope": 1.5, "n": 2}
    assert params.config(raw, 0) == {"act": "relu", "n": 2, "steps": 100}
    tanh = raw | {"act": "tanh"}
    assert params.config(tanh, 0) == {"act": "tanh", "slope": 1.5, "n": 2, "steps": 100}


def test_pairs_of_bayes_opt_and_dimensions_of_skopt_are_ranges():
    ranges = {"x": Real(0, 20), "y": Real(-100, 100), "steps": 100}
    pairs = {"x": (0, 20), "y": (-100, 100)}
    assert params_of(search.BayesOptSearch(pairs), {"steps": 100}).space == ranges
    optimizer = skopt.Optimizer([(0.0, 20.0), (1e-3, 1.0, "log-uniform"), (1, 5), ["a", "b"]])
    described = search.SkOptSearch(
        optimizer,
        ["x", "lr", "n", "kind"],
        points_to_evaluate=[[10, 0.1, 2, "a"]],
        evaluated_rewards=[1.0],
    )
    params = params_of(described)
    assert params.space == {
        "x": Real(0, 20),
        "lr": Real(1e-3, 1, log=True),
        "n": Integer(1, 5),
        "kind": Categorical(["a", "b"]),
    }
    assert described.points(params) == [{"x": 10, "lr": 0.1, "n": 2, "kind": "a"}]


def test_the_configuration_is_above_the_searchers_space():
    described = search.OptunaSearch({"x": tune.uniform(0, 1), "y": tune.uniform(0, 1)})
    assert params_of(described, {"y": 3}).space == {"x": Real(0, 1), "y": 3}


@pytest.mark.parametrize(
    ("search_alg", "config", "message"),
    [
        (None, {"x": hp.uniform("x", 0, 1)}, "of hyperopt in a configuration.*HyperOptSearch"),
        (None, {"a": [optuna.distributions.FloatDistribution(0, 1)]}, "of optuna in a conf"),
        (search.HyperOptSearch({"x": hp.lognormal("x", 0, 1)}), None, "'lognormal'"),
        (search.HyperOptSearch({"x": hp.pchoice("x", [(0.1, 1), (0.9, 2)])}), None, "pchoice"),
    ],
)
def test_what_cannot_be_translated_is_refused(search_alg, config, message):
    with pytest.raises(ValueError, match=message):
        params_of(search_alg, config)
