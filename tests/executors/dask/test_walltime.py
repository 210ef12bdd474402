"""When a job ends: what the environment, Slurm and the job script say, in this order."""

from __future__ import annotations

import pytest

from daskhpo.executors.dask.walltime import job_end, slurm_seconds

STARTED, NOW = 1000.0, 1010.0


@pytest.mark.parametrize(
    ("environ", "left", "walltime", "end"),
    [
        ({"SLURM_JOB_END_TIME": "5000"}, "1:00", 600.0, 5000.0),
        ({}, "1:00\n", 600.0, NOW + 60),  # asked now, so counted from now
        ({}, "UNLIMITED", 600.0, STARTED + 600),  # its partition has no limit, the script knows one
        ({}, "INVALID", None, None),
        ({}, "", 600.0, STARTED + 600),
        ({}, None, 600.0, STARTED + 600),  # Slurm could not be asked
        ({}, None, None, None),
        ({"SLURM_JOB_END_TIME": "unknown"}, None, 600.0, STARTED + 600),
    ],
)
def test_the_end_of_a_job(environ, left, walltime, end):
    assert job_end(environ, left, walltime, STARTED, NOW) == end


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 1800),
        ("2:30", 150),
        ("04:00:00", 14400),
        ("1-00", 86400),
        ("1-12:30", 131400),
        ("2-01:02:03", 176523),
        ("0:07", 7),
        ("UNLIMITED", None),
        ("NOT_SET", None),
        ("", None),
        ("1:2:3:4", None),
        ("-5", None),
        ("4h", None),
    ],
)
def test_times_as_slurm_writes_them(text, seconds):
    assert slurm_seconds(text) == seconds
