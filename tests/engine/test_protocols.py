"""The interface of checkpoint stores, its contract and its makers agree."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import daskhpo
from daskhpo.checkpoints import MemoryStore, ZarrStore
from daskhpo.engine.protocols import CheckpointStore

PACKAGE = Path(daskhpo.__file__).parent
METHODS = {name for name in vars(CheckpointStore) if name.islower() and name[0] != "_"}


def called_on(tree: ast.AST, names: set[str]) -> set[str]:
    """Methods that code calls on variables with these names."""
    return {
        node.func.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in names
    }


def test_the_contract_tests_what_the_protocol_says():
    tree = ast.parse((PACKAGE / "testing/stores.py").read_text(encoding="utf-8"))
    assert called_on(tree, {"store", "other"}) == METHODS


@pytest.mark.parametrize("kind", [ZarrStore, MemoryStore])
def test_a_store_has_the_methods_of_the_protocol_and_no_others(kind):
    public = {name for name, value in vars(kind).items() if callable(value) and name[0] != "_"}
    assert public == METHODS


def test_one_function_makes_the_store_of_a_study():
    makers = [
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "ZarrStore"
    ]
    assert makers == ["checkpoints/__init__.py"]
