"""No suggestion costs memory in the size of a domain."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from daskhpo.core.random import rng
from daskhpo.core.types import Report, Status, Trial
from daskhpo.searchers import GPSearch, GridSearch, RandomSearch, Repeater
from daskhpo.searchers.gp.encoding import Encoding
from daskhpo.searchers.gp.local_search import MAX_CATEGORIES, MAX_NEIGHBOURS, _neighbours
from daskhpo.space import Categorical, Integer, Ordinal, Real, Space

N = 20_000
NAMES = [f"name {n}" for n in range(N)]
SPACES = {
    "a seed of 32 bits": {"x": Integer(0, 2**32 - 1), "y": Real(0, 1)},
    "a seed of 63 bits": {"x": Integer(0, 2**63 - 1), "y": Real(0, 1)},
    "a wide range": {"x": Integer(1, 10**15, log=True), "y": Integer(-(10**12), 10**12)},
    "many categories": {"x": Categorical(NAMES), "y": Categorical(range(N))},
    "many ordered numbers": {"x": Ordinal(range(N)), "y": Real(0, 1)},
}
SEARCHERS = {
    "random": RandomSearch(),
    "grid": GridSearch(5),
    "gp": GPSearch(n_initial_points=3),
    "repeated": Repeater(GPSearch(n_initial_points=3), 2),
}


def tell(searcher, trial, config, loss):
    searcher.on_start(trial, config)
    running = Trial(trial, config, Status.RUNNING, until=1, resource=1, best_loss=loss)
    searcher.observe(running, Report(1, (loss,), loss))
    searcher.on_end(running._replace(status=Status.COMPLETED))


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("searcher", SEARCHERS)
def test_a_suggestion_needs_little_memory(space, searcher):
    domains, searcher = Space(SPACES[space]), SEARCHERS[searcher]
    searcher.setup(domains, 0)
    tell(searcher, 0, searcher.suggest(0), 1.0)  # imports
    tracemalloc.start()
    for trial in range(1, 7):
        config = searcher.suggest(trial)
        assert domains.complete(config) == config
        tell(searcher, trial, config, float(trial % 3))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12e6  # candidates and a model; N² numbers would be 3 GB


def test_a_perturbed_category_is_any_other_one():
    domain = Categorical(["a", "b", None, 1, True])
    for value in domain.values:
        drawn = [domain.perturb(value, rng(0, "p", n)) for n in range(200)]
        others = [v for v in domain.values if not (v == value and type(v) is type(value))]
        assert {(type(v), v) for v in drawn} == {(type(v), v) for v in others}


def test_of_a_long_list_the_known_categories_and_some_others_are_tried():
    space = Space({"x": Categorical(NAMES)})
    encoding = Encoding(space)
    units = [space.to_unit({"x": name}) for name in ("name 0", "name 7", "name 19999")]
    options = _neighbours(encoding, np.array(units[1]), 0, np.array(units))
    tried = {encoding.config(option)["x"] for option in options}
    assert {"name 0", "name 7", "name 19999"} <= tried
    assert len(tried) == 3 + MAX_NEIGHBOURS


def test_of_a_short_list_every_category_is_tried():
    space = Space({"x": Categorical(NAMES[:MAX_CATEGORIES])})
    point = np.array(space.to_unit({"x": "name 3"}))
    options = _neighbours(Encoding(space), point, 0, point[None])
    assert len({Encoding(space).config(option)["x"] for option in options}) == MAX_CATEGORIES


def test_a_model_learns_which_of_many_categories_is_good():
    searcher = GPSearch(n_initial_points=4)
    space = Space({"x": Categorical(NAMES[:300]), "y": Real(0, 1)})
    searcher.setup(space, 0)
    for trial in range(12):
        config = {"x": NAMES[trial % 6], "y": trial / 12}
        tell(searcher, trial, config, (config["x"] != "name 2") + config["y"] / 10)
    assert searcher.suggest(12)["x"] == "name 2"


def test_a_grid_may_have_more_points_than_an_index():
    searcher = GridSearch(5)
    space = Space({f"x{n}": Real(0, 1) for n in range(40)})
    searcher.setup(space, 0)
    assert searcher.suggest(0) == {f"x{n}": 0.0 for n in range(40)}
    assert searcher.suggest(5**40 - 1) == {f"x{n}": 1.0 for n in range(40)}
    assert searcher.suggest(5**40) is None
    assert len(searcher) > 0
    assert searcher
