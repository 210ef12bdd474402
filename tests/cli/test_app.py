"""The command line, as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from daskhpo import load_study
from daskhpo.cli import main
from daskhpo.engine.lock import StudyLock
from tests.cli.command import daskhpo
from tests.plots.made import write_study

FILE = """
from daskhpo import Study, Trainable
from daskhpo.schedulers import ASHA
from daskhpo.space import Categorical, Real

class Net(Trainable):
    def setup(self, config):
        self.n = 0
    def step(self):
        self.n += 1
        return {"loss": self.trial.config["x"] + 1 / self.n}

study = Study(Net, {"x": Real(0, 1), "kind": Categorical(["a", "b"])}, "loss",
              scheduler=ASHA(9), storage="runs", name="first")
other = 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(FILE)
    return tmp_path


@pytest.mark.cluster
def test_a_study_is_run_looked_at_and_gone_on_with(folder: Path) -> None:
    run = daskhpo(folder, "run", "mine.py:study", "--num-trials", "8")
    assert run.returncode == 0, run.stderr
    result = load_study(folder / "runs/first")
    assert len(result.trials()) == 8
    assert f"loss={result.best_value:.6g}" in run.stdout
    assert "8 of 8" in run.stderr

    status = daskhpo(folder, "status", "runs/first")
    assert "trials    8:" in status.stdout, status
    assert "not running" in status.stdout
    assert "ASHA(max_t=9" in status.stdout
    assert "waited    0.0 slot-seconds lost waiting for the searcher\n" in status.stdout

    best = daskhpo(folder, "best", "runs/first", "-k", "2", "--json")
    rows = [json.loads(line) for line in best.stdout.splitlines()]
    assert rows[0]["loss"] == result.best_value <= rows[1]["loss"]
    assert rows[0]["config"] == result.best_config

    resume = daskhpo(folder, "resume", "runs/first", "--num-trials", "11")
    assert resume.returncode == 0, resume.stderr
    assert len(load_study(folder / "runs/first").trials()) == 11


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "mine.py:study"), "--num-trials, --time-budget or --target"),
        (("run", "mine.py:nothing", "--num-trials", "1"), "has no Study named 'nothing'"),
        (("run", "mine.py:other", "--num-trials", "1"), "it has ['study']"),
        (("run", "yours.py:study", "--num-trials", "1"), "with a file that exists"),
        (("run", "mine.py:study", "--time-budget", "soon"), "not understood"),
        (("status", "runs/none"), "holds no study"),
        (("best", "runs/none"), "holds no study"),
        (("resume", "runs/none"), "holds no study"),
    ],
)
def test_a_mistake_is_named_in_one_line_without_a_traceback(
    arguments: tuple[str, ...], message: str, folder: Path
) -> None:
    process = daskhpo(folder, *arguments)
    assert process.returncode == 2
    assert message in process.stderr
    assert "Traceback" not in process.stderr


@pytest.mark.cluster
def test_a_study_that_a_script_began_says_how_to_resume_it(folder: Path) -> None:
    code = "import mine\nif __name__ == '__main__':\n    mine.study.run(2, progress=False)\n"
    (folder / "script.py").write_text(code)
    subprocess.run([sys.executable, "script.py"], cwd=folder, check=True, timeout=60)
    refused = daskhpo(folder, "resume", "runs/first", "--num-trials", "3")
    assert refused.returncode == 2
    assert "daskhpo resume runs/first FILE.py:NAME" in refused.stderr
    resumed = daskhpo(folder, "resume", "runs/first", "mine.py:study", "--num-trials", "3")
    assert resumed.returncode == 0, resumed.stderr
    assert len(load_study(folder / "runs/first").trials()) == 3


@pytest.mark.cluster
def test_a_branch_and_a_moved_study_are_resumed_where_they_are(folder: Path) -> None:
    run = daskhpo(folder, "run", "mine.py:study", "--num-trials", "2")
    assert run.returncode == 0, run.stderr
    code = "import mine\nif __name__ == '__main__':\n    mine.study.branch('branch')\n"
    (folder / "script.py").write_text(code)
    subprocess.run([sys.executable, "script.py"], cwd=folder, check=True, timeout=60)
    (folder / "runs/first").rename(folder / "elsewhere")
    for path, n_trials in (("runs/branch", 3), ("elsewhere", 4)):
        resumed = daskhpo(folder, "resume", path, "--num-trials", str(n_trials))
        assert resumed.returncode == 0, resumed.stderr
        assert len(load_study(folder / path).trials()) == n_trials
    assert not (folder / "runs/first").exists()

    (folder / "yours.py").write_text(FILE)  # another file: it may train something else
    refused = daskhpo(folder, "resume", "elsewhere", "yours.py:study", "--num-trials", "5")
    assert refused.returncode == 2
    assert "defines the study in runs/first, not elsewhere" in refused.stderr


def test_the_status_of_a_running_study_says_what_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_study(tmp_path, num_trials=100, share=0.5)
    main(["status", str(tmp_path)])
    stopped = capsys.readouterr().out
    assert "state     not running\n" in stopped
    assert "left " not in stopped
    lock = StudyLock(tmp_path)
    try:
        main(["status", str(tmp_path)])
    finally:
        lock.release()
    running = capsys.readouterr().out
    assert "state     running, in process " in running
    assert "left      about " in running


def test_the_best_value_is_said_with_the_training_before_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_study(tmp_path, num_trials=30)
    history = load_study(tmp_path).history()
    best = history.loc[history["error"].idxmin()]
    after = f"trial {best['trial']:.0f} after {best['resource']:.0f} units of training"
    for command in ("status", "best"):
        main([command, str(tmp_path)])
        assert after in capsys.readouterr().out
    main(["best", str(tmp_path), "--json"])
    assert json.loads(capsys.readouterr().out)["best_resource"] == best["resource"]
