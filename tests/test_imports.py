"""Imports point down, without a circle, and what is heavy is loaded only where it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import daskhpo

PACKAGE = Path(daskhpo.__file__).parent
HEAVY = [
    *("dask", "distributed", "zarr", "torch", "bokeh", "skopt", "pandas", "optuna", "rich"),
    *("wandb", "mlflow"),
]

# Room (a folder, or a file at the top): the rooms that its files may import, besides itself.
# At the top of a file, inside a function or for type checking alone: it is all the same.
# `__init__` is the face of the package.
MAY_IMPORT: dict[str, set[str]] = {
    "_version": set(),
    "_lazy": set(),
    "atomic_files": set(),
    "trial_output": {"atomic_files"},
    "core": set(),
    "space": {"core"},
    "trainable": {"core"},
    "schedulers": {"core"},
    "searchers": {"core", "atomic_files", "_lazy"},
    "checkpoints": {"core", "atomic_files", "_lazy"},
    "cluster": {"core", "atomic_files", "_lazy"},
    "engine": {"core", "atomic_files", "checkpoints", "_version"},
    "virtual": {"core", "schedulers", "searchers", "checkpoints", "engine"},
    "plots": {"core", "schedulers", "virtual"},
    "results": {"core", "atomic_files", "checkpoints", "engine", "plots"},
    "callbacks": {"core", "atomic_files", "engine", "plots", "results"},
    "dashboard": {"core", "atomic_files", "cluster", "engine", "plots", "results", "trial_output"},
    "recommendation": {"core", "schedulers", "searchers"},
    "remote": {
        *("core", "atomic_files", "cluster", "engine", "results", "callbacks", "dashboard"),
    },
    "interchange": {"_version", "core", "engine", "callbacks"},
    "executors": {
        *(
            "_version",
            "core",
            "trainable",
            "checkpoints",
            "cluster",
            "engine",
            "results",
        ),
        *("callbacks", "dashboard", "trial_output"),
    },
    "distributed": {"core", "_lazy", "trainable", "checkpoints", "cluster", "executors"},
    "scripts": {"core", "trainable", "callbacks", "distributed"},
    "study": {
        *(
            "atomic_files",
            "core",
            "trainable",
            "schedulers",
            "searchers",
            "checkpoints",
            "cluster",
            "engine",
        ),
        *("results", "callbacks", "remote", "executors", "plots"),
    },
    "define_by_run": {"core", "trainable", "study"},
    "integrations": {"core", "trainable", "cluster", "results", "study"},
    "tune": {
        *("core", "atomic_files", "trainable", "schedulers", "searchers", "engine", "results"),
        *("callbacks", "define_by_run", "distributed", "integrations", "study"),
    },
    "sklearn": {
        *("core", "_lazy", "trainable", "schedulers", "searchers", "executors", "results", "study"),
    },
    "simulation": {
        *("core", "schedulers", "searchers", "engine", "virtual", "results", "study"),
    },
    "testing": {
        *("core", "trainable", "schedulers", "searchers", "checkpoints", "engine", "results"),
        *("callbacks", "executors", "study"),
    },
    "cli": {
        *("_version", "core", "atomic_files", "checkpoints", "cluster", "engine", "results"),
        *("callbacks", "plots", "dashboard", "interchange", "trial_output", "schedulers"),
        *("remote", "executors", "study", "simulation", "scripts", "virtual"),
    },
    "__init__": {
        *("_version", "_lazy", "trainable", "engine", "results", "recommendation", "study"),
        *("trial_output", "define_by_run", "scripts"),
    },
}
# The order of the rooms: what a room may import stands before it.
FLOORS = list(MAY_IMPORT)


def module_of(path: Path) -> str:
    """Dotted name of a file of the package."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


FILES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def room_of(module: str) -> str:
    """Folder below the package, or file at its top."""
    return module.split(".")[1] if "." in module else "__init__"


