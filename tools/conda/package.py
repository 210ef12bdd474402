"""Build the package of ``conda/recipe.yaml``, look into it, run its tests."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tools.conda.channel import channel_url
from tools.conda.names import INSTALLED, ROOT, project

RECIPE = ROOT / "conda/recipe.yaml"


class PackageFault(Exception):
    """A package that must not be published; the message names each fault."""


def build(channel: str | Path, out: Path, recipe: Path = RECIPE) -> Path:
    """Build the package into ``out``, which becomes a channel; return its file.

    A run requirement that does not exist is not found here, only by `run_tests`.
    """
    from rattler_build import Stage0Recipe

    [variant] = Stage0Recipe.from_file(recipe).render()
    built = variant.run_build(
        channels=[channel_url(channel)], output_dir=out, no_include_recipe=True
    )
    [path] = built.packages
    return Path(path)


def faults(package: Path, folders: Sequence[Path]) -> Iterator[str]:
    """Find what does not belong into a package.

    Parameters
    ----------
    package : the ``.conda`` file.
    folders : folders of the build, whose names must not be in it.
    """
    from rattler.package_streaming import extract

    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch).resolve()
        extract(package, root)
        files = sorted(path for path in root.rglob("*") if path.is_file())
        names = [path.relative_to(root).as_posix() for path in files]
        for name in names:
            if not re.match(rf"info/|site-packages/{INSTALLED}", name):
                yield f"{name}: only daskhpo belongs into the package"
            if name.endswith("direct_url.json") or name.startswith("info/recipe/"):
                yield f"{name}: it names the folder of the build"
        yield from _entry_points(root / "info/link.json")
        if "site-packages/daskhpo/py.typed" not in names:
            yield "daskhpo/py.typed: missing"
        for path, name in zip(files, names, strict=True):
            content = path.read_bytes()
            for folder in folders:
                if os.fsencode(folder.resolve()) in content and name != "info/about.json":
                    yield f"{name}: it names {folder}, a folder of the build"


def _entry_points(link: Path) -> Iterator[str]:
    """Look at the only place where a ``noarch`` package has its commands."""
    scripts = project()["project"]["scripts"]
    wanted = [f"{name} = {place}" for name, place in scripts.items()]
    if not link.exists():
        yield "info/link.json: missing, so no command would be installed"
        return
    about = json.loads(link.read_text())["noarch"]
    if about["type"] != "python" or about.get("entry_points") != wanted:
        yield f"info/link.json: {about}, and pyproject.toml has {wanted}"


def run_tests(package: Path, channel: str | Path) -> int:
    """Run the recipe's tests, each in a fresh environment; return their number.

    Raises
    ------
    PackageFault : one fails, or there is none.
    """
    from rattler_build import Package

    loaded = Package.from_file(package)
    if not loaded.test_count:
        raise PackageFault("the package has no tests")
    for number in range(loaded.test_count):
        result = loaded.run_test(number, channel=[channel_url(channel)])
        if not result.success:
            raise PackageFault(f"test {number}: " + "\n".join(result.output[-40:]))
    return int(loaded.test_count)


def check(package: Path, folders: Sequence[Path]) -> None:
    """Raise `PackageFault` if the package has anything that does not belong there."""
    if found := list(faults(package, folders)):
        raise PackageFault("\n".join(found))
