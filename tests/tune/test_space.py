"""Spaces in Ray Tune's words: bounds, distributions, nesting, and what is refused."""

from __future__ import annotations

import pickle
import random
import statistics

import cloudpickle
import numpy as np
import pytest

from daskhpo import tune
from daskhpo.searchers import GridSearch, RandomSearch
from daskhpo.space import Categorical, Integer, Ordinal, Real, Space
from daskhpo.tune.drawn import FromFunction
from daskhpo.tune.schedulers import PopulationBasedTraining
from daskhpo.tune.space import ParamSpace


def drawn(parameter, n=400):
    """Values that trials of a random search would have."""
    params = ParamSpace.of({"x": parameter, "y": tune.uniform(0, 1)})
    search = RandomSearch()
    search.setup(Space(params.space), seed=1)
    return [params.config(search.suggest(t), seed=t)["x"] for t in range(n)]


@pytest.mark.parametrize(
    ("parameter", "domain"),
    [
        (tune.uniform(-1, 1), Real(-1, 1)),
        (tune.loguniform(1e-4, 1e-1), Real(1e-4, 1e-1, log=True)),
        (tune.quniform(3.2, 4.0, 0.2), Ordinal([3.2, 3.4, 3.6, 3.8, 4.0])),
        (tune.quniform(0.05, 0.35, 0.1), Ordinal([0.1, 0.2, 0.3])),
        (tune.randint(1, 9), Integer(1, 8)),
        (tune.randint(9), Integer(0, 8)),
        (tune.randint(3, 4), 3),
        (tune.lograndint(1, 1000), Integer(1, 999, log=True)),
        (tune.qrandint(-21, 12, 3), Ordinal(list(range(-21, 13, 3)))),
        (tune.choice(["a", "b"]), Categorical(["a", "b"])),
        (tune.choice([0.1]), 0.1),
        (tune.grid_search([1, 2]), Categorical([1, 2])),
    ],
)
def test_a_function_of_ray_gives_the_domain_with_its_bounds(parameter, domain):
    assert parameter.domain == domain


def test_quantised_logarithms_and_normals_are_rounded_and_keep_their_distribution():
    values = drawn(tune.qloguniform(1e-4, 1e-1, 5e-5))
    assert all(abs(v / 5e-5 - round(v / 5e-5)) < 1e-6 for v in values)
    assert 0.3 < statistics.mean(v < 3.2e-3 for v in values) < 0.7  # the geometric mean
    values = drawn(tune.qlograndint(1, 1024, 2))
    assert all(v % 2 == 0 and type(v) is int for v in values)
    assert statistics.mean(v <= 32 for v in values) > 0.35
    values = drawn(tune.randn(10, 2), 2000)
    assert statistics.mean(values) == pytest.approx(10, abs=0.3)
    assert statistics.stdev(values) == pytest.approx(2, abs=0.2)
    assert all(v * 2 == round(v * 2) for v in drawn(tune.qrandn(0, 1, 0.5)))


def square(x):
    return x * x


def test_any_object_may_be_a_category_and_comes_back_itself():
    layers, other = [64, 32], [64, 64]
    params = ParamSpace.of({"act": tune.choice([square, abs]), "l": tune.choice([layers, other])})
    assert params.space["act"] == Categorical(["square", "abs"])
    raw = {"act": "square", "l": params.space["l"].values[0]}
    config = params.config(raw, 0)
    assert config == {"act": square, "l": layers}
    assert params.raw(config) == raw
    again = pickle.loads(cloudpickle.dumps(params))
    assert again.config(raw, 0)["act"](3) == 9


def test_equal_categories_are_more_likely():
    assert 0.6 < statistics.mean(value == 1 for value in drawn(tune.choice([1, 1, 1, 2]))) < 0.9


