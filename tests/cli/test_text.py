"""How the command line writes tables, sizes and times."""

from __future__ import annotations

import pytest

from daskhpo.cli.text import columns, count, duration
from daskhpo.core.sizes import size_text


def test_columns_are_as_wide_as_their_widest_cell():
    assert columns([["", "n"], ["ab", "100"]]) == "      n\nab  100"
    assert columns([["a", "b"], ["cc", "dd"]], left=(0, 1)) == "a   b\ncc  dd"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0123, "0.0123 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min"),
        (83.0, "1 min 23 s"),
        (599.6, "10 min"),
        (3570.0, "1 h"),
        (3569.0, "59 min"),
        (7260.0, "2 h 1 min"),
        (172_799.0, "2 d"),
        (180_000.0, "2 d 2 h"),
    ],
)
def test_times_have_two_units_at_most(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (5e9, "5.0 GB"), (2e15, "2000.0 TB")],
)
def test_sizes_have_their_unit(n_bytes, text):
    assert size_text(n_bytes) == text


def test_one_is_no_plural():
    assert [count(n, "trial") for n in (0, 1, 2000)] == ["0 trials", "1 trial", "2,000 trials"]
