"""Axes reach from end to end, and have ticks, whatever a study reports."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from daskhpo.core.domains import Domain
from daskhpo.core.objective import Mode
from daskhpo.plots import axes
from daskhpo.plots.axes import Scale
from daskhpo.space import Categorical, Integer, Ordinal, Real
from tests.plots.made import SPACE, asha_result, filled

NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-5, 5).map(float)
SIZES = st.floats(0, exclude_min=True, allow_infinity=False)


def check_scale(scale: Scale, *, whole: bool = False) -> None:
    """Check that a scale has ends, and ticks whose texts say where they are."""
    assert -math.inf < scale.low < scale.high < math.inf
    assert scale.low > 0 or not scale.log
    ends = np.array([-math.inf, scale.low, scale.high, math.inf])
    assert scale.places(ends).tolist() == [0, 0, 1, 1]
    assert np.isnan(scale.places(np.array([math.nan]))).all()
    places, texts = scale.ticks(whole=whole)
    assert 2 <= len(places) == len(texts) <= 25
    assert (np.diff(places) > 0).all()
    assert len(set(texts)) == len(texts)
    said = scale.places(np.array([float(text) for text in texts]))
    assert said == pytest.approx(places, abs=2e-3)
    if whole:
        assert all(float(text).is_integer() for text in texts)


@given(NUMBERS, NUMBERS)
@example(-1.7e308, 1.7e308)
@example(0.0, 5e-324)
@example(1.7e308, 1.7e308)
def test_any_two_numbers_are_ends_of_a_linear_scale(one: float, other: float) -> None:
    low, high = sorted((one, other))
    scale = Scale.between(low, high)
    check_scale(scale)
    places = scale.places(np.array([low, low / 2 + high / 2, high]))
    assert (np.diff(places) >= 0).all()
    assert np.isfinite(places).all()


@given(SIZES, SIZES)
@example(5e-324, 1.7e308)
@example(3.0, 4.0)
@example(1.0, 1.0 + 1e-11)
def test_any_two_sizes_are_ends_of_a_logarithmic_scale(one: float, other: float) -> None:
    check_scale(Scale.between(*sorted((one, other)), log=True))


@given(st.integers(-(10**9), 10**9), st.integers(1, 10**9))
def test_ticks_of_whole_numbers_are_whole(low: int, width: int) -> None:
    check_scale(Scale.between(low, low + width), whole=True)


@given(st.lists(NUMBERS, max_size=40), st.sampled_from(["min", "max"]))
@example([2.0, 9e-308], "min")
@example([-1.7e308, 1.7e308], "max")
@example([1e-3] * 30 + [1.0, -5.0], "max")
def test_any_values_of_a_metric_have_a_scale_and_a_window(losses: list[float], mode: Mode) -> None:
    tables = filled(losses, mode)
    scale = axes.value_scale(tables)
    check_scale(scale)
    assert np.isfinite(scale.places(tables.value(losses))).all()
    low, high = axes.value_window(tables)
    assert low < high


@given(st.lists(NUMBERS | st.integers() | st.sampled_from(["a", "b"]), min_size=1, max_size=20))
@example([1e-300, 1e300])
@example([1, 0.0, 1000])
def test_any_values_of_a_hyperparameter_have_an_axis(values: list[Any]) -> None:
    tables = filled([0.0] * len(values))
    for number, value in enumerate(values):
        tables.set_config(number, {"x": value})
    places, texts = axes.ticks(tables, "x")
    assert len(places) == len(texts) > 0
    assert ((np.array(places) >= 0) & (np.array(places) <= 1)).all()
    assert np.isfinite(axes.places_on_axis(tables, "x")).all()


@pytest.mark.parametrize(
    "domain",
    [
        Real(-8e307, 8e307),
        Real(0.0, 5e-324),
        Real(5e-324, 1.0, log=True),
        Real(1e-300, 1e300, log=True),
        Integer(-1, 0),
        Integer(1000, 1010),
        Integer(1, 10**300, log=True),
        Ordinal([-1e300, 0, 1e300]),
        Categorical([0, 1e-9, 1e9]),
    ],
)
def test_a_domain_of_any_bounds_has_an_axis(domain: Domain) -> None:
    tables = filled([0.0] * 5)
    tables.facts.space = {"x": domain}
    for number, value in enumerate(domain.grid(5)):
        tables.set_config(number, {"x": value})
    places, texts = axes.ticks(tables, "x")
    assert len(set(texts)) == len(places) >= 2
    found = axes.places_on_axis(tables, "x")
    assert np.isfinite(found).all()
    assert (np.diff(found) >= 0).all() or isinstance(domain, Categorical)


@pytest.mark.parametrize(
    ("scale", "texts"),
    [
        (Scale(-1.0, 0.0), ["-1", "-0.8", "-0.6", "-0.4", "-0.2", "0"]),
        (Scale(-3.0, -1.0), ["-3", "-2.5", "-2", "-1.5", "-1"]),
        (Scale(0.0, 0.3), ["0", "0.1", "0.2", "0.3"]),  # 3 * 0.1 is more than 0.3
        (Scale(1000.0, 1010.0), ["1000", "1002", "1004", "1006", "1008", "1010"]),
        (Scale(0.9991, 0.9995), ["0.9991", "0.9992", "0.9993", "0.9994", "0.9995"]),
        (Scale(1e-4, 1.0, log=True), ["0.0001", "0.001", "0.01", "0.1", "1"]),
        (Scale(3.1, 3.9, log=True), ["3.2", "3.4", "3.6", "3.8"]),
    ],
)
def test_ticks_are_round_numbers(scale: Scale, texts: list[str]) -> None:
    assert scale.ticks()[1] == texts


def test_each_domain_has_its_axis() -> None:
    tables = asha_result().tables()
    tables.facts.space = SPACE
    try:
        assert axes.scale_of(tables, "lr").log
        assert not axes.scale_of(tables, "dropout").log
        assert axes.ticks(tables, "width")[1] == ["16", "32", "64", "128"]
        assert set(axes.ticks(tables, "optimizer")[1]) == {"sgd", "adam", "lamb"}
        for name, domain in SPACE.items():
            places = axes.places_on_axis(tables, name)
            assert ((places >= 0) & (places <= 1)).all()
            if isinstance(domain, Real):
                first = asha_result().trial(0).config[name]
                assert places[0] == pytest.approx(domain.to_unit(first))
    finally:
        tables.facts.space = {}


def test_a_diverged_trial_does_not_squeeze_the_others() -> None:
    tables = filled([n / 10 for n in range(20)] + [1e9])
    assert axes.value_window(tables)[1] < 10


def test_an_axis_that_outliers_alone_would_make_logarithmic_is_linear() -> None:
    tables = filled([0.25 + 0.1 * n for n in range(30)] + [40.0, 50.0])
    scale = axes.value_scale(tables)
    assert not scale.log
    assert scale.places(np.array([0.25, 50.0])) == pytest.approx([0.25 / 3, 1.0])
    check_scale(scale)
