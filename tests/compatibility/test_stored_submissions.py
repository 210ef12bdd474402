"""Submissions written by the version before the rooms moved: a job that waits in a queue starts.

``fixtures/submission-*`` are the directories of two studies that were submitted then, one with
workers as jobs of their own, one with all in one allocation. They are never made again.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from daskhpo.core.types import CheckpointPolicy
from daskhpo.engine.options import RunOptions
from daskhpo.engine.session import read_manifest
from daskhpo.remote.script import controller_script
from daskhpo.remote.submission import (
    ControllerAddress,
    ControllerJob,
    JobDirectory,
    Submission,
    WorkerJobs,
    WorkerSteps,
)

FIXTURES = Path(__file__).with_name("fixtures")
NAMES = pytest.mark.parametrize("name", ["submission-jobs", "submission-steps"])
PYTHON = "/home/user/env/bin/python"


def test_workers_as_jobs_are_read():
    assert JobDirectory(FIXTURES / "submission-jobs").submission() == Submission(
        source="/home/user/made.py:asha",
        options=RunOptions(
            num_trials=20,
            time_budget=28800.0,
            target=0.01,
            checkpoint=CheckpointPolicy("every", every=3),
            resources={"cpu": 2, "gpu": 0.5},
            max_concurrent=6,
        ),
        job=ControllerJob(
            43200.0,
            "long",
            "chem",
            2,
            "3815M",
            ("--constraint=cpu",),
            ("module load python",),
            3,
        ),
        workers=WorkerJobs(
            {
                "jobs": 4,
                "queue": "gpu",
                "walltime": "04:00:00",
                "cores": 8,
                "memory": "32GB",
                "trials_per_gpu": 2,
                "job_extra_directives": ["-C gpu"],
            }
        ),
        since=12.5,
        folder="/home/user",
        login="login1",
    )


def test_workers_as_steps_are_read():
    submission = JobDirectory(FIXTURES / "submission-steps").submission()
    assert submission.workers == WorkerSteps(2, 4, 1, 1, 8, 15259, "hsn0")
    assert submission.options.resources == {"cpu": 2, "gpu": 1.0}


@NAMES
def test_all_of_a_submission_is_written_as_it_was(name, tmp_path):
    then, now = JobDirectory(FIXTURES / name), JobDirectory(tmp_path / name)
    now.create()
    now.write(then.submission())
    now.write_number(then.number())
    now.write_address(then.address())
    for file in ("submission.json", "number.json", "head.json"):
        assert (now.path / file).read_text() == (then.path / file).read_text()


@NAMES
def test_number_and_place_are_read(name):
    folder = JobDirectory(FIXTURES / name)
    assert folder.number() == "4711"
    assert folder.address() == ControllerAddress("4711", "node17", 40123)
    assert read_manifest(folder.study).source == "/home/user/made.py:asha"


@NAMES
def test_the_script_asks_for_the_same_job(name):
    then = JobDirectory(FIXTURES / name)
    study = Path("/home/user/runs") / name.replace("submission-", "")
    *lines, command = then.script.read_text().splitlines()
    *now, started = controller_script(then.submission(), JobDirectory(study)).splitlines()
    assert now == lines
    assert re.sub(r"exec \S+ -m \S+", "", started) == re.sub(r"exec \S+ -m \S+", "", command)


@NAMES
def test_the_command_of_a_script_that_waits_in_a_queue_still_starts(name, tmp_path):
    """It gets as far as to the study's file, which is on another machine."""
    shutil.copytree(FIXTURES / name, tmp_path / name)
    words = JobDirectory(FIXTURES / name).script.read_text().splitlines()[-1].split()
    assert words[:2] == ["exec", PYTHON]
    run = subprocess.run(
        [sys.executable, *words[2:-1], str(tmp_path / name)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert run.returncode == 1, run.stderr
    assert "'/home/user/made.py:asha' must be FILE.py:NAME, with a file that exists" in run.stderr


def test_the_command_of_worker_jobs_still_starts():
    run = subprocess.run(
        [sys.executable, "-m", "daskhpo.cluster.worker", "--help"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "--trials-per-gpu" in run.stdout


def test_keys_of_a_submission_are_those_of_then():
    data = json.loads((FIXTURES / "submission-jobs/job/submission.json").read_text())
    assert data["workers"][0] == "WorkerJobs"
    assert data["format"] == 1
