"""The register of unstable tests counts, and names tests that exist."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests import unstable

ROOT = Path(__file__).parents[1]


def test_a_test_may_have_two_entries_and_not_a_third() -> None:
    text = "# a comment\n"
    for day in range(1, 3):
        text = unstable.add(text, ["tests/a.py::test_b[1 2]"], f"2026-01-0{day}")
        text = unstable.add(text, [f"tests/a.py::test_{day}"], f"2026-01-0{day}")
        assert not unstable.over_limit(text)
    text = unstable.add(text, ["tests/a.py::test_b[1 2]"], "2026-01-03")
    assert unstable.entries(text).count("tests/a.py::test_b[1 2]") == 3
    assert unstable.over_limit(text) == ["tests/a.py::test_b[1 2]"]


def test_the_register_is_within_the_limit() -> None:
    assert not unstable.over_limit(unstable.REGISTER.read_text())


def test_registered_tests_exist() -> None:
    for name in set(unstable.entries(unstable.REGISTER.read_text())):
        path, _, function = name.partition("::")
        assert function.rpartition("::")[2].partition("[")[0] in (ROOT / path).read_text()


def test_the_program_writes_the_register_and_fails_at_the_third_entry(tmp_path: Path) -> None:
    program = tmp_path / "unstable.py"
    program.write_text(Path(unstable.__file__).read_text())
    (tmp_path / "unstable.txt").write_text("# register\n")
    for n, status in ((1, 0), (2, 0), (3, 1)):
        done = subprocess.run(
            [sys.executable, str(program)], input="tests/a.py::test_b\n", text=True, check=False
        )
        assert done.returncode == status
        assert len(unstable.entries((tmp_path / "unstable.txt").read_text())) == n
