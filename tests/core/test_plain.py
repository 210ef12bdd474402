"""What may enter a study: carried exactly, or refused with what is allowed."""

from __future__ import annotations

import decimal
import enum
import json
from typing import Any, NamedTuple

import numpy as np
import pytest

from daskhpo.core.domains import Categorical, Integer, Ordinal, Real
from daskhpo.core.errors import MetricError
from daskhpo.core.objective import Objective
from daskhpo.core.plain import LARGEST_INT, LONGEST_TEXT, readable, short, why_not_plain
from daskhpo.core.space import Space
from daskhpo.core.types import Status


class Kind(enum.StrEnum):
    A = "a"


class Level(enum.IntEnum):
    LOW = 1


class Pair(NamedTuple):
    x: int
    y: int


class Loud:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


PLAIN = ["a", "é", "\x00", 0, -(2**70), LARGEST_INT, 1.5, float("inf"), True, None, (), (1, ("a",))]
NOT_PLAIN = {
    "enum of str": (Kind.A, "is a Kind"),
    "enum of int": (Level.LOW, "is a Level"),
    "enum": (enum.Enum("Plain", "a").a, "is a Plain"),
    "in a tuple": ((1, (Kind.A,)), "is a Kind"),
    "named tuple": (Pair(1, 2), "is a Pair"),
    "huge": (LARGEST_INT + 1, "is an int beyond"),
    "very huge": (-(10**5000), "is an int beyond"),
    "nan": (float("nan"), "not equal to itself"),
    "surrogate": ("t\udce9", "lone surrogate"),
    "list": ([1], "is a list"),
    "bytes": (b"a", "is a bytes"),
    "decimal": (decimal.Decimal(1), "is a Decimal"),
    "array": (np.zeros(1), "is a ndarray"),
    "date": (np.datetime64("2020-01-01", "ns"), "is a datetime64"),
    "duration": (np.timedelta64(1, "ns"), "is a timedelta64"),
    "complex": (1j, "is a complex"),
    "no repr": (Loud(), "is a Loud"),
}


@pytest.mark.parametrize("value", PLAIN, ids=repr)
def test_a_plain_value_comes_back_from_json(value: Any) -> None:
    assert why_not_plain(value) == ""
    config = Space({"c": value, "x": Real(0, 1)}).complete({"x": 0.5})
    found = json.loads(json.dumps(config["c"]))
    assert found == (json.loads(json.dumps(value)) if isinstance(value, tuple) else value)
    assert type(found) is type(config["c"]) or isinstance(value, tuple)


@pytest.mark.parametrize(("value", "reason"), NOT_PLAIN.values(), ids=NOT_PLAIN)
def test_what_would_come_back_as_another_value_is_refused(value: Any, reason: str) -> None:
    with pytest.raises(TypeError, match=f"{reason}.*") as constant:
        Space({"c": value})
    assert "'c'" in str(constant.value)
    with pytest.raises(TypeError, match=reason):
        Categorical([value, 1])


def test_names_are_plain_too() -> None:
    for name in (Kind.A, "t\udce9", "", 1):
        with pytest.raises(TypeError, match="must be a non-empty string"):
            Space({name: 1})


@pytest.mark.parametrize("make", [Real, Integer, lambda low, high: Ordinal([low, high])])
@pytest.mark.parametrize("bounds", [(0, 10**400), (-(10**400), 1), (0, np.inf), (np.nan, 1)])
def test_bounds_that_no_float_holds_are_refused(make: Any, bounds: tuple[Any, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=r"must be|not a number"):
        make(*bounds)


def test_an_integer_beyond_64_bits_is_drawn_and_moved_inside_its_bounds() -> None:
    generator = np.random.default_rng(0)
    for domain in (
        Integer(2**66, 2**70),
        Integer(1, LARGEST_INT // 2),
        Integer(1, 2**900, log=True),
    ):
        value = domain.high
        for _ in range(50):
            value = domain.perturb(value, generator)
            assert domain.contains(value)
            assert domain.contains(domain.sample(generator))
            assert 0 <= domain.to_unit(value) <= 1


NUMBERS = {
    "int": (3, 3),
    "large int": (3 * 10**20, 3 * 10**20),
    "bool": (True, 1),
    "enum": (Level.LOW, 1),
    "np.float16": (np.float16(0.5), 0.5),
    "np.float32": (np.float32(0.1), float(np.float32(0.1))),
    "np.longdouble": (np.longdouble(0.5), 0.5),
    "np.uint64": (np.uint64(2**64 - 1), 2**64 - 1),
    "np.bool": (np.True_, 1),
    "array": (np.array([2.5]), 2.5),
    "array of ints": (np.array(7), 7),
}


@pytest.mark.parametrize(("given", "wanted"), NUMBERS.values(), ids=NUMBERS)
def test_a_number_of_any_kind_is_a_metric(given: Any, wanted: float) -> None:
    metrics = Objective("loss").check({"loss": given})
    assert metrics == {"loss": wanted}
    assert type(metrics["loss"]) in (int, float, bool)


NO_NUMBERS = {
    "beyond floats": 10**400,
    "duration": np.timedelta64(5, "ns"),
    "date": np.datetime64("2020-01-01", "ns"),
    "complex": np.complex128(1),
    "text": "1",
    "two": np.zeros(2),
    "none": None,
    "no repr": Loud(),
}


@pytest.mark.parametrize("given", NO_NUMBERS.values(), ids=NO_NUMBERS)
def test_what_is_no_number_is_refused_by_name(given: Any) -> None:
    with pytest.raises(MetricError, match="'loss'"):
        Objective("loss").check({"loss": given})


@pytest.mark.parametrize("name", ["t\udce9", Kind.A, 3])
def test_a_metrics_name_is_text_that_a_file_can_hold(name: Any) -> None:
    with pytest.raises(MetricError, match=r"surrogate|names to numbers"):
        Objective("loss").check({"loss": 1.0, name: 1.0})


def test_a_message_shows_a_large_value_in_short() -> None:
    with pytest.raises(MetricError) as error:
        Objective("loss").check(list(range(10**6)))
    assert len(str(error.value)) < 500
    assert "Loud" in short(Loud())


def test_the_text_of_an_error_can_be_written_and_is_not_endless() -> None:
    assert readable("t\udce9l\udce9.csv") == r"t\udce9l\udce9.csv"
    assert readable("é") == "é"
    long = "first" + "x" * 10**6 + "last"
    assert len(readable(long)) < LONGEST_TEXT + 100
    assert readable(long).startswith("first")
    assert readable(long).endswith("last")


@pytest.mark.parametrize("status", list(Status))
def test_a_status_is_its_word_in_every_way(status: Status) -> None:
    assert status == status.value
    assert {status: 1}[status.value] == 1  # type: ignore[index]
    assert f"{status}" == status.value
    assert json.loads(json.dumps({"status": status})) == {"status": status.value}
    assert Status(status.value) is status
