"""Axes reach from end to end, and have ticks, whatever a study reports."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskhpo.plots import axes
from daskhpo.space import Real
from tests.plots.made import SPACE, asha_result, filled


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_of_a_linear_axis_are_few_and_on_it(low: float, width: float) -> None:
    places, texts = axes.scale_ticks((low, low + width), log=False)
    assert 2 <= len(places) <= 12
    assert len(places) == len(texts)
    assert all(-1e-6 <= place <= 1 + 1e-6 for place in places)


@given(st.floats(1e-9, 1e3), st.floats(1.5, 1e9))
def test_ticks_of_a_logarithmic_axis_are_few_and_on_it(low: float, factor: float) -> None:
    places, texts = axes.scale_ticks((low, low * factor), log=True)
    assert 2 <= len(places) <= 25
    assert len(places) == len(texts)
    assert places == sorted(places)


def test_each_domain_has_its_axis() -> None:
    tables = asha_result().tables()
    tables.facts.space = SPACE
    try:
        assert axes.is_log(tables, "lr")
        assert not axes.is_log(tables, "dropout")
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


@pytest.mark.parametrize(
    "values", [[0.0, 5e-324], [5e-324, 1.0], [1e20, 1e20], [1e-250, 2e-250], [3.0, 3.0 + 1e-15]]
)
def test_values_that_hardly_differ_have_an_axis(values: list[float]) -> None:
    tables = filled(values)
    low, high = axes.value_ends(tables)
    assert low < high
    places, texts = axes.scale_ticks((low, high), axes.value_is_log(tables))
    assert len(places) == len(texts) >= 2
    assert np.isfinite(axes.unit(np.array(values), (low, high), False)).all()


def test_a_diverged_trial_does_not_squeeze_the_others() -> None:
    tables = filled([n / 10 for n in range(20)] + [1e9])
    assert axes.value_window(tables)[1] < 10


def test_an_axis_that_outliers_alone_would_make_logarithmic_is_linear() -> None:
    tables = filled([0.25 + 0.1 * n for n in range(30)] + [40.0, 50.0])
    low, high = axes.value_ends(tables)
    assert not axes.value_is_log(tables)
    places, texts = axes.scale_ticks((low, high), axes.value_is_log(tables))
    assert np.isfinite(axes.unit(np.array([0.25, 50.0]), (low, high), False)).all()
    assert len(places) == len(texts) >= 2


def test_three_steps_that_rounding_makes_a_little_less_are_three() -> None:
    places, texts = axes.scale_ticks((0.0, 0.3), log=False)
    assert texts == ["0", "0.1", "0.2", "0.3"]
    assert places == pytest.approx([0, 1 / 3, 2 / 3, 1])
