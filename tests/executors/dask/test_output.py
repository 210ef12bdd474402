"""What trials print in a terminal is printed by the user's process, above the panel."""

from __future__ import annotations

import contextlib
import os
import pty
import sys
from pathlib import Path

import pytest

SCRIPT = """
from daskhpo import Study
from daskhpo.schedulers import FIFO
from daskhpo.space import Real

def train(config, trial):
    print(f"[red]hello[/red] from {trial.id}")
    trial.report({"loss": config["x"]})

study = Study(train, {"x": Real(0, 1)}, "loss", scheduler=FIFO(1), storage="runs", name="prints")
if __name__ == "__main__":
    study.run(3, max_concurrent=1)
"""


@pytest.mark.cluster
def test_prints_of_trials_stand_above_the_panel_and_in_files_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "prints.py").write_text(SCRIPT)
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(tmp_path)
        os.environ["TERM"] = "xterm"
        os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        os.execv(sys.executable, [sys.executable, "prints.py"])
    shown = b""
    with contextlib.suppress(OSError):  # the end of the child
        while read := os.read(terminal, 4096):
            shown += read
    assert os.waitpid(child, 0)[1] == 0, shown
    for number in range(3):
        assert shown.count(f"[red]hello[/red] from {number}\r\n".encode()) == 1, shown
        log = tmp_path / "runs" / "prints" / "logs" / f"{number}.log"
        assert log.read_text().splitlines()[1:] == [f"[red]hello[/red] from {number}"]
