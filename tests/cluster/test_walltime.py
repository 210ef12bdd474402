"""Lengths of time as Slurm writes them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskhpo.cluster.walltime import slurm_seconds, slurm_text, walltime_seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [  # all forms of sbatch's --time
        ("90", 5400),
        ("90:30", 5430),
        ("04:00:00", 14400),
        ("2-12", 2 * 86400 + 12 * 3600),
        ("2-12:30", 2 * 86400 + 12 * 3600 + 1800),
        ("7-00:00:00", 7 * 86400),
        ("UNLIMITED", math.inf),
        ("infinite", math.inf),
        ("NONE", None),
        ("Partition_Limit", None),
        ("", None),
        ("4h", None),
        ("1:2:3:4", None),
    ],
)
def test_slurms_notation_is_read(text, seconds):
    assert slurm_seconds(text) == seconds


@given(st.integers(1, 10**7))
def test_what_is_written_is_read_again(seconds):
    assert slurm_seconds(slurm_text(seconds)) == seconds


@pytest.mark.parametrize(("text", "seconds"), [("4h", 14400), ("1h30m", 5400), ("0:30", 30)])
def test_users_write_either_way(text, seconds):
    assert walltime_seconds(text) == seconds


@pytest.mark.parametrize("text", ["soon", "-1", "UNLIMITED", "0", "", "4 hours"])
def test_what_is_no_walltime_is_refused(text):
    with pytest.raises(ValueError, match="walltime="):
        walltime_seconds(text)
