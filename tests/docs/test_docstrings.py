"""Docstrings name what exists: parameters, attributes, classes and functions."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import daskhpo

PACKAGE = Path(daskhpo.__file__).parent
TREES = {
    path.relative_to(PACKAGE.parent): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(PACKAGE.rglob("*.py"))
}
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
Function = ast.FunctionDef | ast.AsyncFunctionDef


def identifiers() -> set[str]:
    """Every name that the package's code uses, and short strings: keys and columns."""
    found: set[str] = set(dir(object)) | {"__cause__"}
    for path, tree in TREES.items():
        found |= set(path.with_suffix("").parts)
        for node in ast.walk(tree):
            match node:
                case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                    found.add(name)
                case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                    found.add(name)
                case ast.AsyncFunctionDef(name=name) | ast.keyword(arg=str(name)):
                    found.add(name)
                case ast.alias(name=name):
                    found |= set(name.split("."))
                case ast.Constant(value=str(text)) if len(text) < 60 and " " not in text:
                    found |= set(re.split(r"\W+", text))
    return found


def sections(text: str) -> Iterator[tuple[str, list[str]]]:
    """(heading, names) for each entry of the sections of a docstring."""
    heading = ""
    lines = text.split("\n")
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if re.fullmatch(r"-{3,}", following):
            heading = line
        elif match := re.match(r"(\*{0,2}[a-z_]\w*(?:, \*{0,2}[a-z_]\w*)*) :(?: |$)", line):
            yield heading, [name.strip("* ") for name in match[1].split(",")]


def parameters(function: Function) -> set[str]:
    args = function.args
    listed = [*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg]
    return {arg.arg for arg in listed if arg is not None}


def members(node: ast.ClassDef) -> tuple[set[str], set[str]]:
    """Parameters of a class, and its attributes."""
    fields, attributes = set[str](), set[str]()
    made_by: set[str] | None = None
    for statement in node.body:
        match statement:
            case ast.AnnAssign(target=ast.Name(id=name)):
                fields.add(name)
            case ast.Assign(targets=targets):
                attributes |= {target.id for target in targets if isinstance(target, ast.Name)}
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                attributes.add(name)
                if name == "__init__":
                    made_by = parameters(statement)
    for inner in ast.walk(node):
        match inner:
            case ast.Attribute(value=ast.Name(id="self"), attr=name):
                attributes.add(name)
    return (fields if made_by is None else made_by), attributes | fields


def documented(tree: ast.Module) -> Iterator[tuple[DOCUMENTED, str]]:
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node)):
            yield node, inspect.cleandoc(text)


@pytest.mark.parametrize("path", TREES, ids=str)
def test_sections_name_parameters_and_attributes(path: Path) -> None:
    wrong = []
    for node, text in documented(TREES[path]):
        match node:
            case ast.ClassDef(name=owner):
                allowed = dict(zip(("Parameters", "Attributes"), members(node), strict=True))
            case ast.FunctionDef(name=owner) | ast.AsyncFunctionDef(name=owner):
                if node.args.kwarg is not None:  # they stand in a TypedDict
                    continue
                allowed = {"Parameters": parameters(node)}
            case _:
                continue
        for heading, names in sections(text):
            unknown = sorted(set(names) - allowed.get(heading, set(names)))
            wrong += [f"{owner}: {heading}: {name}" for name in unknown]
    assert not wrong


def test_names_between_backticks_exist() -> None:
    known = identifiers()
    wrong = []
    for path, tree in TREES.items():
        for node, text in documented(tree):
            for name in re.findall(r"`+~?([A-Za-z_][\w.]*)(?:\(\))?`+", text):
                last = name.rstrip(".").rpartition(".")[2]
                if ("_" in last or last[:1].isupper()) and last not in known:
                    wrong.append(f"{path}:{getattr(node, 'lineno', 1)}: {name}")
    assert not wrong
