"""The code in README.md and docs/ runs, and what they name exists.

The ``python`` blocks of a file run in their order, in one namespace and one fresh directory, in a
process of their own (worker processes import their parent's main module, which must not be
pytest's). A block marked ``python no-run`` is compiled only; one marked ``python NAME.py`` is a
file that the others find in the directory.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from daskhpo.cli import app as cli

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    ROOT / "conda/README.md",
    *sorted(ROOT.glob("docs/**/*.md")),
]
LOOKS = ("status", "best")
LATER = {"benchmarks/results/overhead.md"}  # written by a benchmark

DRIVER = """
import json, os, pathlib
if __name__ == "__main__":
    if hasattr(os, "sched_setaffinity"):  # one CPU: an embedded cluster is one worker, soon ready
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    for page, line, source in json.loads(pathlib.Path("blocks.json").read_text()):
        exec(compile("\\n" * line + source, page, "exec"), globals())
"""

FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; ``line`` is that of its fence."""

    page: Path
    line: int
    info: str
    source: str


def blocks(page: Path) -> Iterator[Block]:
    """All fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        yield Block(page, line, match[1].strip(), match[2])


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, with the packages that this process sees."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


ALL = [block for page in PAGES for block in blocks(page)]
# Pages that end in a test, which pytest runs. Only the one on callbacks has more to run.
CONTRACTS = [
    ROOT / f"docs/how-to/{page}.md"
    for page in ("write-a-scheduler", "write-an-executor", "write-a-callback")
]
TO_RUN = [
    page
    for page in PAGES
    if page not in CONTRACTS[:2] and any(b.info == "python" and b.page == page for b in ALL)
]
SHELL = [b for b in ALL if b.info in ("bash", "sh", "shell", "console")]
COMMANDS = [
    (b.page, line.removeprefix("$ "))
    for b in SHELL
    for line in b.source.splitlines()
    if line.removeprefix("$ ").startswith("daskhpo ")
]


def test_there_are_pages_with_examples() -> None:
    assert ROOT / "README.md" in TO_RUN
    assert COMMANDS


@pytest.mark.cluster
@pytest.mark.parametrize("page", TO_RUN, ids=name)
def test_the_examples_of_a_page_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = [(str(b.page), b.line, b.source) for b in blocks(page) if b.info == "python"]
    for block in blocks(page):
        if file := re.fullmatch(r"python (\w+\.py)", block.info):
            (tmp_path / file[1]).write_text(block.source)
    (tmp_path / "blocks.json").write_text(json.dumps(code))
    (tmp_path / "examples.py").write_text(DRIVER)
    run = python(tmp_path, "examples.py")
    assert run.returncode == 0, f"{run.stdout}\n{run.stderr}"
    if page.name == "README.md":  # the commands that only look, on the study it has just run
        monkeypatch.chdir(tmp_path)
        for line in [c for where, c in COMMANDS if where == page and c.split()[1] in LOOKS]:
            assert cli.main(shlex.split(line)[1:]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("page", CONTRACTS, ids=name)
def test_the_plug_in_that_one_learns_to_write_keeps_its_contract(
    page: Path, tmp_path: Path
) -> None:
    code = "\n".join(b.source for b in blocks(page) if b.info == "python")
    (tmp_path / "test_plug_in.py").write_text(code)
    run = python(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_plug_in.py")
    assert run.returncode == 0, run.stdout
    assert " passed" in run.stdout


@pytest.mark.parametrize(
    "block", [b for b in ALL if b.info == "python no-run"], ids=lambda b: f"{name(b.page)}:{b.line}"
)
def test_the_examples_that_do_not_run_compile(block: Block) -> None:
    compile("\n" * block.line + block.source, str(block.page), "exec")


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=lambda v: v if v in COMMANDS else None)
def test_the_commands_shown_are_understood(page: Path, command: str) -> None:
    words = shlex.split(command, comments=True)[1:]
    if words in (["--help"], ["--version"]):
        return
    try:
        cli._parser().parse_args(words)
    except SystemExit:
        pytest.fail(f"{name(page)}: daskhpo does not understand: {command}")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path = (page.parent / target).resolve()
        if path.relative_to(ROOT).as_posix() not in LATER:
            assert path.exists(), f"{name(page)} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_that_are_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`((?:daskhpo|experiments|tests|benchmarks)/[\w/.-]*)`", text)
    missing = [path for path in named if path not in LATER and not (ROOT / path).exists()]
    assert not missing, f"{name(page)} names {missing}"


@pytest.mark.parametrize(
    "module",
    [
        "daskhpo",
        "daskhpo.callbacks",
        "daskhpo.checkpoints",
        "daskhpo.distributed",
        "daskhpo.schedulers",
        "daskhpo.searchers",
        "daskhpo.simulation",
        "daskhpo.sklearn",
        "daskhpo.space",
        "daskhpo.tune",
    ],
)
def test_the_reference_has_every_public_name(module: str) -> None:
    text = (ROOT / "docs/reference.md").read_text(encoding="utf-8")
    missing = [n for n in importlib.import_module(module).__all__ if f"`{n}" not in text]
    assert not missing


def test_the_reference_has_every_method_and_every_error() -> None:
    from daskhpo import Result, RunOptions, Study, Trainable
    from daskhpo.core import errors

    text = (ROOT / "docs/reference.md").read_text(encoding="utf-8")
    owners = (Study, Result, RunOptions, Trainable)
    public = [n for owner in owners for n in vars(owner) if n[0] != "_"]
    public += [n for n, v in vars(errors).items() if isinstance(v, type)]
    assert not [n for n in public if f"`{n}" not in text]
