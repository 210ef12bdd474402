"""The one adaptor, with an optimiser made for the purpose."""

from __future__ import annotations

import logging

import pytest

from daskhpo.core.errors import OptimiserLost
from daskhpo.core.types import Report, Status, Trial
from daskhpo.searchers.external.adapter import AskTellSearcher, Optimiser, TrialOutcome
from daskhpo.space import Categorical, Domain, Ordinal, Real, Space
from tests.searchers.external.shared import report, start

SPACE = Space({"x": Real(0.0, 10.0), "kind": Categorical([1, True, "1"]), "constant": (2, 1)})


class Counting(Optimiser):
    """Proposes 0, 1, 2 ... and keeps what it is told; a handle is a letter and the number."""

    def __init__(self):
        self.told, self.n, self.fails, self.closed = [], 0, False, False

    def ask(self):
        if self.fails:
            raise RuntimeError("no idea")
        self.n += 1
        return f"own {self.n - 1}", {"x": float(self.n - 1), "kind": True}

    def add(self, config):
        self.told.append(("add", config["x"]))
        return f"foreign {config['x']}"

    def tell(self, handle, config, outcome):
        self.told.append((handle, config["x"], outcome.loss, outcome.resource, outcome.complete))
        return handle

    def close(self):
        self.closed = True


class CountingSearch(AskTellSearcher):
    """It makes the optimiser that it is given, or raises that error."""

    def __init__(self, made=None, points_to_evaluate=None):
        super().__init__(points_to_evaluate)
        self.made, self.n_made = Counting() if made is None else made, 0

    def described(self):
        return []

    def optimiser(self, space, seed):
        self.n_made += 1
        if isinstance(self.made, Exception):
            raise self.made
        return self.made


@pytest.fixture
def searcher():
    searcher = CountingSearch()
    searcher.setup(SPACE, 0)
    return searcher


@pytest.fixture
def told(searcher):
    return searcher.made.told


class Odd(Domain):
    """A domain of somebody else's."""

    def __repr__(self):
        return "Odd"

    def from_unit(self, u):
        return u

    to_unit = contains = grid = perturb = from_unit


def config_at(x, kind=True):
    return SPACE.complete({"x": x, "kind": kind})


def test_a_proposal_gets_the_spaces_constants(searcher):
    assert searcher.suggest(0) == {"x": 0.0, "kind": True, "constant": (2, 1)}


def test_a_proposal_is_told_by_its_own_handle(searcher, told):
    configs = [start(searcher, number) for number in range(3)]
    trial = report(searcher, 1, configs[1], loss=0.5, resource=3)
    searcher.on_end(trial._replace(status=Status.COMPLETED))
    assert told == [("own 1", 1.0, 0.5, 3, False), ("own 1", 1.0, 0.5, 3, True)]


def test_proposals_may_begin_under_other_numbers_and_in_another_order(searcher, told):
    first, second = searcher.suggest(0), searcher.suggest(1)
    searcher.on_start(8, second)
    searcher.on_start(9, first)
    report(searcher, 9, first, loss=0.5)
    assert told == [("own 0", 0.0, 0.5, 1, False)]


def test_values_that_are_equal_but_for_their_type_are_different_configurations(searcher, told):
    searcher.suggest(0)
    searcher.on_start(0, config_at(0.0, kind=1))
    assert told == [("add", 0.0)]


def test_a_trial_that_it_did_not_propose_is_made_known(told, searcher):
    start(searcher, 0)
    searcher.on_start(1, config_at(7.0))
    report(searcher, 1, config_at(7.0), loss=0.25)
    assert told == [("add", 7.0), ("foreign 7.0", 7.0, 0.25, 1, False)]


def test_nothing_is_made_before_it_is_asked_for_more_than_points():
    searcher = CountingSearch(points_to_evaluate=[config_at(7.0)])
    searcher.setup(SPACE, 0)
    assert start(searcher, 0) == config_at(7.0)
    report(searcher, 0, config_at(7.0), loss=0.25)
    assert searcher.n_made == 0
    assert start(searcher, 1)["x"] == 0.0
    assert start(searcher, 2)["x"] == 1.0
    assert searcher.n_made == 1


def test_what_is_known_when_it_is_made_is_told_once_each(searcher, told):
    running, paused, ended, failed = (config_at(float(x)) for x in range(4))
    for number, config in enumerate([running, paused, ended, failed]):
        searcher.on_start(number, config)
    for resource in (1, 3, 9):
        report(searcher, 1, paused, 1.0 / resource, resource)
        trial = report(searcher, 2, ended, 2.0 / resource, resource)
    searcher.on_end(trial._replace(status=Status.COMPLETED))
    searcher.on_end(Trial(3, failed, Status.FAILED, until=1))
    assert told == []
    searcher.suggest(4)
    assert told == [
        ("add", 0.0),
        (None, 1.0, 1 / 9, 9, False),
        (None, 2.0, 2 / 9, 9, True),
        (None, 3.0, None, 0, False),
    ]
    report(searcher, 0, running, 0.5)
    assert told[4:] == [("foreign 0.0", 0.0, 0.5, 1, False)]


