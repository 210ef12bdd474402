"""``make release-check``: say what a release lacks; exit with 1 if it lacks any."""

from __future__ import annotations

import argparse
import importlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import yaml

from tools.conda.environments import environments
from tools.conda.names import ROOT
from tools.dist import project_version

RELEASE = re.compile(r"\d+\.\d+\.\d+(rc\d+)?")

Problems = Iterator[str]


def version(root: Path = ROOT) -> Problems:
    """Find files that have another version, or one that is no release's."""
    number = project_version(root)
    if not RELEASE.fullmatch(number):
        yield f"{number} is not the number of a release"
    recipe = yaml.safe_load((root / "conda/recipe.yaml").read_text())["context"]["version"]
    citation = yaml.safe_load((root / "CITATION.cff").read_text())["version"]
    for name, found in (("conda/recipe.yaml", recipe), ("CITATION.cff", str(citation))):
        if found != number:
            yield f"{name} has {found}, _version.py has {number}"


def tag(root: Path = ROOT) -> Problems:
    """Find a tag of this version."""
    name = f"v{project_version(root)}"
    if git(root, "tag", "--list", name):
        yield f"{name} exists: this version was released"


def tree(root: Path = ROOT) -> Problems:
    """Find what is not committed."""
    for line in git(root, "status", "--porcelain").splitlines():
        yield f"not committed: {line[3:]}"


def changelog(root: Path = ROOT) -> Problems:
    """Find that the changelog lacks this version, or fragments."""
    number = project_version(root)
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    if not re.search(rf"^## \[{re.escape(number)}\] - \d{{4}}-\d\d-\d\d$", text, re.MULTILINE):
        yield f"CHANGELOG.md has no section `## [{number}] - DATE`: towncrier build"
    left = [path for path in (root / "docs/changes").glob("*.md") if path.name != "README.md"]
    if left:
        yield f"{len(left)} fragments are left in docs/changes: towncrier build"


def recipe(root: Path = ROOT) -> Problems:
    """Find environment files that differ from what ``pyproject.toml`` gives."""
    for name, text in environments().items():
        path = root / "conda" / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            yield f"conda/{name} is old: python -m tools.conda.environments"


def formats(root: Path = ROOT) -> Problems:
    """Find formats whose number in ``docs/formats.md`` is not that in the code."""
    text = (root / "docs/formats.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| .*? \| (\d+)\b.*? \| `(daskhpo[\w.]+)` \|", text, re.MULTILINE)
    if not rows:
        yield "docs/formats.md has no table of formats"
    for number, name in rows:
        module, _, constant = name.rpartition(".")
        found = getattr(importlib.import_module(module), constant)
        if found != int(number):
            yield f"docs/formats.md: {name} is {found}, not {number}"


def made(target: str) -> Callable[[Path], Problems]:
    """Return a check that runs a target of the Makefile."""

    def check(root: Path = ROOT) -> Problems:
        done = subprocess.run(
            ["make", "--no-print-directory", target],
            cwd=root,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            yield f"make {target} failed:\n" + "\n".join(
                (done.stdout + done.stderr).splitlines()[-20:]
            )

    return check


def git(root: Path, *words: str) -> str:
    """Return what git prints."""
    done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout


QUICK: dict[str, Callable[[Path], Problems]] = {
    "version": version,
    "tag": tag,
    "tree": tree,
    "changelog": changelog,
    "recipe": recipe,
    "formats": formats,
}
SLOW = {"docs": made("docs-html"), "dist": made("dist"), "conda": made("conda")}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line for each check, and return 1 if a release is not ready."""
    parser = argparse.ArgumentParser(prog="make release-check", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="build nothing")
    words = parser.parse_args(arguments)
    n_problems = 0
    for name, check in (QUICK if words.quick else QUICK | SLOW).items():
        found = list(check(ROOT))
        n_problems += len(found)
        print(f"{name:10} {'ok' if not found else ''}{'; '.join(found)}", flush=True)
    print(f"{project_version()} is ready" if not n_problems else f"{n_problems} problems")
    return int(n_problems > 0)


if __name__ == "__main__":
    sys.exit(main())
