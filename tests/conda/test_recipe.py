"""The conda recipe says what pyproject.toml says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

import daskhpo
from tools.conda.names import SOURCES, conda_name

ROOT = Path(__file__).parents[2]
OF_DEVELOPERS = {"dev", "docs", "frameworks", "packages", "test"}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def recipe() -> dict[str, Any]:
    """The recipe, with ``${{ name }}`` replaced by what its context says."""
    text = (ROOT / "conda/recipe.yaml").read_text(encoding="utf-8")
    context = yaml.safe_load(text)["context"]
    filled = re.sub(r"\$\{\{ (\w+) \}\}", lambda m: context.get(m[1], m[0]), text)
    loaded: dict[str, Any] = yaml.safe_load(filled)
    return loaded


def pip_names(requirements: list[str]) -> dict[str, str]:
    """Conda names to version ranges, of requirements as pip writes them."""
    parsed = [Requirement(r) for r in requirements]
    return {conda_name(r.name): str(r.specifier) for r in parsed}


def conda_names(requirements: list[str]) -> dict[str, str]:
    """Names to version ranges, of requirements as conda writes them."""
    pairs = [r.partition(" ") for r in requirements]
    return {name: versions for name, _, versions in pairs}


def test_it_needs_what_the_project_needs(project: Any, recipe: Any) -> None:
    needed = pip_names(project["project"]["dependencies"])
    needed["python"] = project["project"]["requires-python"]
    assert conda_names(recipe["requirements"]["run"]) == needed


def test_it_bounds_what_the_extras_bound(project: Any, recipe: Any) -> None:
    extras = project["project"]["optional-dependencies"]
    names = extras.keys() - OF_DEVELOPERS
    listed = [requirement for name in names for requirement in extras[name]]
    needed = pip_names([r for r in listed if Requirement(r).name != "daskhpo"])
    assert conda_names(recipe["requirements"]["run_constraints"]) == needed


def test_it_builds_with_the_projects_backend(project: Any, recipe: Any) -> None:
    host = conda_names(recipe["requirements"]["host"])
    assert pip_names(project["build-system"]["requires"]).items() <= host.items()


def test_its_version_is_the_packages(project: Any, recipe: Any) -> None:
    assert recipe["package"]["version"] == daskhpo.__version__
    assert "version" not in project["project"]
    assert project["tool"]["hatch"]["version"]["path"] == "daskhpo/_version.py"


def test_it_installs_what_the_wheel_has(project: Any, recipe: Any) -> None:
    folders = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert {f"{folder}/**" for folder in folders} <= {*recipe["source"]["filter"]["include"]}
    assert {folder.partition("/")[0] for folder in SOURCES} == set(folders)


def test_its_commands_are_the_projects(project: Any, recipe: Any) -> None:
    scripts = [f"{name} = {where}" for name, where in project["project"]["scripts"].items()]
    assert recipe["build"]["python"]["entry_points"] == scripts


def test_its_licence_is_the_projects(project: Any, recipe: Any) -> None:
    assert recipe["about"]["license"] == project["project"]["license"]
    assert (ROOT / recipe["about"]["license_file"]).exists()