def test_nested_dicts_constants_and_functions_of_others():
    params = ParamSpace.of(
        {
            "model": {"width": tune.randint(2, 9), "sizes": [1, 2], "kind": "mlp"},
            "double": tune.sample_from(lambda spec: spec.config.model.width * 2),
            "more": tune.sample_from(lambda config: config["double"] + random.random()),
            "grid": {"grid_search": [1, 2]},
            "empty": {},
        }
    )
    assert [*params.space] == ["model/width", "model/kind", "grid"]
    assert params.grid == ["grid"]
    raw = {"model/width": 5, "model/kind": "mlp", "grid": 1}
    config = params.config(raw, seed=7)
    assert config["model"] == {"width": 5, "sizes": [1, 2], "kind": "mlp"}
    assert config["double"] == 10
    assert config == params.config(raw, seed=7)
    assert config["more"] != params.config(raw, seed=8)["more"]


def test_the_study_has_what_functions_draw_by_themselves():
    params = ParamSpace.of(
        {
            "width": tune.sample_from(lambda spec: random.randint(2, 9)),
            "double": tune.sample_from(lambda spec: 2 * spec.config.width),
            "activation": tune.sample_from(lambda: np.tanh),
        }
    )
    assert [*params.space] == ["(none)"]
    params.show_drawn()
    assert [*params.space] == ["width"]
    domain = params.space["width"]
    assert {domain.from_unit(u / 100) for u in range(100)} == {*range(2, 10)}
    assert Space(params.space).complete({"width": 7}) == {"width": 7}  # not a value of its own
    config = params.config({"width": 7}, seed=1)
    assert config == {"width": 7, "double": 14, "activation": np.tanh}


def test_functions_may_draw_from_the_global_generators_and_leave_them_alone():
    params = ParamSpace.of({"x": tune.sample_from(lambda _: np.random.uniform(1, 2))})
    np.random.seed(3)
    random.seed(3)
    expected = np.random.random(), random.random()
    np.random.seed(3)
    random.seed(3)
    params.config({"(none)": None}, 1)
    assert (np.random.random(), random.random()) == expected


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tune.choice([]), "empty"),
        (lambda: tune.choice([{"lr": tune.uniform(0, 1)}]), "its own name"),
        (lambda: tune.quniform(0, 1, 0), "q=0"),
        (lambda: tune.qrandint(1, 2, 5), "no multiple"),
        (
            lambda: ParamSpace.of(
                {"x": tune.sample_from(lambda spec: np.random.default_rng().random())}
            ),
            "draws from neither",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_grid_repeats_and_draws_the_others_at_random():
    space = {"a": Categorical([1, 2]), "b": Categorical(["x", "y"]), "lr": Real(0, 1)}
    search = GridSearch(sampled=["lr"], repeats=3)
    search.setup(Space(space), seed=0)
    assert len(search) == 12
    rows = [search.suggest(n) for n in range(12)]
    assert search.suggest(12) is None
    assert [(r["a"], r["b"]) for r in rows[:4]] == [(1, "x"), (1, "y"), (2, "x"), (2, "y")]
    assert [(r["a"], r["b"]) for r in rows[4:8]] == [(r["a"], r["b"]) for r in rows[:4]]
    assert len({row["lr"] for row in rows}) == 12
    with pytest.raises(ValueError, match="sampled names"):
        GridSearch(sampled=["z"]).setup(Space(space), seed=0)


def test_mutations_of_every_form():
    scheduler = PopulationBasedTraining(
        "training_iteration",
        perturbation_interval=2,
        hyperparam_mutations={
            "lr": lambda: random.uniform(0.1, 0.2),
            "m": [0.99, 0.9],
            "kind": ["a", "b"],
            "n": {"width": tune.randint(1, 9)},
        },
    )
    assert scheduler.space["m"] == Ordinal([0.9, 0.99])
    assert scheduler.space["kind"] == Categorical(["a", "b"])
    assert scheduler.space["n/width"] == Integer(1, 8)
    domain = scheduler.space["lr"]
    assert isinstance(domain, FromFunction)
    generator = np.random.default_rng(0)
    assert all(0.1 <= domain.sample(generator) <= 0.2 for _ in range(20))
    assert domain.perturb(10, generator) in (8, 12)
