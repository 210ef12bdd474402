"""Search spaces."""

from __future__ import annotations

import json
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskhpo.core.domains import Categorical, Integer, Ordinal, Real, n_values
from daskhpo.core.errors import InvalidArgument
from daskhpo.core.random import rng
from daskhpo.core.space import Space

UNIT = st.floats(0.0, 1.0)
FINITE = st.floats(-1e9, 1e9)
POSITIVE = st.floats(1e-9, 1e9)

reals = st.tuples(FINITE, FINITE).filter(lambda b: b[0] < b[1]).map(lambda b: Real(*b))
log_reals = (
    st.tuples(POSITIVE, POSITIVE).filter(lambda b: b[0] < b[1]).map(lambda b: Real(*b, True))
)
integers = st.tuples(st.integers(-(10**6), 10**6), st.integers(1, 10**6)).map(
    lambda b: Integer(b[0], b[0] + b[1])
)
log_integers = st.tuples(st.integers(1, 10**6), st.integers(1, 10**6)).map(
    lambda b: Integer(b[0], b[0] + b[1], log=True)
)
ordinals = st.lists(st.integers(-99, 99), min_size=2, unique=True).map(sorted).map(Ordinal)
categoricals = st.lists(st.text(), min_size=2, unique=True).map(Categorical)
domains = reals | log_reals | integers | log_integers | ordinals | categoricals


# -- values and the unit scale -------------------------------------------------------------------


@given(domains, UNIT)
def test_every_place_of_the_unit_scale_is_a_value_of_the_domain(domain, u):
    value = domain.from_unit(u)
    assert domain.contains(value)
    assert 0.0 <= domain.to_unit(value) <= 1.0


@given(integers | log_integers | ordinals | categoricals, UNIT)
def test_a_discrete_value_comes_back_from_the_unit_scale(domain, u):
    value = domain.from_unit(u)
    assert domain.from_unit(domain.to_unit(value)) == value


@given(reals | log_reals, UNIT)
def test_a_real_value_comes_back_up_to_rounding(domain, u):
    value = domain.from_unit(u)
    tolerance = 1e-12 * max(abs(domain.low), abs(domain.high))
    assert domain.from_unit(domain.to_unit(value)) == pytest.approx(value, rel=1e-9, abs=tolerance)


@given(reals | log_reals | integers | log_integers | ordinals, UNIT, UNIT)
def test_the_unit_scale_keeps_the_order(domain, u, v):
    low, high = sorted((u, v))
    assert domain.from_unit(low) <= domain.from_unit(high)


@given(reals | log_reals | integers | log_integers)
def test_bounds_are_inclusive(domain):
    assert (domain.from_unit(0.0), domain.from_unit(1.0)) == (domain.low, domain.high)
    assert domain.contains(domain.low)
    assert domain.contains(domain.high)


def test_half_of_a_log_range_is_its_geometric_mean():
    assert Real(1e-4, 1.0, log=True).from_unit(0.5) == pytest.approx(1e-2)


@pytest.mark.parametrize(
    ("domain", "n_values"),
    [
        (Integer(3, 7), 5),
        (Integer(-1, 1), 3),
        (Ordinal([1, 10, 11]), 3),
        (Categorical([*"abcd"]), 4),
    ],
)
def test_each_value_has_the_same_share(domain, n_values):
    n = 1000 * n_values
    counts = Counter(domain.from_unit((i + 0.5) / n) for i in range(n))
    assert len(counts) == n_values
    assert all(abs(count - 1000) <= 1 for count in counts.values())


def test_each_int_has_its_share_of_a_log_range():
    n = 100_000
    counts = Counter(Integer(1, 4, log=True).from_unit((i + 0.5) / n) for i in range(n))
    edges = np.log([0.5, 1.5, 2.5, 3.5, 4.5])
    shares = np.diff(edges) / (edges[-1] - edges[0])
    assert [counts[k] / n for k in (1, 2, 3, 4)] == pytest.approx(shares, abs=1e-4)


@pytest.mark.parametrize(
    ("domain", "kind"),
    [
        (Real(1, 10), float),
        (Real(1, 10, log=True), float),
        (Integer(1, 10), int),
        (Integer(np.int64(1), np.int64(10)), int),
        (Ordinal([1, 2]), int),
        (Ordinal(np.array([40, 61, 79])), int),
        (Ordinal(np.array([0.5, 1.0])), float),
        (Categorical(np.array(["a", "b"])), str),
        (Real(np.float32(0.5), np.float32(1.0)), float),
    ],
)
def test_values_are_python_objects_that_a_journal_can_hold(domain, kind):
    values = [domain.from_unit(u) for u in (0.0, 0.3, 1.0)] + domain.grid(3)
    assert {type(value) for value in values} == {kind}
    assert json.loads(json.dumps(values)) == values


