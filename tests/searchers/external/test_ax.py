"""Ax."""

from __future__ import annotations

from statistics import fmean

import pytest

from daskhpo.core.types import Status, Trial
from daskhpo.searchers import AxSearch, RandomSearch
from daskhpo.space import Categorical, Integer, Ordinal, Real, Space
from tests.searchers.external.shared import (
    AX_WARNINGS,
    ExternalContract,
    needs,
    regret,
    report,
    start,
    taught,
)

pytestmark = [needs("ax", "ax"), *AX_WARNINGS]


@pytest.mark.slow
class TestContract(ExternalContract):
    n, n_study = 6, 7
    n_first, tolerance = 20, 0.2

    @pytest.fixture
    def make(self):
        return AxSearch


SPACE = Space({"x": Real(0.0, 1.0), "units": Ordinal([8, 16, 64])})


def ready():
    searcher = AxSearch()
    searcher.setup(SPACE, 0)
    return searcher


def recorded(searcher):
    """Ax's own records: status, and loss, of each trial."""
    table = searcher._optimiser._client.summarize()
    losses = table["loss"] if "loss" in table else [None] * len(table)
    return list(zip(table["trial_status"], losses, strict=True))


@pytest.mark.slow
def test_ax_knows_a_trials_loss_by_now():
    searcher = ready()
    config = start(searcher, 0)
    report(searcher, 0, config, loss=3.0, resource=1)
    assert recorded(searcher) == [("COMPLETED", 3.0)]
    trial = report(searcher, 0, config, loss=2.0, resource=9)
    searcher.on_end(trial._replace(status=Status.COMPLETED))
    assert recorded(searcher) == [("COMPLETED", 2.0)]


@pytest.mark.slow
def test_a_failed_trial_is_marked_so():
    searcher = ready()
    searcher.on_end(Trial(0, start(searcher, 0), Status.FAILED, until=1))
    assert [status for status, _ in recorded(searcher)] == ["FAILED"]


@pytest.mark.slow
def test_a_trial_that_fails_after_it_reported_has_the_worst_loss():
    searcher = ready()
    for number, loss in enumerate([7.0, 3.0]):
        trial = report(searcher, number, start(searcher, number), loss)
    searcher.on_end(trial._replace(status=Status.FAILED))
    assert recorded(searcher) == [("COMPLETED", 7.0), ("COMPLETED", 7.0)]


def test_a_changed_configuration_is_a_trial_of_its_own():
    searcher = ready()
    start(searcher, 0)
    report(searcher, 0, {"x": 0.25, "units": 16}, loss=1.0)
    assert [status for status, _ in recorded(searcher)] == ["ABANDONED", "COMPLETED"]


@pytest.mark.slow
def test_it_learns_from_an_earlier_session():
    at_random = fmean(regret(RandomSearch(), 30))
    assert taught(AxSearch(), 30, n_proposals=3) < 0.6 * at_random  # one of them is no model's


def test_a_space_that_was_tried_all_over_is_drawn_from_at_random():
    space = Space({"n": Integer(1, 2), "kind": Categorical([*"ab"])})
    searcher = AxSearch()
    searcher.setup(space, 0)
    found = []
    for number in range(7):
        found.append(start(searcher, number))
        report(searcher, number, found[-1], loss=1.0 + number)
    assert len({tuple(config.values()) for config in found}) == 4
    assert len(recorded(searcher)) == 7
