"""Imports point down, and what is heavy is loaded only where it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import daskhpo

PACKAGE = Path(daskhpo.__file__).parent
HEAVY = ["dask", "distributed", "zarr", "torch", "bokeh", "skopt", "pandas", "optuna", "rich"]
ALLOWED = {  # folder: what its files may import of daskhpo, besides the folder itself
    "core": [],
    "schedulers": ["core"],
    "searchers": ["core"],
    "engine": ["core", "checkpoints", "study"],
    "results": ["core", "engine", "checkpoints"],
}


def modules(folder):
    """Dotted names of the modules in a folder of the package."""
    return [
        ".".join(path.with_suffix("").relative_to(PACKAGE.parent).parts).removesuffix(".__init__")
        for path in sorted((PACKAGE / folder).rglob("*.py"))
    ]


def imported(path):
    """Dotted names that a file imports, at its top or inside its functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=module, level=0, names=names):
                yield from (f"{module}.{alias.name}" for alias in names)
            case ast.ImportFrom():
                pytest.fail(f"{path.name}: a relative import; write the whole name")


def loaded_by(statement):
    """Top-level packages that a fresh interpreter has loaded after a statement."""
    code = f"import sys; {statement}; print(*{{name.split('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_the_pure_floor_loads_nothing_heavy():
    names = [*modules("core"), "daskhpo.schedulers", "daskhpo.searchers", "daskhpo.space"]
    assert not loaded_by(f"import {', '.join(names)}") & set(HEAVY)


def test_importing_daskhpo_is_light():
    heavy = set(HEAVY) - {"dask"}
    assert not loaded_by("import daskhpo") & heavy


@pytest.mark.parametrize("path", sorted((PACKAGE / "core").glob("*.py")), ids=lambda p: p.name)
def test_core_needs_numpy_and_the_standard_library_only(path):
    foreign = {name.split(".")[0] for name in imported(path)} - set(sys.stdlib_module_names)
    assert foreign <= {"numpy", "daskhpo"}


@pytest.mark.parametrize("folder", ALLOWED)
def test_imports_point_down(folder):
    for path in sorted((PACKAGE / folder).rglob("*.py")):
        for name in imported(path):
            if name.startswith("daskhpo.") and name != "daskhpo.__version__":
                assert name.split(".")[1] in [folder, *ALLOWED[folder]], f"{path}: {name}"


def test_executors_do_not_import_one_another():
    for path in sorted((PACKAGE / "executors").rglob("*.py")):
        home = path.relative_to(PACKAGE / "executors").parts[0].removesuffix(".py")
        for name in imported(path):
            if name.startswith("daskhpo.executors.") and home != "__init__":
                assert name.split(".")[2] == home, f"{path}: {name}"
