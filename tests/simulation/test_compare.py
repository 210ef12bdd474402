"""Recorded curves under other schedulers: what can be told by heart, and what must hold."""

from __future__ import annotations

import math

import pytest

from daskhpo.core.objective import Objective
from daskhpo.schedulers import ASHA, FIFO, MedianStopping
from daskhpo.simulation.compare import compare_schedulers, parse_scheduler, standard_schedulers
from daskhpo.simulation.curves import CurveTable, RecordedCurve


def a_table(n=12, max_t=9, recorded=None, mode="min", step=10.0):
    """Curve ``i`` falls to ``i / n``; as many units of it are recorded as ``recorded(i)``."""
    sign = 1 if mode == "min" else -1
    curves = []
    for i in range(n):
        units = max_t if recorded is None else recorded(i)
        values = [sign * (i / n + 1 / r) for r in range(1, units + 1)]
        curves.append(RecordedCurve(values, [step * r for r in range(1, units + 1)]))
    return CurveTable(Objective("loss", mode), tuple({"x": i} for i in range(n)), tuple(curves))


def of(frame, scheduler, column):
    return frame.loc[frame["scheduler"] == scheduler, column].tolist()


def test_without_early_stopping_each_order_finds_the_best_where_it_stands():
    frame = compare_schedulers(a_table(), {"FIFO": FIFO(9)}, workers=[1], seeds=200)
    places = [(seconds - 90.0) / 90.0 for seconds in of(frame, "FIFO", "seconds_to_target")]
    assert set(places) == set(range(12)), "every place in some order, and nowhere else"
    assert set(frame["seconds"]) == set(frame["device_seconds"]) == {12 * 90.0}
    assert set(frame["trials"]) == set(frame["fully_trained"]) == {12}


def test_each_trial_is_started_once_by_every_scheduler_on_any_number_of_workers():
    frame = compare_schedulers(a_table(30), workers=[1, 7, 64], seeds=3)
    assert set(frame["trials"]) == {30}
    assert len(frame) == 7 * 3 * 3
    assert not frame["beyond"].any()


def test_all_schedulers_get_the_same_order_and_another_seed_is_another_one():
    schedulers = {"one": FIFO(9), "two": FIFO(9)}
    frame = compare_schedulers(a_table(), schedulers, workers=[2], seeds=6)
    assert of(frame, "one", "seconds_to_target") == of(frame, "two", "seconds_to_target")
    assert len(set(of(frame, "one", "seconds_to_target"))) > 1
    assert compare_schedulers(a_table(), schedulers, workers=[2], seeds=6).equals(frame)


def test_a_target_may_be_given_and_may_never_be_reached():
    schedulers = {"FIFO": FIFO(9)}
    easy = compare_schedulers(a_table(), schedulers, [12], seeds=1, target=1.0)
    assert of(easy, "FIFO", "seconds_to_target") == [10.0], "the best has it after a unit"
    hard = compare_schedulers(a_table(), schedulers, [1], seeds=2, target=0.01)
    assert of(hard, "FIFO", "seconds_to_target") == [math.inf] * 2


def test_the_best_of_a_metric_that_is_maximised_is_the_largest():
    frame = compare_schedulers(a_table(mode="max"), {"FIFO": FIFO(9)}, [1], seeds=5)
    assert all(seconds < math.inf for seconds in frame["seconds_to_target"])


def test_what_no_record_has_is_counted_and_cannot_reach_the_target():
    # As a study by ASHA leaves it: the best trial is known to its end, of the others the start.
    table = a_table(10, recorded=lambda i: 9 if i == 3 else 1)
    target = table.curves[3].metric(9)
    frame = compare_schedulers(table, {"FIFO": FIFO(9)}, [1], seeds=20, target=target)
    assert of(frame, "FIFO", "beyond") == pytest.approx([9 * 8 / 90] * 20)
    places = {(seconds - 90.0) / 90.0 for seconds in frame["seconds_to_target"]}
    assert places <= set(range(10)), "the recorded trial alone came there"


def test_a_longer_scheduler_than_the_record_goes_beyond_it():
    frame = compare_schedulers(a_table(), {"longer": FIFO(18)}, [1], seeds=1)
    assert of(frame, "longer", "beyond") == [0.5]


def test_a_trial_that_failed_fails_again():
    whole = RecordedCurve([0.4] * 9, [10.0 * r for r in range(1, 10)])
    curves = (RecordedCurve([0.5, math.nan], [10.0, 20.0]), whole)
    table = CurveTable(Objective("loss"), ({"x": 0}, {"x": 1}), curves)
    frame = compare_schedulers(table, {"FIFO": FIFO(9)}, [1], seeds=2)
    assert of(frame, "FIFO", "device_seconds") == [110.0] * 2
    assert of(frame, "FIFO", "fully_trained") == [1] * 2


@pytest.mark.parametrize("max_t", [1, 2, 50, 81])
def test_the_standard_schedulers_fit_any_length(max_t):
    for scheduler in standard_schedulers(max_t).values():
        assert scheduler.max_t == max_t


@pytest.mark.parametrize(
    "scheduler",
    [*standard_schedulers(27).values(), ASHA(81, 3, 4, compare="best"), MedianStopping(ASHA(9), 2)],
    ids=repr,
)
def test_a_scheduler_is_what_its_repr_says(scheduler):
    again = parse_scheduler(repr(scheduler))
    assert repr(again) == repr(scheduler)
    assert isinstance(scheduler, type(again))  # AsyncHyperband is an ASHA, and shows it


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("9", "is not a scheduler; write a call of one of FIFO, ASHA"),
        ("PBT(max_t=9)", "is not allowed; write plain values and calls of FIFO, ASHA"),
        ("ASHA(max_t=open('x'))", "is not allowed"),
        ("ASHA(max_t=0)", "max_t=0 must be at least 1"),
        ("ASHA(max_t=9, eta=3)", "unexpected keyword argument 'eta'"),
        ("ASHA(", "cannot be read"),
    ],
)
def test_a_text_that_is_no_scheduler_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_scheduler(text)


@pytest.mark.parametrize(
    ("given", "message"), [({"seeds": 0}, "seeds=0"), ({"workers": [4, 0]}, r"workers\[1\]=0")]
)
def test_numbers_below_one_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        compare_schedulers(a_table(), **given)