@pytest.mark.parametrize(
    ("domain", "inside", "outside"),
    [
        (Real(0, 1), [0, 1, 0.5, np.float32(0.5)], [-0.1, 1.1, True, "0.5", None, float("nan")]),
        (Integer(1, 3), [1, 3, np.int64(2)], [0, 4, 2.0, True, "2"]),
        (Ordinal([1, 2.5]), [1, 1.0, 2.5], [2, True, "1"]),
        (Categorical([1, "1", None]), [1, "1", None], [1.0, True, "2", [1]]),
        (Categorical([(1, 2), (1, 2, 3)]), [(1, 2)], [[1, 2], (1.0, 2)]),
    ],
)
def test_a_domain_knows_its_values(domain, inside, outside):
    assert all(domain.contains(value) for value in inside)
    assert not any(domain.contains(value) for value in outside)


def test_one_and_true_are_different_categories():
    domain = Categorical([1, True, 1.0])
    assert [domain.to_unit(value) for value in (1, True, 1.0)] == [1 / 6, 1 / 2, 5 / 6]


@given(domains, UNIT, st.integers(0, 2**32))
def test_however_often_it_is_perturbed_a_value_is_one_of_its_domain_and_keeps_its_type(
    domain, u, seed
):
    first = value = domain.from_unit(u)
    generator = rng(seed, "perturb")
    for _ in range(30):
        value = domain.perturb(value, generator)
        assert domain.contains(value)
        assert type(value) is type(first)


@pytest.mark.parametrize(
    ("domain", "value", "neighbours"),
    [
        (Real(0, 100), 10.0, {8.0, 12.0}),
        (Real(0, 100), 100.0, {80.0, 100.0}),
        (Real(9.5, 10.5, log=True), 10.0, {9.5, 10.5}),
        (Real(-1, 1), -0.5, {-0.4, -0.6}),
        (Real(-1, 1), 0.0, {-0.4, 0.4}),  # a fifth of nothing would be nothing
        (Integer(0, 100), 10, {8, 12}),
        (Integer(0, 100), 2, {1, 3}),  # by one at least
        (Integer(0, 100), 0, {0, 1}),
        (Integer(-10, 10), -1, {-2, 0}),
        (Integer(1, 64, log=True), 64, {51, 64}),
        (Ordinal([16, 32, 64, 128]), 32, {16, 64}),
        (Ordinal([16, 32, 64, 128]), 16, {16, 32}),
        (Ordinal([16, 32, 64, 128]), 128, {64, 128}),
        (Categorical(["a", "b", None]), "a", {"b", None}),
    ],
)
def test_a_value_is_perturbed_to_those_next_to_it(domain, value, neighbours):
    generator = rng(0, "perturb")
    found = [domain.perturb(value, generator) for _ in range(50)]
    assert {round(v, 9) if isinstance(v, float) else v for v in found} == neighbours


@given(domains, st.integers(1, 20))
def test_a_grid_has_at_most_so_many_distinct_values_in_order(domain, n):
    grid = domain.grid(n)
    assert 1 <= len(grid) <= n
    assert all(domain.contains(value) for value in grid)
    places = [domain.to_unit(value) for value in grid]
    assert places == sorted(places)


