"""When a job ends: what the environment, Slurm and the job script say, in this order."""

from __future__ import annotations

import pytest

from daskhpo.cluster.walltime import StepTimer, WalltimeReserve, job_end

STARTED, NOW = 1000.0, 1010.0


@pytest.mark.parametrize(
    ("environ", "left", "walltime", "end"),
    [
        ({"SLURM_JOB_END_TIME": "5000"}, 60.0, 600.0, 5000.0),
        ({}, 60.0, 600.0, NOW + 60),  # asked now, so counted from now
        ({}, None, 600.0, STARTED + 600),  # Slurm could not be asked, but the script knows
        ({}, None, None, None),
        ({"SLURM_JOB_END_TIME": "unknown"}, None, 600.0, STARTED + 600),
        # The clock here is an hour behind Slurm's, or some minutes before it.
        ({"SLURM_JOB_START_TIME": "4590", "SLURM_JOB_END_TIME": "5190"}, None, 600.0, NOW + 600),
        ({"SLURM_JOB_START_TIME": "600", "SLURM_JOB_END_TIME": "1200"}, None, 600.0, 1200.0),
        ({}, 4200.0, 600.0, STARTED + 600),
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


# -- what is left free ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "left", "fits"),
    [
        (10.0, 32.1, True),  # a fifth more than the step, and the reserve
        (10.0, 32.0, False),
        (0.0, 20.1, True),  # no step is known yet
        (0.0, 20.0, False),
        (1e9, None, True),  # no end is known
    ],
)
def test_a_step_fits_if_the_reserve_stays_free_though_it_takes_longer(step, left, fits):
    assert WalltimeReserve(20.0).fits(step, left) is fits


def test_a_reserve_may_be_limited_and_a_longer_step_is_then_begun_all_the_same():
    reserve = WalltimeReserve(60.0, limit=90.0)
    assert [reserve.needed(step) for step in (0.0, 10.0, 25.0, 1000.0)] == [60.0, 72.0, 90.0, 90.0]
    assert reserve.fits(1000.0, 91.0)