def test_one_that_cannot_be_made_is_an_error():
    searcher = CountingSearch(OptimiserLost("nobody there"))
    searcher.setup(SPACE, 0)
    with pytest.raises(OptimiserLost, match="nobody there"):
        searcher.suggest(0)


def test_a_domain_of_another_kind_is_refused_at_setup(searcher):
    with pytest.raises(ValueError, match=r"space\['x'\]=Odd: CountingSearch can search Real"):
        searcher.setup(Space({"x": Odd()}), 0)


def test_what_is_known_already_is_not_told_again(searcher, told):
    trial = report(searcher, 0, start(searcher, 0), loss=0.5)
    searcher.on_end(trial._replace(status=Status.STOPPED))
    assert len(told) == 1


def test_the_best_of_a_trial_counts_but_not_that_of_another_configuration(searcher, told):
    config = start(searcher, 0)
    for resource, loss in [(1, 0.5), (2, 0.7)]:
        report(searcher, 0, config, loss, resource)
    report(searcher, 0, config_at(7.0), 0.9, resource=3)
    trial = report(searcher, 0, config_at(7.0), 0.95, resource=4)
    searcher.on_end(trial._replace(status=Status.COMPLETED))
    assert told == [
        ("own 0", 0.0, 0.5, 1, False),
        ("own 0", 0.0, 0.5, 2, False),
        ("own 0", 7.0, 0.9, 3, False),
        ("own 0", 7.0, 0.9, 4, False),
        ("own 0", 7.0, 0.9, 4, True),
    ]


def test_a_trial_that_ends_before_it_reports_with_its_new_configuration_leaves_the_old_one(
    searcher, told
):
    trial = report(searcher, 0, start(searcher, 0), loss=0.5)
    searcher.on_end(trial._replace(config=config_at(7.0), status=Status.STOPPED))
    assert told == [("own 0", 0.0, 0.5, 1, False)]


def test_a_failed_trial_has_no_loss(searcher, told):
    trial = report(searcher, 0, start(searcher, 0), loss=0.5)
    searcher.on_end(trial._replace(status=Status.FAILED))
    assert told[1:] == [("own 0", 0.0, None, 1, False)]


def test_a_trial_that_ends_without_a_report_has_no_loss(searcher, told):
    searcher.on_end(Trial(0, start(searcher, 0), Status.STOPPED, until=1))
    assert told == [("own 0", 0.0, None, 0, False)]


def test_an_optimiser_that_raises_is_logged_once_and_the_search_goes_on(searcher, caplog):
    begun = start(searcher, 0)
    optimiser = searcher.made
    optimiser.fails = True
    found = [start(searcher, number) for number in range(1, 9)]
    searcher.on_end(report(searcher, 0, begun, loss=0.5))
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert "CountingSearch() failed; the search continues with random configurations" in caplog.text
    assert "no idea" in caplog.text
    assert searcher.error == "RuntimeError: no idea"
    assert optimiser.closed
    assert len({config["x"] for config in found}) == 8
    assert all(SPACE.complete(config) == config for config in found)


def test_what_follows_a_failure_is_the_same_for_the_same_seed(searcher):
    twin = CountingSearch()
    twin.setup(SPACE, 0)
    for one in (searcher, twin):
        one.made.fails = True
    assert [searcher.suggest(n) for n in range(4)] == [twin.suggest(n) for n in range(4)]


def test_a_proposal_outside_the_space_is_a_failure_too(searcher):
    searcher.made.n = 1000
    assert searcher.suggest(0)["x"] <= 10.0
    assert "is not in Real" in searcher.error


def test_an_outcome_says_what_is_known_by_now(searcher, told):
    config = start(searcher, 0)
    trial = Trial(0, config, Status.RUNNING, until=3, resource=3, best_loss=0.25)
    searcher.observe(trial, Report(3, (0.25, 0.5), best_loss=0.25))
    assert told == [("own 0", 0.0, 0.25, 3, False)]
    assert TrialOutcome(0.25, 3, False) == TrialOutcome(loss=0.25, resource=3, complete=False)


def test_a_space_of_constants_needs_no_optimiser(searcher):
    searcher.setup(Space({"x": 1}), 0)
    assert searcher.suggest(0) == {"x": 1}
    searcher.on_end(report(searcher, 0, {"x": 1}, loss=1.0))


def test_ordinals_are_told_by_the_spaces_own_values(searcher):
    searcher.setup(Space({"x": Ordinal([0, 10]), "kind": Categorical([True, False])}), 0)
    assert type(searcher.suggest(0)["x"]) is int