# -- misuse --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Real(1.0, 1.0), ValueError, "low equals high; give a constant as a plain value"),
        (lambda: Real(2.0, 1.0), ValueError, "low=2.0 is above high=1.0; swap them"),
        (lambda: Real(0.0, 1.0, log=True), ValueError, "log=True needs low above 0, got 0.0"),
        (lambda: Real(0.0, float("inf")), ValueError, "must be finite numbers"),
        (lambda: Real(float("nan"), 1.0), ValueError, "must be finite numbers"),
        (lambda: Real("0", 1.0), ValueError, "low='0' and high=1.0 must be finite numbers"),
        (lambda: Real(-1e308, 1e308), ValueError, "must be finite numbers"),
        (lambda: Integer(1, 2.5), TypeError, "high=2.5 must be an int; use Real for floats"),
        (lambda: Integer(False, 2), TypeError, "low=False must be an int"),
        (lambda: Integer(3, 1), ValueError, "swap them"),
        (lambda: Integer(0, 9, log=True), ValueError, "log=True needs low above 0, got 0"),
        (lambda: Ordinal([1]), ValueError, "at least two values"),
        (lambda: Ordinal([2, 1]), ValueError, "must increase strictly"),
        (lambda: Ordinal([1, 1]), ValueError, "must increase strictly"),
        (lambda: Ordinal(["a", "b"]), TypeError, "'a' is not a number; use Categorical"),
        (lambda: Ordinal([1, True]), TypeError, "True is not a number"),
        (lambda: Categorical(["a"]), ValueError, "at least two values"),
        (lambda: Categorical(["a", "b", "a"]), ValueError, "a value is given twice"),
        (lambda: Categorical([print, len]), TypeError, "Give names and look the objects up"),
        (lambda: Categorical([[1], [2]]), TypeError, "is a list; allowed are str"),
        (lambda: Categorical([1.0, float("nan")]), TypeError, "nan, which is not equal to itself"),
        (lambda: Space({}), ValueError, "is empty: give at least one hyperparameter"),
        (lambda: Space([("x", 1)]), TypeError, "must be a dict of names to domains"),
        (lambda: Space({1: Real(0, 1)}), TypeError, "the name 1 must be a non-empty string"),
        (lambda: Space({"": 1}), TypeError, "the name '' must be a non-empty string"),
        (lambda: Space({"x": [1, 2]}), TypeError, r"space\['x'\]=\[1, 2\] is a list; allowed"),
        (lambda: Space({"x": {"y": 1}}), TypeError, "is a dict; allowed are str"),
    ],
)
def test_misuse_is_refused_with_what_would_be_right(make, error, message):
    with pytest.raises(error, match=message):
        make()


# -- spaces --------------------------------------------------------------------------------------

SPACE = Space(
    {
        "lr": Real(1e-4, 1e-1, log=True),
        "loss": "mae",
        "layers": Integer(1, 4),
        "batch_size": Ordinal([40, 61, 79]),
        "kernel": Categorical([(3, 3), (5, 5)]),
    }
)
CONFIG = {"lr": 0.01, "loss": "mae", "layers": 2, "batch_size": 61, "kernel": (5, 5)}


def test_a_plain_value_is_a_constant_and_no_axis_of_the_cube():
    assert list(SPACE.domains) == ["lr", "layers", "batch_size", "kernel"]
    assert SPACE.constants == {"loss": "mae"}
    assert SPACE["loss"] == "mae"
    assert len(SPACE) == 5


def test_a_configuration_stands_in_the_order_of_the_space():
    assert list(SPACE.sample(rng(0, "test"))) == list(SPACE)
    assert list(SPACE.complete(dict(reversed(CONFIG.items())))) == list(SPACE)


@given(st.lists(UNIT, min_size=4, max_size=4))
def test_a_configuration_comes_back_from_the_unit_cube(point):
    config = SPACE.from_unit(point)
    assert SPACE.complete(config) == config
    back = SPACE.from_unit(SPACE.to_unit(config))
    assert back | {"lr": 0} == config | {"lr": 0}
    assert back["lr"] == pytest.approx(config["lr"])


@pytest.mark.parametrize("n", [3, 5])
def test_a_point_of_another_dimension_is_refused(n):
    with pytest.raises(ValueError, match="argument"):
        SPACE.from_unit([0.5] * n)


def test_complete_adds_the_constants():
    assert SPACE.complete({k: v for k, v in CONFIG.items() if k != "loss"}) == CONFIG


def test_complete_gives_numbers_as_the_space_would():
    given = {"lr": np.float32(0.5e-1), "layers": np.int64(2), "batch_size": 61.0, "kernel": (3, 3)}
    found = SPACE.complete(given)
    assert [type(found[name]) for name in ("lr", "layers", "batch_size")] == [float, int, int]
    assert json.loads(json.dumps(found))["batch_size"] == 61


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 1.0}, "lr=1.0 is not in Real"),
        ({"layers": 2.5}, "layers=2.5 is not in Integer"),
        ({"batch_size": 41}, "batch_size=41 is not in Ordinal"),
        ({"kernel": (7, 7)}, r"kernel=\(7, 7\) is not in Categorical"),
        ({"loss": "mse"}, "loss='mse' but the space fixes it at 'mae'"),
        ({"momentum": 0.9}, r"unknown names \['momentum'\], missing names \[\]"),
    ],
)
def test_complete_refuses_what_is_not_in_the_space(change, message):
    with pytest.raises(ValueError, match=message):
        SPACE.complete(CONFIG | change)


