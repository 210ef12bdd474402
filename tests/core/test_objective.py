"""Metrics become losses, once."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskhpo.core.objective import Objective


@pytest.mark.parametrize(("mode", "loss"), [("min", 0.25), ("max", -0.25)])
def test_less_loss_is_always_better(mode, loss):
    assert Objective("acc", mode).loss({"acc": 0.25, "other": 9.0}) == loss


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_has_the_worst_loss(mode, value):
    assert Objective("acc", mode).loss({"acc": value}) == math.inf


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(["min", "max"]))
def test_a_loss_turns_back_into_its_metric(value, mode):
    objective = Objective("acc", mode)
    assert objective.value(objective.loss({"acc": value})) == value


@pytest.mark.parametrize(
    ("mode", "value", "reached"),
    [
        ("min", 0.4, True),
        ("min", 0.5, True),
        ("min", 0.6, False),
        ("max", 0.6, True),
        ("max", 0.5, True),
        ("max", 0.4, False),
        ("min", math.nan, False),
        ("max", math.nan, False),
    ],
)
def test_a_target_is_reached_at_least_as_well(mode, value, reached):
    objective = Objective("acc", mode)
    assert objective.reached(objective.loss({"acc": value}), target=0.5) is reached


@pytest.mark.parametrize(
    ("metric", "mode", "message"),
    [
        ("acc", "maximise", "mode='maximise' must be 'min' or 'max'"),
        ("acc", None, "mode=None must be"),
        ("", "min", "metric='' must be a str: the name of a reported number"),
        (None, "min", "metric=None must be a str: the name"),
    ],
)
def test_wrong_arguments_are_refused(metric, mode, message):
    with pytest.raises(ValueError, match=message):
        Objective(metric, mode)
