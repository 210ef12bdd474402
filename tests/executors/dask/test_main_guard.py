"""A script without a main guard is told so in one sentence, before any process starts.

What was piped or typed needs no guard: there is no file that workers could run again.
"""

from __future__ import annotations

import os
import subprocess
import sys
import types
from multiprocessing.spawn import get_preparation_data
from pathlib import Path
from typing import Any

import pytest

from daskhpo.executors.dask.main_module import hidden_main

HEAD = """
import multiprocessing
from daskhpo.executors.dask.main_module import check_main_guard

def main():
    check_main_guard()
    print("passed")
"""

GUARDED = {
    "guard": 'if __name__ == "__main__":\n    main()\n',
    "other way round": 'if "__main__" == __name__:\n    for _ in range(1):\n        main()\n',
    "another thread": "import threading\nt = threading.Thread(target=main)\nt.start()\nt.join()\n",
}
UNGUARDED = {
    "call": "main()\n",
    "in a block": "for _ in range(1):\n    main()\n",
    "another condition": "if True:\n    main()\n",
    "method": "class A:\n    run = staticmethod(main)\n\n\nA().run()\n",
}


def run(tmp_path: Path, end: str) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "script.py"
    path.write_text(HEAD + end)
    return subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("end", GUARDED.values(), ids=GUARDED)
def test_a_script_with_a_guard_passes(end: str, tmp_path: Path) -> None:
    done = run(tmp_path, end)
    assert (done.returncode, done.stdout) == (0, "passed\n"), done.stderr


@pytest.mark.parametrize("end", UNGUARDED.values(), ids=UNGUARDED)
def test_a_script_without_a_guard_is_refused_in_one_sentence(end: str, tmp_path: Path) -> None:
    done = run(tmp_path, end)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    line = (HEAD + end).splitlines().index(end.strip().splitlines()[-1]) + 1
    assert last == (
        f"RuntimeError: {tmp_path / 'script.py'}, line {line}, starts worker processes, each of "
        'which would run the script again: put the line under `if __name__ == "__main__":`'
    )


STUDY = """
import atexit, time
from daskhpo import Study
from daskhpo.schedulers import FIFO
from daskhpo.space import Real

def train(config, trial):
    atexit.register(time.sleep, 60)
    trial.report({"loss": config["x"]})

study = Study(train, {"x": Real(0, 1)}, "loss", scheduler=FIFO(1), name="piped")
print(study.run(2, max_concurrent=1).num_trials, "trials")
"""


def without_file(code: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        input=code,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        **options,
    )


@pytest.mark.parametrize("arguments", [["-"], [], ["-c", HEAD + "main()"]], ids=["-", "", "-c"])
def test_code_without_a_file_passes(arguments: list[str]) -> None:
    done = without_file(HEAD + "main()", *arguments)
    assert done.stdout == "passed\n", done.stderr


@pytest.mark.parametrize("path", ["<stdin>", "/dev/fd/63", "/nowhere/deleted.py"])
def test_workers_do_not_look_for_a_script_that_is_no_file(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = types.ModuleType("__main__")
    main.__file__ = path
    monkeypatch.setitem(sys.modules, "__main__", main)
    with hidden_main():
        assert "init_main_from_path" not in get_preparation_data("worker")
    assert main.__file__ == path


def test_workers_find_a_script_that_is_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    main = types.ModuleType("__main__")
    main.__file__ = __file__
    monkeypatch.setitem(sys.modules, "__main__", main)
    with hidden_main():
        assert get_preparation_data("worker")["init_main_from_path"] == __file__


@pytest.mark.cluster
def test_a_piped_study_runs_and_prints_nothing_of_dask_though_its_worker_is_slow_to_end(
    tmp_path: Path,
) -> None:
    done = without_file(STUDY, "-", cwd=tmp_path)
    assert done.stdout == "2 trials\n", done.stderr
    own = ("piped", "time ", "cost ", "look ")
    assert all(line.startswith(own) for line in done.stderr.splitlines()), done.stderr
