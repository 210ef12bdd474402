"""Wheel and sdist: what is in them, and that a fault is found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("build", reason="the extra `packages` has it")

from tools import dist
from tools.dist import DistFault, sdist_faults, sdist_names, wheel_faults, wheel_names

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return dist.build(tmp_path_factory.mktemp("built") / "dist")


def test_both_hold_what_they_should(built: tuple[Path, Path]) -> None:
    dist.check(*built)


HYDRA = "hydra_plugins/daskhpo_sweeper/daskhpo_sweeper.py"


@pytest.mark.parametrize("name", ["daskhpo/py.typed", "daskhpo/study/study.py", HYDRA])
def test_a_file_that_the_wheel_lacks_is_named(built: tuple[Path, Path], name: str) -> None:
    names = [n for n in wheel_names(built[0]) if n != name]
    assert list(wheel_faults(names)) == [f"wheel: {name} is missing"]


@pytest.mark.parametrize(
    "name", ["tests/conftest.py", "daskhpo/__pycache__/x.pyc", "hydra_plugins/__init__.py"]
)
def test_a_file_too_many_in_the_wheel_is_named(built: tuple[Path, Path], name: str) -> None:
    names = [*wheel_names(built[0]), name]
    assert list(wheel_faults(names)) == [f"wheel: {name} does not belong there"]


@pytest.mark.parametrize("name", ["runs/net/study.json", ".venv/bin/python", ".conda/x"])
def test_a_file_too_many_in_the_sdist_is_named(built: tuple[Path, Path], name: str) -> None:
    names = [*sdist_names(built[1]), name]
    assert list(sdist_faults(names)) == [f"sdist: {name} does not belong there"]


@pytest.mark.parametrize("name", ["LICENSE", "CITATION.cff", "constraints.txt"])
def test_a_file_that_the_sdist_lacks_is_named(built: tuple[Path, Path], name: str) -> None:
    names = [n for n in sdist_names(built[1]) if n != name]
    assert list(sdist_faults(names)) == [f"sdist: {name} is missing"]


def test_a_folder_that_the_sdist_lacks_is_named(built: tuple[Path, Path]) -> None:
    names = [n for n in sdist_names(built[1]) if not n.startswith("tests/")]
    assert list(sdist_faults(names)) == ["sdist: tests/ is missing"]


def test_another_version_is_refused(tmp_path: Path, built: tuple[Path, Path]) -> None:
    renamed = tmp_path / "other-0.1.0-py3-none-any.whl"
    renamed.write_bytes(built[0].read_bytes())
    with pytest.raises(DistFault, match="is not in its name"):
        dist.check(renamed, built[1])


def test_the_version_is_the_packages() -> None:
    command = [sys.executable, "-c", "import daskhpo, json; print(json.dumps(daskhpo.__version__))"]
    said = subprocess.run(command, cwd=dist.ROOT, capture_output=True, text=True, check=True)
    assert dist.project_version() == json.loads(said.stdout)
