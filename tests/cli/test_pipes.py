"""Commands whose reader leaves, or whose user has enough: no traceback, and the right status."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

STUDY = Path(__file__).parents[1] / "compatibility/fixtures/study-1"
SCRIPT = """
import time
from daskhpo import Study
from daskhpo.schedulers import FIFO
from daskhpo.space import Real

def train(config, trial):
    print("it trains", flush=True)
    open("began", "w").close()
    time.sleep(100)

study = Study(train, {"x": Real(0, 1)}, "loss", scheduler=FIFO(3), storage="runs", name="slow")
"""


def start(*arguments: str, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "daskhpo.cli", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        **options,  # type: ignore[call-overload]
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["run", "--help"],
        ["status", str(STUDY)],
        ["status", str(STUDY), "4"],
        ["best", str(STUDY), "-k", "9", "--json"],
        ["cost", str(STUDY), "--trials"],
        ["checkpoints", str(STUDY)],
    ],
    ids=" ".join,
)
def test_a_reader_that_leaves_is_no_error(arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    with start(*arguments, stdout=write) as process:
        os.close(write)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")


@pytest.mark.cluster
def test_a_second_interrupt_ends_the_command_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SCRIPT)
    run = ("run", "slow.py:study", "--num-trials", "1", "--max-concurrent", "1")
    with start(*run, cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "dashboard" in line:
                break
        while not (tmp_path / "began").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        for line in process.stderr:
            if "Ctrl-C again" in line:
                break
        process.send_signal(signal.SIGINT)
        errors = process.stderr.read()
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "daskhpo: interrupted; what was reported until now is kept" in errors.splitlines()