def imported(path: Path) -> Iterator[str]:
    """Dotted names that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module), level=0, names=names):
                yield from (f"{module}.{alias.name}" for alias in names)
            case ast.ImportFrom():
                pytest.fail(f"{path.name}: a relative import; write the whole name")


@cache
def neighbours(module: str) -> frozenset[str]:
    """The files of the package that a file imports."""
    found = set()
    for name in imported(FILES[module]):
        while name not in FILES and "." in name:
            name = name.rpartition(".")[0]
        if name in FILES:
            found.add(name)
    return frozenset(found - {module})


def loaded_by(statement: str) -> set[str]:
    """Top-level packages that a fresh interpreter has loaded after a statement."""
    code = f"import sys; {statement}; print(*{{name.split('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_every_room_is_in_the_table() -> None:
    assert {room_of(module) for module in FILES} == set(MAY_IMPORT)


def test_the_table_points_down() -> None:
    for floor, (room, below) in enumerate(MAY_IMPORT.items()):
        assert below <= set(FLOORS[:floor]), f"{room} may import what stands above it"


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_point_down(room: str) -> None:
    for module in FILES:
        if room_of(module) == room:
            for name in neighbours(module):
                assert room_of(name) in {room, *MAY_IMPORT[room]}, f"{module} imports {name}"


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_the_table_allows_no_more_than_there_is(room: str) -> None:
    used = {room_of(n) for module in FILES if room_of(module) == room for n in neighbours(module)}
    assert MAY_IMPORT[room] <= used, f"{room} imports nothing of {MAY_IMPORT[room] - used}"


def test_no_files_import_one_another_in_a_circle() -> None:
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join((*way[way.index(module) :], module))
        if module not in done:
            for name in sorted(neighbours(module)):
                visit(name, (*way, module))
            done.add(module)

    for module in FILES:
        visit(module, ())


def test_a_class_or_constant_is_defined_in_one_file() -> None:
    homes: dict[str, set[str]] = {}
    for module, path in FILES.items():
        if room_of(module) == "tune":  # names of another library
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            match node:
                case ast.ClassDef(name=name) | ast.AnnAssign(target=ast.Name(id=name)):
                    homes.setdefault(name, set()).add(module)
                case ast.Assign(targets=targets):
                    for name in (
                        n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)
                    ):
                        homes.setdefault(name, set()).add(module)
    twice = {name: found for name, found in homes.items() if len(found) > 1}
    callbacks = {"ReportCallback"}  # one of each training framework, which a process rarely mixes
    assert set(twice) == {"__all__", "__getattr__", "__dir__", "logger", *callbacks}, twice
    assert all(name.startswith("daskhpo.integrations.") for name in twice["ReportCallback"])


def test_former_names_of_programs_import_nothing() -> None:
    """Shims hand over by name, so that they bring no arrow up."""
    for name in ("head", "worker"):
        assert not neighbours(f"daskhpo.cluster.{name}")


def test_the_pure_floor_loads_nothing_heavy() -> None:
    names = [module for module in FILES if room_of(module) == "core"]
    names += ["daskhpo.schedulers", "daskhpo.searchers", "daskhpo.space"]
    assert not loaded_by(f"import {', '.join(names)}") & set(HEAVY)


@pytest.mark.parametrize("name", ["Study", "Trainable", "Result", "load_study", "recommend"])
def test_importing_daskhpo_is_light(name: str) -> None:
    assert not loaded_by(f"from daskhpo import {name}") & set(HEAVY)


def test_the_launcher_needs_neither_torch_nor_dask_and_nor_does_a_rank() -> None:
    loaded = loaded_by("from daskhpo.distributed import launch; import daskhpo.distributed.rank")
    assert not loaded & set(HEAVY)


@pytest.mark.parametrize(
    "path", [*(PACKAGE / "core").glob("*.py"), PACKAGE / "atomic_files.py"], ids=lambda p: p.name
)
def test_core_needs_numpy_and_the_standard_library_only(path: Path) -> None:
    foreign = {name.split(".")[0] for name in imported(path)} - set(sys.stdlib_module_names)
    assert foreign <= {"numpy", "daskhpo"}
