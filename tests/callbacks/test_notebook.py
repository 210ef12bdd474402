"""Progress in a notebook is one output, which is updated in place."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daskhpo.callbacks import ConsoleProgress
from daskhpo.callbacks.notebook import is_notebook
from daskhpo.callbacks.values import StudyInfo
from daskhpo.core.events import Ended, Launched, Reported, SessionStarted, Step, Suggested
from daskhpo.core.objective import Objective
from daskhpo.core.types import CheckpointPolicy, Limits, Status, Stop
from daskhpo.testing.callback import follow

LIMITS = Limits(num_trials=9)


def ended(trial: int) -> list[Any]:
    at = float(trial)
    return [
        Suggested(trial, {"x": 0.25}, 0, at),
        Launched(trial, 1, 0, 1, at),
        Reported(trial, 1, (Step(1, {"loss": 3.0}, at),), at, decision=Stop("done")),
        Ended(trial, Status.COMPLETED, "done", at),
    ]


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """IPython's own shell, which keeps what a kernel would send to the notebook."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    shells = pytest.importorskip("IPython.core.interactiveshell")
    publishers = pytest.importorskip("IPython.core.displaypub")
    config = pytest.importorskip("traitlets.config").Config()
    config.HistoryManager.enabled = False
    shell = shells.InteractiveShell.instance(config=config)
    shell.display_pub = publishers.CapturingDisplayPublisher()
    yield shell
    shells.InteractiveShell.clear_instance()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("has_kernel", [True, False])
def test_a_notebook_has_one_output_that_changes(
    has_kernel: bool, shell: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("daskhpo.callbacks.console.NOTEBOOK_SECONDS", 0.0)
    if has_kernel:
        shell.kernel = object()
    assert is_notebook() == has_kernel
    info = StudyInfo("n", Path("runs/n"), Objective("loss"), LIMITS, "FIFO(1)", None, None)
    followers = follow([ConsoleProgress()], [SessionStarted(LIMITS, CheckpointPolicy(), 0.0)], info)
    for trial in range(3):
        for record in ended(trial):
            followers.apply(record)
        followers.tick()
    followers.end()
    lines = [line for line in capsys.readouterr().err.splitlines() if " of 9: " in line]
    shown = shell.display_pub.outputs
    if not has_kernel:
        assert (shown, len(lines)) == ([], 1)
        return
    assert lines == []
    texts = [output["data"]["text/plain"] for output in shown]
    assert len({output["transient"]["display_id"] for output in shown}) == 1
    assert [output["update"] for output in shown] == [False] + [True] * (len(shown) - 1)
    assert "3 of 9: 0 running, 3 completed" in texts[-1]
    assert all("x=0.25" in text for text in texts[-2:])  # the place of the best stays


def test_ipython_is_not_imported_to_find_out() -> None:
    code = (
        "import sys; from daskhpo.callbacks.notebook import is_notebook\n"
        "print(is_notebook(), 'IPython' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
