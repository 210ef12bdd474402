"""Sources of learning curves: recorded ones and made-up ones."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskhpo import Study
from daskhpo.core.objective import Objective
from daskhpo.schedulers import ASHA
from daskhpo.simulation.curves import CurveTable, RecordedCurve, SyntheticCurves
from daskhpo.space import Categorical, Integer, Ordinal, Real, Space

FRAME = pd.DataFrame(
    {
        "trial": [7, 7, 7, 2, 2],
        "resource": [1, 2, 3, 1, 2],
        "seconds": [5.0, 7.0, 9.0, 4.0, 8.0],
        "loss": [0.9, 0.5, 0.7, 0.8, math.nan],
        "config/x": [0.25, 0.25, 0.25, 0.5, 0.5],
        "config/kind": ["a", "a", "a", "b", "b"],
    }
)


def changed(**columns):
    return FRAME.assign(**columns)


# -- recorded ------------------------------------------------------------------------------------


def test_a_recorded_curve_gives_what_was_recorded():
    curve = RecordedCurve([0.9, 0.5, 0.7], [5.0, 7.0, 9.0])
    assert [curve.metric(r) for r in (1, 2, 3)] == [0.9, 0.5, 0.7]
    assert [curve.seconds(r) for r in (1, 2, 3)] == [5.0, 7.0, 9.0]


def test_beyond_its_end_the_last_value_holds_and_units_take_the_time_of_those_after_the_first():
    curve = RecordedCurve([0.9, 0.5, 0.7], [105.0, 107.0, 109.0])
    assert curve.n_units == 3
    assert (curve.metric(4), curve.metric(99)) == (0.7, 0.7)
    assert (curve.seconds(4), curve.seconds(13)) == (111.0, 129.0)


def test_after_a_single_unit_the_others_take_the_share_that_they_take_elsewhere():
    table = CurveTable.of(changed(trial=[1, 1, 1, 2, 3], resource=[1, 2, 3, 1, 1]), "loss")
    long, short, _ = table.curves
    assert long.seconds(4) - long.seconds(3) == 2.0
    assert short.seconds(2) - short.seconds(1) == pytest.approx(4.0 * 2.0 / 5.0)


def test_where_training_failed_it_fails_again():
    table = CurveTable.of(FRAME, "loss")
    assert math.isnan(table.curves[table.configs.index({"x": 0.5, "kind": "b"})].metric(9))


# -- tables --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["curves.csv", "curves.csv.gz"])
def test_a_table_is_what_it_was_after_it_was_written_and_read(name, tmp_path):
    table = CurveTable.of(FRAME, "loss")
    table.write(tmp_path / name)
    again = CurveTable.read(tmp_path / name)
    pd.testing.assert_frame_equal(again.frame(), table.frame())
    assert again.objective == table.objective
    assert (len(again), again.max_t, again.best) == (2, 3, 0.5)


def test_the_best_follows_the_mode():
    assert CurveTable.of(FRAME, "loss", "max").best == 0.9


def test_rows_may_come_in_any_order():
    shuffled = FRAME.sample(frac=1.0, random_state=3)
    by_config = lambda table: {c["x"]: v for c, v in zip(table.configs, table.curves, strict=True)}  # noqa: E731
    told, expected = (by_config(CurveTable.of(frame, "loss")) for frame in (shuffled, FRAME))
    assert told[0.25].seconds(3) == expected[0.25].seconds(3) == 9.0


def test_a_studys_directory_is_read_with_its_metric_and_its_values(tmp_path):
    space = {"x": Real(0.0, 1.0), "kind": Categorical(["a", ("b", 1)])}
    study = Study(None, space, "score", "max", scheduler=ASHA(9), storage=tmp_path, name="asked")
    for _ in range(12):
        trial = study.ask()
        while study.tell(trial, {"score": trial.config["x"] * trial.resource}):
            pass
    study.close()
    table = CurveTable.read(tmp_path / "asked")
    assert table.objective == Objective("score", "max")
    assert table.best == study.result().best_value
    assert list(table.configs) == [dict(study.result().trial(i).config) for i in range(12)]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (FRAME.drop(columns="seconds"), "needs a column 'seconds'; this one has"),
        (FRAME.drop(columns="loss"), "needs a column 'loss'"),
        (changed(loss="high"), "the column 'loss' must hold numbers"),
        (changed(resource=[1, 2, 4, 1, 2]), "trial 7: resource must count 1, 2, 3"),
        (changed(resource=[1, 2, 2, 1, 2]), "trial 7: resource must count 1, 2, 3"),
        (
            changed(seconds=[5.0, 4.0, 9.0, 4.0, 8.0]),
            "trial 7: seconds must be finite, at least 0, and never",
        ),
        (
            changed(seconds=[5.0, 7.0, 9.0, -4.0, 8.0]),
            "trial 2: seconds must be finite, at least 0, and never",
        ),
        (changed(seconds=[5.0, math.inf, 9.0, 4.0, 8.0]), "trial 7: seconds must be finite"),
        (changed(seconds=[5.0, math.nan, 9.0, 4.0, 8.0]), "trial 7: seconds must be finite"),
        (
            changed(seconds=[5.0, 7.0, 9.0, 0.0, 0.0]),
            "trial 2: the seconds of its last unit must be above 0",
        ),
        (FRAME[:3], "1 learning curves: at least two"),
    ],
)
def test_what_is_no_table_of_curves_is_refused(frame, message):
    with pytest.raises(ValueError, match=message):
        CurveTable.of(frame, "loss")


def test_a_metric_that_must_be_chosen_is_asked_for(tmp_path):
    changed(accuracy=0.5).to_csv(tmp_path / "two.csv", index=False)
    with pytest.raises(ValueError, match=r"two.csv: name the metric: the table has .*accuracy"):
        CurveTable.read(tmp_path / "two.csv")
    assert CurveTable.read(tmp_path / "two.csv", "accuracy", "max").best == 0.5


def test_a_path_without_anything_and_a_file_that_is_no_table_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no.csv is neither a study's directory nor"):
        CurveTable.read(tmp_path / "no.csv")
    with pytest.raises(FileNotFoundError, match="holds no study"):
        CurveTable.read(tmp_path)
    (tmp_path / "empty.csv").touch()
    with pytest.raises(ValueError, match=r"empty.csv is not a valid CSV file"):
        CurveTable.read(tmp_path / "empty.csv")


def test_curves_without_a_finite_value_have_no_best():
    with pytest.raises(ValueError, match="no curve has a finite value of 'loss'"):
        CurveTable.of(changed(loss=math.nan), "loss").best  # noqa: B018


# -- the nearest ---------------------------------------------------------------------------------

NUMBERS = Space({"a": Real(1e-3, 1.0, log=True), "b": Integer(1, 9), "c": Ordinal([1, 2, 8])})


@given(seed=st.integers(0, 2**31))
def test_a_configuration_learns_like_the_nearest_one_in_the_unit_cube(seed):
    generator = np.random.default_rng(seed)
    configs = tuple(NUMBERS.sample(generator) for _ in range(12))
    curves = tuple(RecordedCurve([float(i)], [1.0]) for i in range(12))
    source = CurveTable(Objective("loss"), configs, curves).nearest(NUMBERS)
    asked = NUMBERS.sample(generator)
    apart = [math.dist(NUMBERS.to_unit(asked), NUMBERS.to_unit(config)) for config in configs]
    assert apart[int(source(asked).metric(1))] == pytest.approx(min(apart))


def test_of_categories_the_same_is_nearer_than_any_other():
    space = Space({"x": Real(0.0, 1.0), "kind": Categorical(["a", "b", "c"]), "fixed": 3})
    configs = ({"x": 0.0, "kind": "b"}, {"x": 0.9, "kind": "a"}, {"x": 0.0, "kind": "c"})
    curves = tuple(RecordedCurve([float(i)], [1.0]) for i in range(3))
    source = CurveTable(Objective("loss"), configs, curves).nearest(space)
    assert source({"x": 0.0, "kind": "a", "fixed": 3}).metric(1) == 1.0
    assert source({"x": 0.0, "kind": "c", "fixed": 3}).metric(1) == 2.0


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"y": Real(0.0, 1.0)}, r"the curves have no config/y; they have \['x', 'kind'\]"),
        ({"kind": Categorical(["a", "c"])}, r"kind='b' of a curve is not in Categorical"),
        ({"kind": Real(0.0, 1.0)}, r"kind='a' of a curve is not in Real"),
    ],
)
def test_a_space_that_the_curves_do_not_know_is_refused(space, message):
    with pytest.raises(ValueError, match=message):
        CurveTable.of(FRAME, "loss").nearest(Space(space))


# -- made up -------------------------------------------------------------------------------------


def drawn(n=3000, resource=1, max_t=27, **options):
    source = SyntheticCurves((12.0,), max_t, **options)
    curves = [source({"x": i / n}) for i in range(n)]
    return np.array([(c.metric(resource), c.metric(max_t)) for c in curves]).T


@pytest.mark.parametrize("rank_correlation", [0.0, 0.5, 1.0])
def test_early_and_late_losses_agree_as_much_as_is_stated(rank_correlation):
    early, late = drawn(rank_correlation=rank_correlation)
    assert np.corrcoef(early, late)[0, 1] == pytest.approx(rank_correlation, abs=0.05)
    assert late.std() == pytest.approx(1.0, abs=0.05)
    assert early.mean() - late.mean() == pytest.approx(10.0, abs=0.1)


def test_for_a_metric_that_is_maximised_curves_rise():
    early, late = drawn(n=50, mode="max")
    assert (early < late).all()


def test_a_configuration_always_has_the_same_curve_and_with_another_seed_another_one():
    one, two = SyntheticCurves((1.0,), 9), SyntheticCurves((1.0,), 9, seed=1)
    config = {"x": 0.5, "kind": None}
    assert one(config).metric(3) == one(dict(reversed(config.items()))).metric(3)
    assert one(config).metric(3) != two(config).metric(3)
    assert one(config).metric(3) != one({"x": 0.25, "kind": None}).metric(3)


def test_of_several_times_each_configuration_draws_one():
    source = SyntheticCurves((1.0, 5.0), 9)
    paces = [source({"x": i / 200}).seconds(2) for i in range(200)]
    assert set(paces) == {2.0, 10.0}
    assert 70 < paces.count(2.0) < 130


def test_a_trial_of_a_single_unit_has_a_curve():
    assert math.isfinite(SyntheticCurves((1.0,), 1)({"x": 0.5}).metric(1))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seconds_per_unit": ()}, "must be one or more numbers above 0"),
        ({"seconds_per_unit": (1.0, 0.0)}, "must be above 0"),
        ({"seconds_per_unit": (math.inf,)}, "must be finite"),
        ({"rank_correlation": 1.5}, r"rank_correlation=1.5 must be between 0 and 1"),
    ],
)
def test_stated_numbers_that_cannot_be_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        SyntheticCurves(**{"seconds_per_unit": (1.0,), "max_t": 9} | given)
