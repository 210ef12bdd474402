"""docs/reference.md names what exists, with its parameters and their defaults."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import Any

import pytest

from daskhpo import Result, RunOptions, Study, Trainable

REQUIRED = inspect.Parameter.empty
ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/reference.md").read_text(encoding="utf-8")
CLASSES = {"Study": Study, "RunOptions": RunOptions, "Result": Result, "Trainable": Trainable}


def sections() -> Iterator[tuple[list[str], str]]:
    """(names between backticks in the heading, text) of each section."""
    for part in re.split(r"^##+ ", TEXT, flags=re.MULTILINE)[1:]:
        heading, _, text = part.partition("\n")
        yield re.findall(r"`([\w.]+)`", heading), text


def rows() -> Iterator[tuple[object, str]]:
    """(owner, code) for each name in the first column of a table."""
    for names, text in sections():
        if len(names) == 1 and names[0].startswith("daskhpo"):
            owner: object = importlib.import_module(names[0])
        elif len(names) == 1 and names[0] in CLASSES:
            owner = CLASSES[names[0]]
        else:
            continue
        for table in re.split(r"^\| (?=\w+ \|)", text, flags=re.MULTILINE):
            of = owner.start if owner is Study and table.startswith("option") else owner
            for line in re.findall(r"^\| (`.*?) \|", table, flags=re.MULTILINE):
                yield from ((of, code) for code in re.findall(r"`([^`]+)`", line))


ROWS = sorted(rows(), key=lambda row: row[1])


def resolve(owner: object, path: str) -> Any:
    """The object that a dotted path names, below a module or a class."""
    for name in path.split("."):
        if inspect.ismodule(owner) and not hasattr(owner, name):
            owner = importlib.import_module(f"{owner.__name__}.{name}")
        else:
            owner = getattr(owner, name)
    return owner


def exists(owner: object, path: str) -> bool:
    try:
        resolve(owner, path)
    except (AttributeError, ImportError):
        if inspect.isfunction(owner):
            return path in inspect.signature(owner).parameters
        first = path.split(".")[0]
        return inspect.isclass(owner) and first in inspect.get_annotations(owner)
    return True


def described(code: str) -> list[tuple[str, str | None]] | None:
    """Parameters in ``name(a, b=1)`` and their defaults; None: it shows none, or not all."""
    match = re.fullmatch(r"[\w.]+\((.*)\)", code)
    if match is None or re.search(r"(?<!=)\.\.\.", match[1]):
        return None
    source = re.sub(r"(?<![=*\w])\*(?=,)", "*_", match[1])
    arguments = ast.parse(f"lambda {source}: 0".replace("*_", "*"), mode="eval").body.args  # type: ignore[attr-defined]
    positional = [*arguments.posonlyargs, *arguments.args]
    blanks = [None] * (len(positional) - len(arguments.defaults))
    defaults = [*blanks, *arguments.defaults, *arguments.kw_defaults]
    names = [arg.arg for arg in (*positional, *arguments.kwonlyargs)]
    shown = [None if node is None else ast.unparse(node) for node in defaults]
    return list(zip(names, shown, strict=True))


@pytest.mark.parametrize(("owner", "code"), ROWS, ids=[code[:60] for _, code in ROWS])
def test_a_name_exists_and_takes_these_parameters(owner: object, code: str) -> None:
    path = code.partition("(")[0]
    assert exists(owner, path), f"there is no {path}"
    if (listed := described(code)) is None:
        return
    found = inspect.signature(resolve(owner, path)).parameters.values()
    known = {p.name: p.default for p in found if p.name != "self" and p.kind is not p.VAR_KEYWORD}
    if "**" not in code:  # what is left out is optional
        names = [name for name, _ in listed]
        assert names == [name for name in known if name in names or known[name] is REQUIRED]
    for name, default in listed:
        if name in known and default not in (None, "..."):
            value = inf if default == "inf" else ast.literal_eval(default)
            assert value == known[name], f"{name}={known[name]!r}"
