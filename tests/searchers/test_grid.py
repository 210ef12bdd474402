"""Grid search."""

from __future__ import annotations

import itertools

import pytest

from daskhpo.searchers import GridSearch
from daskhpo.space import Categorical, Integer, Ordinal, Real, Space
from daskhpo.testing.searcher import SearcherContract, a_space


class TestContract(SearcherContract):
    @pytest.fixture
    def make(self):
        return GridSearch


def ready(space, **options):
    searcher = GridSearch(**options)
    searcher.setup(Space(space), seed=0)
    return searcher


def everything(searcher):
    """All suggestions until the first None."""
    return list(iter(map(searcher.suggest, itertools.count()).__next__, None))


SMALL = {"x": Ordinal([1, 2, 3]), "constant": "c", "kind": Categorical(["a", "b"])}


def test_the_last_hyperparameter_varies_fastest():
    found = [(config["x"], config["kind"]) for config in everything(ready(SMALL))]
    assert found == list(itertools.product([1, 2, 3], ["a", "b"]))


def test_each_combination_comes_once():
    searcher = ready(dict(a_space()), num_points=3)
    configs = [tuple(config.items()) for config in everything(searcher)]
    assert len(configs) == len(set(configs)) == 3 * 3 * 2 * 3


def test_its_length_is_known_before_it_begins():
    searcher = ready(dict(a_space()), num_points={"lr": 7, "layers": 2})
    assert len(searcher) == len(everything(searcher)) == 7 * 2 * 2 * 3


@pytest.mark.parametrize(
    ("domain", "n", "values"),
    [
        (Real(0.0, 1.0), 3, [0.0, 0.5, 1.0]),
        (Real(0.0, 1.0), 1, [0.5]),
        (Real(1.0, 100.0, log=True), 3, [1.0, pytest.approx(10.0), 100.0]),
        (Integer(1, 9), 3, [1, 5, 9]),
        (Integer(1, 3), 10, [1, 2, 3]),
        (Integer(1, 100, log=True), 3, [1, 10, 100]),
        (Integer(1, 4, log=True), 4, [1, 2, 3, 4]),
        (Ordinal([40, 61, 79, 100, 150]), 3, [40, 79, 150]),
        (Categorical(["a", "b"]), 5, ["a", "b"]),
    ],
)
def test_a_range_is_cut_evenly_with_its_bounds(domain, n, values):
    searcher = ready({"x": domain}, num_points={"x": n})
    assert [config["x"] for config in everything(searcher)] == values


def test_points_are_not_repeated_in_the_grid():
    points = [{"x": 2, "kind": "b"}, {"x": 1, "kind": "a"}, {"x": 2, "kind": "b"}]
    searcher = ready(SMALL, points_to_evaluate=points)
    found = [(config["x"], config["kind"]) for config in everything(searcher)]
    rest = [(1, "b"), (2, "a"), (3, "a"), (3, "b")]
    assert found == [(2, "b"), (1, "a"), (2, "b"), *rest]
    assert len(searcher) == len(found)


def test_a_point_beside_the_grid_leaves_the_grid_whole():
    searcher = ready({"x": Real(0.0, 1.0)}, num_points=3, points_to_evaluate=[{"x": 0.3}])
    assert [config["x"] for config in everything(searcher)] == [0.3, 0.0, 0.5, 1.0]


def test_one_and_true_are_different_values_of_a_grid():
    space = {"max_features": Categorical([1, 1.0, True])}
    searcher = ready(space, points_to_evaluate=[{"max_features": True}])
    found = [config["max_features"] for config in everything(searcher)]
    assert [repr(value) for value in found] == ["True", "1", "1.0"]


def test_a_searcher_that_gave_all_it_has_gives_none_for_good():
    searcher = ready(SMALL)
    assert [searcher.suggest(n) for n in (6, 7, 1000)] == [None, None, None]


def test_a_space_of_constants_has_one_configuration():
    assert everything(ready({"x": 3})) == [{"x": 3}]


@pytest.mark.parametrize("num_points", [0, -1, 2.5, {"x": 0}, {"x": 1.5}])
def test_wrong_counts_are_refused(num_points):
    with pytest.raises(ValueError, match=r"num_points.* must be .*at least 1"):
        GridSearch(num_points=num_points)


def test_a_count_for_an_unknown_name_is_refused():
    with pytest.raises(
        ValueError, match=r"num_points names \['y'\]; names with a domain are \['x'\]"
    ):
        ready({"x": Real(0.0, 1.0), "c": 1}, num_points={"y": 3})
