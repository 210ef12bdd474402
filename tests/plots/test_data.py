"""The data of the plots: right, small, and the same whenever they are drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from daskhpo import Result
from daskhpo.core.objective import Objective
from daskhpo.plots import axes, data, population, use
from daskhpo.plots.sampling import BEST_SHARE, best_first, chosen, sample, thinned
from daskhpo.plots.tables import MAX_UNITS, StudyTables
from tests.plots.made import asha_result, filled, population_result


def empty() -> StudyTables:
    return StudyTables(Objective("error"))


losses = st.lists(st.floats(-100, 100) | st.floats(-1e300, 1e300) | st.just(math.inf), max_size=300)


# -- which are drawn -----------------------------------------------------------------------------


@given(losses=losses, limit=st.integers(0, 60))
def test_the_best_are_drawn_and_no_more_than_the_limit(losses: list[float], limit: int) -> None:
    array = np.array(losses, float)
    drawn = chosen(array, limit)
    assert len(drawn) <= limit or len(losses) <= limit
    assert (np.diff(drawn) > 0).all()
    n_best = min(len(losses) // BEST_SHARE, limit // 2)
    assert set(best_first(array, n_best).tolist()) <= set(drawn.tolist())


@given(n=st.integers(0, 5000), more=st.integers(0, 50), limit=st.integers(1, 500))
def test_a_sample_only_grows_until_it_is_halved(n: int, more: int, limit: int) -> None:
    before, after = set(sample(n, limit).tolist()), set(sample(n + more, limit).tolist())
    assert before <= after or after < before | set(range(n, n + more))
    assert len(after) <= limit


@given(n=st.integers(0, 500), limit=st.integers(2, 60))
def test_thinning_keeps_both_ends(n: int, limit: int) -> None:
    places = thinned(n, limit)
    assert len(places) <= limit
    if n:
        assert (places[0], places[-1]) == (0, n - 1)


# -- each plot -----------------------------------------------------------------------------------


@given(losses=losses)
@example(losses=[2.0, 9e-308])
def test_all_data_can_be_made_of_any_study(losses: list[float]) -> None:
    tables = filled(losses)
    for columns in (
        data.trials(tables),
        data.best(tables),
        data.curves(tables),
        data.bands(tables),
        data.rungs(tables),
        data.slots(tables),
        use.timeline(tables),
        use.spent(tables),
        population.lineage(tables),
    ):
        assert len({len(column) for column in columns.values()}) == 1
    low, high = axes.value_window(tables)
    assert low < high


def test_an_empty_study_has_empty_plots() -> None:
    assert data.best_trial(empty()) is None
    assert data.counts(empty()) == {}
    assert data.seen(data.trials(empty()), 0) == "0 trials"


def test_the_best_value_improves_and_ends_now() -> None:
    result = asha_result()
    columns = data.best(result.tables())
    assert (np.diff(columns["value"]) <= 0).all()
    assert columns["value"][-1] == pytest.approx(result.best_value)
    assert columns["hours"][-1] == pytest.approx(result.cost()["seconds"] / 3600)


def test_values_that_are_maximised_keep_their_sign() -> None:
    tables = filled([-3.0, -5.0], mode="max")
    assert data.trials(tables)["value"].tolist() == [3.0, 5.0]
    assert data.best_trial(tables) == 1


def test_a_trial_without_a_report_has_no_value() -> None:
    (value,) = data.trials(filled([math.inf]))["value"]
    assert math.isnan(value)


def test_rungs_count_decisions_and_those_who_went_on() -> None:
    result = asha_result()
    rungs = data.rungs(result.tables())
    assert rungs["rung"] == ["1", "3", "9", "27"]
    assert sum(rungs["judged"]) == len(result.tables().judged_trial)
    assert rungs["advanced"][:-1] >= rungs["judged"][1:]
    assert rungs["advanced"][-1] == 0
    assert all(-1 <= c <= 1 for c in rungs["correlation"] if not math.isnan(c))


def test_rank_correlation_is_spearmans() -> None:
    a, b = np.array([1.0, 2, 3, 4, 4]), np.array([10.0, 30, 20, 50, 40])
    assert data.rank_correlation(a, b) == pytest.approx(0.8720816)  # scipy.stats.spearmanr
    assert math.isnan(data.rank_correlation(a, np.ones(5)))


def test_curves_hold_each_trial_from_its_first_to_its_last_unit() -> None:
    result = asha_result()
    columns = data.curves(result.tables())
    for trial, xs in zip(columns["id"], columns["xs"], strict=True):
        assert xs[0] == 1
        assert xs[-1] == result.trial(trial).resource or result.trial(trial).status == "failed"
    best = columns["id"][columns["rank"].index(0)]
    assert best == result.best_trial.id
    known = [place for place in columns["rank"] if place >= 0]
    assert sorted(known) == [*range(len(known))]
    assert len(known) > data.MAX_POINTS  # also those that are not among the first


def test_a_curve_breaks_where_its_trial_took_over_a_state() -> None:
    columns = data.curves(population_result().tables())
    for xs in columns["xs"]:
        known = xs[~np.isnan(xs)]
        jumps = np.flatnonzero(np.diff(known) <= 0)
        assert len(jumps) == np.isnan(xs).sum()


def test_a_running_trial_is_never_left_out() -> None:
    tables = filled([float(n) for n in range(5000)])
    tables.status[4321] = 1  # running
    assert 4321 in data.trials(tables)["id"]
    assert 4321 in data.curves(tables)["id"]
    assert data.curves(tables, running_only=True)["id"] == [4321]


def test_long_studies_keep_a_bounded_number_of_units() -> None:
    tables = filled([1.0])
    for unit in range(2, MAX_UNITS + 100):
        tables.add_unit(0, unit, 1.0, float(unit))
    assert len(tables.unit_trial) < MAX_UNITS
    assert tables.n_dropped + len(tables.unit_trial) == MAX_UNITS + 99
    assert tables.unit_resource[0] == 1


# -- where time went -----------------------------------------------------------------------------


def test_time_by_purpose_adds_up_to_that_of_the_slots() -> None:
    result = asha_result()
    columns, cost = use.spent(result.tables()), result.cost()
    width = cost["seconds"] / len(columns["hours"])
    total = sum(columns[name].sum() for name in use.PURPOSES) * width
    assert total == pytest.approx(cost["device_seconds"], rel=1e-3)
    assert columns["idle"].sum() * width == pytest.approx(cost["idle_seconds"], rel=1e-2)
    assert columns["lost"].sum() * width == pytest.approx(cost["lost_seconds"], rel=5e-2)


def test_idle_time_at_the_end_is_part_of_all_idle_time() -> None:
    result = asha_result()
    idle = use.idle_at_the_end(result.tables())
    assert 0 < idle <= result.cost()["idle_seconds"] * (1 + 1e-9)


def test_only_the_last_hours_of_a_timeline_are_drawn() -> None:
    tables = asha_result().tables()
    now = tables.facts.seconds / 3600
    bars = use.timeline(tables, hours=0.2)
    assert 0 < len(bars["row"]) < len(use.timeline(tables)["row"])
    assert min(bars["left"]) >= now - 0.2 - 1e-9
    assert len(set(bars["row"])) == len(bars["row"])


# -- populations ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_the_winners_schedule_is_that_of_the_result(seed: int) -> None:
    result: Result = population_result(seed)
    tables = result.tables()
    winner = population.winning_member(tables)
    assert winner is not None
    path = population.ancestry(tables, winner)
    found = [(p.start, end, p.trial, float(f"{p.config['lr']:.9g}")) for p, end in path]
    expected = [
        (s.start, s.until, s.trial, float(f"{s.config['lr']:.9g}")) for s in result.schedule()
    ]
    assert found == expected


def test_only_what_changes_has_a_schedule() -> None:
    names = population.changed_names(population_result().tables())
    assert {"lr", "dropout"} <= set(names)
    assert "optimizer" not in names


def test_a_study_without_exploits_is_no_population() -> None:
    assert not population.is_population(asha_result().tables())
    assert population.is_population(population_result().tables())


def test_diversity_spans_the_members_values() -> None:
    columns = population.diversity(population_result().tables(), "lr")
    assert (np.array(columns["low"]) <= np.array(columns["middle"])).all()
    assert (np.array(columns["middle"]) <= np.array(columns["high"])).all()