def test_complete_names_what_is_missing():
    with pytest.raises(ValueError, match=r"missing names \['layers', 'batch_size', 'kernel'\]"):
        SPACE.complete({"lr": 0.01})


def test_complete_does_not_touch_what_it_was_given():
    given = dict(CONFIG)
    SPACE.complete(given)["lr"] = 0.05
    assert given == CONFIG


@pytest.mark.parametrize(
    ("domain", "n"),
    [(Real(0, 1), 0), (Integer(3, 5), 3), (Ordinal([1, 10]), 2), (Categorical([*"abc"]), 3)],
    ids=repr,
)
def test_values_are_counted_where_that_can_be_done(domain, n):
    assert n_values(domain) == n


@pytest.mark.parametrize(
    ("domain", "value", "own"),
    [
        (Integer(1, 50), 40.0, 40),
        (Integer(1, 50), np.float32(40), 40),
        (Real(0, 0.1), np.float32(0.1), 0.1),  # a bound, as exactly as a float32 holds it
        (Real(0, 1), 1, 1.0),
        (Real(0, 1), np.float16(0.5), 0.5),
        (Ordinal([1, 2.5]), 1.0, 1),
        (Ordinal([1, 2.5]), np.float32(2.5), 2.5),
        (Categorical([1, 2, "a"]), 2.0, 2),
        (Categorical([1, True]), 1.0, 1),
        (Categorical([(1, 2), (3,)]), [1, 2.0], (1, 2)),
        (Categorical([1, 1.0]), 1.0, 1.0),
    ],
)
def test_a_value_becomes_the_domains_own(domain, value, own):
    found = Space({"x": domain}).complete({"x": value})["x"]
    assert (found, type(found)) == (own, type(own))


@pytest.mark.parametrize(
    ("domain", "value"),
    [
        *((Integer(1, 50), value) for value in (40.5, 0.0, True, "40", None, float("nan"))),
        *((Real(0, 1), value) for value in (1.5, True, "1", None, np.float32(1.0001))),
        *((Categorical([1, 2]), value) for value in (True, "1", None, 3.0, [1])),
        (Ordinal([1, 2]), True),
    ],
)
def test_another_value_is_no_value_of_the_domain(domain, value):
    with pytest.raises(ValueError, match="is not in"):
        Space({"x": domain}).complete({"x": value})


def test_a_constant_is_compared_by_value():
    space = Space({"x": Real(0, 1), "n": 3, "t": (2, 1), "b": True})
    found = space.complete({"x": 1, "n": np.float64(3), "t": [2, 1.0], "b": np.True_})
    assert found == {"x": 1.0, "n": 3, "t": (2, 1), "b": True}
    for change in ({"n": 4}, {"n": "3"}, {"b": 1}, {"t": (1,)}):
        with pytest.raises(ValueError, match="the space fixes it"):
            space.complete({"x": 1} | change)


@pytest.mark.parametrize(
    ("low", "high"), [(999999999.9999999, 1e9), (1.0, math.nextafter(1.0, 2.0)), (5e-324, 1e-323)]
)
def test_bounds_whose_logarithms_are_one_float_or_nearly_have_a_unit_interval(low, high):
    domain = Real(low, high, log=True)
    assert (domain.to_unit(low), domain.to_unit(high)) == (0.0, 1.0)
    assert domain.contains(domain.from_unit(0.5))


@pytest.mark.parametrize(
    ("bounds", "values"),
    [
        ((16, 64, 16), (16, 32, 48, 64)),
        ((0.1, 0.5, 0.1), (0.1, 0.2, 0.3, 0.4, 0.5)),  # not 0.30000000000000004
        ((0, 10, 4), (0, 4, 8)),
        ((1, 2, 0.5), (1.0, 1.5, 2.0)),
        ((-1.0, 1, 1), (-1.0, 0.0, 1.0)),
    ],
)
def test_an_ordinal_of_steps(bounds, values):
    made = Ordinal.steps(*bounds)
    assert made.values == values
    assert [type(value) for value in made.values] == [type(value) for value in values]


@pytest.mark.parametrize(
    "bounds", [(0, 1, 0), (0, 1, -1), (0, 1, 2), (0, 1e6, 1), ("a", 1, 1), (0, float("inf"), 1)]
)
def test_steps_that_are_refused(bounds):
    with pytest.raises(InvalidArgument, match=r"Ordinal\.steps"):
        Ordinal.steps(*bounds)
