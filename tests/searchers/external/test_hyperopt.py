"""HyperOpt."""

from __future__ import annotations

from statistics import fmean

import pytest

from daskhpo.core.types import Status, Trial
from daskhpo.searchers import HyperOptSearch, RandomSearch
from tests.searchers.external.shared import (
    EVERY_KIND,
    ExternalContract,
    needs,
    regret,
    report,
    start,
    taught,
)

pytestmark = needs("hyperopt", "hyperopt")


@pytest.mark.slow
class TestContract(ExternalContract):
    n_study = 30

    @pytest.fixture
    def make(self):
        return HyperOptSearch


def ready(**options):
    searcher = HyperOptSearch(**options)
    searcher.setup(EVERY_KIND, 0)
    return searcher


def test_hyperopt_knows_a_trials_loss_by_now():
    searcher = ready()
    config = start(searcher, 0)
    trials = searcher._optimiser._trials
    assert trials.results == [{"status": "new"}]
    report(searcher, 0, config, loss=3.0, resource=1)
    assert trials.losses() == [3.0]
    report(searcher, 0, config, loss=2.0, resource=3)
    assert trials.losses() == [2.0]
    searcher.on_end(Trial(0, config, Status.FAILED, until=3))
    assert trials.statuses() == ["fail"]


def test_hyperopt_records_what_is_trained():
    searcher = ready()
    config = {
        "lr": 1e-3, "shift": 0.5, "fc size (α)": -2, "layers": 70, "momentum": 0.9,
        "batch_size": 64, "norm": True, "none": None, "pair": (2.5, 1),
    }  # fmt: skip
    start(searcher, 0)
    report(searcher, 0, config, loss=1.0)
    vals = {name: values[0] for name, values in searcher._optimiser._trials.vals.items()}
    assert vals == {
        "lr": 1e-3, "shift": 0.5, "fc size (α)": -2, "layers": 70, "momentum": 2, "batch_size": 1,
        "norm": 1,
    }  # fmt: skip


@pytest.mark.slow
def test_the_ends_of_a_range_of_integers_are_as_likely_as_the_others():
    searcher = ready(n_startup_trials=1000)
    found = [searcher.suggest(number)["fc size (α)"] for number in range(300)]
    assert min(found.count(value) for value in range(-2, 4)) > 25  # of 50, each


@pytest.mark.slow
def test_it_gets_better_with_what_it_learns():
    losses = regret(HyperOptSearch(), 80)
    assert fmean(losses[-20:]) < 0.6 * fmean(losses[:20])


@pytest.mark.slow
def test_it_learns_from_an_earlier_session():
    at_random = fmean(regret(RandomSearch(), 30))
    assert taught(HyperOptSearch(), 60, n_proposals=20) < 0.7 * at_random


def test_no_trial_at_random_is_no_way_to_begin():
    with pytest.raises(ValueError, match="n_startup_trials=0 must be at least 1"):
        HyperOptSearch(n_startup_trials=0)
