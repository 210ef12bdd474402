"""The comparison of methods, whose workers are jobs of a real Slurm."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("torch")
pytest.importorskip("ase")
pytest.importorskip("matplotlib")

from experiments.time_to_solution import machine
from experiments.time_to_solution.methods import METHODS
from tests.slurm.slurm import Slurm, until

pytestmark = [pytest.mark.slurm, pytest.mark.long]

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(400)
def test_all_methods_run_by_jobs_and_are_reported(slurm: Slurm, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("<!-- results of smoke: begin -->\n<!-- results of smoke: end -->\n")
    command = [sys.executable, "-m", "experiments.time_to_solution.study", "--profile", "smoke"]
    command += ["--seeds", "1", "--storage", str(tmp_path / "runs"), "--readme", str(readme)]
    for word in ("gpus_per_job=0", "cores=1", "memory=900MB", "walltime=10m"):
        command += ["--slurm", word]
    places = ("log_directory", "shared_temp_directory")
    command += [part for place in places for part in ("--slurm", f"{place}={tmp_path}")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    table = pd.read_csv(tmp_path / "runs" / "smoke.csv").set_index("method")
    assert list(table.index) == list(METHODS)
    assert (table.epochs > 0).all()
    assert "Profile `smoke`, seeds 0" in readme.read_text()
    for name in METHODS:
        assert machine.read(tmp_path / "runs" / f"smoke-0-{name}").whole
    until(lambda: not slurm.jobs(), "its jobs are gone")
