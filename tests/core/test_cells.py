"""Values come back from a CSV file as they were, and older files are read as before."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskhpo.core.cells import decode_cell, encode_cell

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


@given(st.recursive(SCALARS, lambda inner: st.lists(inner).map(tuple), max_leaves=5))
def test_a_value_comes_back_with_its_type(value):
    found = decode_cell(encode_cell(value))
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("text", ["adam", "größe", "a,b", "(1, 2)", "1e", "-", "[x", "nan"])
def test_text_that_can_be_nothing_else_stands_as_it_is(text):
    assert encode_cell(text) == text


@pytest.mark.parametrize(
    "text", ["1", "1.5", "", "None", "null", "true", "True", "[1]", "NaN", '"']
)
def test_text_that_could_be_another_value_comes_back_as_text(text):
    assert decode_cell(encode_cell(text)) == text


@pytest.mark.parametrize(
    ("cell", "value"), [("16", 16), ("0.5", 0.5), ("adam", "adam"), ("True", True), ("", None)]
)
def test_cells_of_older_files_are_read(cell, value):
    assert decode_cell(cell) == value
    assert type(decode_cell(cell)) is type(value)


@pytest.mark.parametrize("text", ["=1+1", "+1;cmd", "-x", "@SUM(A1)", "\t=1", "=cmd|' /C calc'!A0"])
def test_no_cell_is_a_formula(text: str) -> None:
    cell = encode_cell(text)
    assert cell[0] not in "=+-@\t\r"
    assert decode_cell(cell) == text
