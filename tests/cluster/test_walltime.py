"""When a job ends: what the environment, Slurm and the job script say, in this order."""

from __future__ import annotations

import pytest

from daskhpo.cluster.walltime import StepTimer, job_end

STARTED, NOW = 1000.0, 1010.0


@pytest.mark.parametrize(
    ("environ", "left", "walltime", "end"),
    [
        ({"SLURM_JOB_END_TIME": "5000"}, 60.0, 600.0, 5000.0),
        ({}, 60.0, 600.0, NOW + 60),  # asked now, so counted from now
        ({}, None, 600.0, STARTED + 600),  # Slurm could not be asked, but the script knows
        ({}, None, None, None),
        ({"SLURM_JOB_END_TIME": "unknown"}, None, 600.0, STARTED + 600),
    ],
)
def test_the_end_of_a_job(environ, left, walltime, end):
    assert job_end(environ, left, walltime, STARTED, NOW) == end


def test_the_longest_of_the_last_steps_counts() -> None:
    timer = StepTimer(keep=3)
    assert timer.longest == 0.0
    for seconds in (9.0, 1.0, 3.0, 2.0):  # the first one read the data, too
        timer.observe(seconds)
    assert timer.longest == 3.0
