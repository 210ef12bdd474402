"""What is sent to a browser brings it to the new columns, in small messages."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from daskhpo.dashboard.deltas import BUDGET, ROW_BYTES, Delta, SentColumns

numbers = st.floats(allow_infinity=False) | st.just(np.nan)
rows = st.dictionaries(st.integers(0, 30), st.tuples(numbers, st.text(max_size=3)), max_size=20)


def columns_of(table: dict[int, tuple[float, str]]) -> dict[str, Any]:
    return {
        "id": np.array([*table], int),
        "value": np.array([value for value, _ in table.values()], float),
        "text": [text for _, text in table.values()],
        "line": [np.array([value, key]) for key, (value, _) in table.items()],
    }


class Browser:
    """Columns as a browser holds them, by what it is sent."""

    def __init__(self, columns: dict[str, Any]) -> None:
        self.columns = {name: list(values) for name, values in columns.items()}

    def receive(self, delta: Delta) -> None:
        if delta.replace is not None:
            self.columns = {name: list(values) for name, values in delta.replace.items()}
        for name, cells in delta.patch.items():
            for place, value in cells:
                self.columns[name][place] = value
        for name, values in delta.append.items():
            self.columns[name] += list(values)

    def rows(self) -> dict[int, str]:
        columns = (self.columns[name] for name in ("id", "value", "text", "line"))
        return {
            int(key): repr((float(value), text, np.array(line).tolist()))
            for key, value, text, line in zip(*columns, strict=True)
            if key >= 0  # else it is blank
        }


@given(tables=st.lists(rows, min_size=2, max_size=5))
def test_a_browser_ends_with_the_new_rows(tables: list[dict[int, tuple[float, str]]]) -> None:
    first = columns_of(tables[0])
    sent, browser = SentColumns(first, "id"), Browser(first)
    for table in tables[1:]:
        new = columns_of(table)
        browser.receive(sent.update(new))
        assert browser.rows() == Browser(new).rows()
        assert not sent.update(new)


@given(st.lists(numbers, min_size=1, max_size=20), st.lists(numbers, min_size=1, max_size=20))
def test_without_a_key_rows_keep_their_order(old: list[float], new: list[float]) -> None:
    sent, browser = SentColumns({"y": np.array(old)}), Browser({"y": old})
    browser.receive(sent.update({"y": np.array(new)}))
    np.testing.assert_array_equal(browser.columns["y"], new)


def test_a_row_that_stays_keeps_its_place() -> None:
    def table(ids: list[int]) -> dict[str, Any]:
        return {"id": np.array(ids), "value": np.array(ids, float)}

    sent, browser = SentColumns(table([1, 2, 3]), "id"), Browser(table([1, 2, 3]))
    delta = sent.update(table([2, 3, 9, 10]))
    browser.receive(delta)
    assert browser.columns["id"] == [9, 2, 3, 10]
    assert delta.replace is None


def test_what_is_beyond_the_budget_follows_later() -> None:
    n = 3 * BUDGET // ROW_BYTES
    old = {"id": np.arange(n), "value": np.zeros(n)}
    new = {"id": np.arange(n), "value": np.ones(n)}
    sent, browser = SentColumns(old, "id"), Browser(old)
    n_messages = 0
    while delta := sent.update(new):
        assert len(delta.patch["value"]) * ROW_BYTES <= BUDGET
        browser.receive(delta)
        n_messages += 1
    assert n_messages > 3
    assert browser.columns["value"] == [1.0] * n


def test_the_first_rows_replace_nothing() -> None:
    sent = SentColumns({"y": np.array([])})
    assert sent.update({"y": np.array([])}).replace is None
    assert sent.update({"y": np.array([1.0])}).replace is not None


def test_a_few_rows_that_left_become_blank_and_are_used_again() -> None:
    def table(ids: range) -> dict[str, Any]:
        lines = [np.array([float(key)]) for key in ids]
        return {"id": np.array(ids), "value": np.array(ids, float), "line": lines}

    sent, browser = SentColumns(table(range(10)), "id"), Browser(table(range(10)))
    delta = sent.update(table(range(1, 10)))
    browser.receive(delta)
    assert delta.replace is None
    assert browser.columns["id"] == [-1, *range(1, 10)]
    assert np.isnan(browser.columns["value"][0])
    browser.receive(sent.update(table(range(1, 11))))
    assert browser.columns["id"] == [10, *range(1, 10)]
    assert sent.update(table(range(1, 4))).replace is not None


def test_images_are_sent_again_as_a_whole_when_one_has_changed() -> None:
    def images(*names: str) -> dict[str, Any]:
        return {"name": [*names], "image": [np.full((2, 3), len(name)) for name in names]}

    sent = SentColumns(images("a", "b"))
    assert not sent.update(images("a", "b"))
    delta = sent.update(images("a", "longer"))
    assert delta.replace is not None
    assert delta.replace["name"] == ["a", "longer"]
    assert not sent.update(images("a", "longer"))
