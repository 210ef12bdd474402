"""``make release-check``: each fault is put in, and named."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tools import release
from tools.conda.names import ROOT

FILES = (
    *("CITATION.cff", "CHANGELOG.md", "pyproject.toml", "daskhpo/_version.py", "docs/formats.md"),
    *("conda/recipe.yaml", "conda/environment.yml", "conda/environment-gpu.yml"),
    "conda/environment-dev.yml",
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project that is ready, as far as it is written."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "docs/changes").mkdir()
    (tmp_path / "docs/changes/README.md").touch()
    change(tmp_path / "CHANGELOG.md", r"(## \[[\d.]+\]) - unreleased", r"\1 - 2026-11-30")
    for words in ("init --quiet", "add .", "-c user.name=a -c user.email=a@b commit -qm All"):
        subprocess.run(["git", *words.split()], cwd=tmp_path, check=True)
    return tmp_path


def change(path: Path, old: str, new: str) -> None:
    text, n = re.subn(old, new, path.read_text(encoding="utf-8"))
    assert n >= 1, f"{path} has no {old}"
    path.write_text(text, encoding="utf-8")


def test_a_project_that_is_ready_passes(root: Path) -> None:
    assert {name: list(check(root)) for name, check in release.QUICK.items()} == {
        name: [] for name in release.QUICK
    }


def old_version(root: Path) -> None:
    change(root / "daskhpo/_version.py", r'"\d.+"', '"9.8.7"')


def development_version(root: Path) -> None:
    change(root / "daskhpo/_version.py", r'"\d.+"', '"0.2.0.dev1"')


def tagged(root: Path) -> None:
    subprocess.run(["git", "tag", "v0.1.0"], cwd=root, check=True)


def uncommitted(root: Path) -> None:
    (root / "new.py").touch()


def fragment(root: Path) -> None:
    (root / "docs/changes/1.added.md").touch()


def undated(root: Path) -> None:
    change(root / "CHANGELOG.md", r" - 2026-11-30", " - unreleased")


def old_environment(root: Path) -> None:
    change(root / "conda/environment.yml", "dask-core", "dask")


def other_format(root: Path) -> None:
    change(root / "docs/formats.md", r"\| 2 \|", "| 3 |")


def no_formats(root: Path) -> None:
    change(root / "docs/formats.md", r"`daskhpo[\w.]+`", "none")


@pytest.mark.parametrize(
    ("fault", "check", "said"),
    [
        (old_version, "version", "conda/recipe.yaml has 0.1.0, _version.py has 9.8.7"),
        (old_version, "version", "CITATION.cff has 0.1.0"),
        (development_version, "version", "not the number of a release"),
        (tagged, "tag", "v0.1.0 exists"),
        (uncommitted, "tree", "not committed: new.py"),
        (fragment, "changelog", "1 fragments are left"),
        (undated, "changelog", "no section"),
        (old_environment, "recipe", "conda/environment.yml is old"),
        (other_format, "formats", "DIRECTORY_FORMAT is 2, not 3"),
        (no_formats, "formats", "no table"),
    ],
)
def test_a_fault_is_named(root: Path, fault: Callable[[Path], None], check: str, said: str) -> None:
    fault(root)
    assert said in "; ".join(release.QUICK[check](root))


def test_a_target_that_fails_is_named_with_its_output(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text("docs-html:\n\t@echo a broken link; false\n")
    assert "a broken link" in "; ".join(release.made("docs-html")(tmp_path))
