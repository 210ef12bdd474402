"""A script without a main guard is told so in one sentence, before any process starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAD = """
import multiprocessing
from daskhpo.executors.dask.local import check_main_guard

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


def test_code_without_a_file_passes() -> None:
    code = HEAD + "main()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout == "passed\n", done.stderr
