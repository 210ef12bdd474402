"""Random search."""

from __future__ import annotations

import pytest

from daskhpo.searchers import RandomSearch
from daskhpo.space import Real, Space
from daskhpo.testing.searcher import SearcherContract, a_point, a_space, search


class TestContract(SearcherContract):
    @pytest.fixture
    def make(self):
        return RandomSearch


def ready(seed=0, **options):
    searcher = RandomSearch(**options)
    searcher.setup(a_space(), seed)
    return searcher


def test_a_trial_gets_the_same_configuration_in_any_order():
    assert ready().suggest(7) == search(ready(), 8)[7]


def test_points_do_not_shift_what_later_trials_get():
    with_points = search(ready(points_to_evaluate=[a_point(), a_point()]), 6)
    assert with_points[2:] == search(ready(), 6)[2:]


def test_other_seeds_give_other_configurations():
    assert not {str(c) for c in search(ready(1), 20)} & {str(c) for c in search(ready(2), 20)}


def test_draws_are_uniform_on_the_domains_scale():
    searcher = RandomSearch()
    searcher.setup(Space({"lr": Real(1e-6, 1e2, log=True)}), seed=0)
    places = [searcher.suggest(n)["lr"] for n in range(1000)]
    below = sum(lr < 1e-2 for lr in places)  # half of the decades
    assert 440 < below < 560  # four standard deviations
