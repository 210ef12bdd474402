"""``make dist``: build wheel and sdist, look into them, and try them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from tools.conda import standin
from tools.conda.check import STUDY, run
from tools.conda.names import INSTALLED, ROOT, SOURCES

DIST = ROOT / "dist"
SDIST_FOLDERS = (*SOURCES, "benchmarks", "conda", "docs", "experiments", "tests", "tools")
SDIST_FILES = (
    *("CHANGELOG.md", "CITATION.cff", "LICENSE", "Makefile", "PKG-INFO", "README.md"),
    *("constraints.txt", "constraints-foreign.txt", "pyproject.toml"),
)
UNWANTED = re.compile(
    r"(^|/)(\.venv[\w-]*|\.git|\.conda|__pycache__|runs|_build|generated|[\w.-]*\.pyc)(/|$)"
)
TYPED = """\
from daskhpo import Study

reveal_type(Study.run)
"""


class DistFault(Exception):
    """A distribution that must not be published; the message names each fault."""


def build(out: Path) -> tuple[Path, Path]:
    """Build the sdist, and from it the wheel, into a new folder; return wheel, sdist."""
    out.mkdir(parents=True)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    [wheel], [sdist] = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, sdist


def wheel_names(wheel: Path) -> list[str]:
    """List the files of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def sdist_names(sdist: Path) -> list[str]:
    """List the files of an sdist, below its folder."""
    with tarfile.open(sdist) as archive:
        return [entry.name.partition("/")[2] for entry in archive if entry.isfile()]


def wheel_faults(names: Iterable[str]) -> Iterator[str]:
    """Find what a wheel lacks, and what is not the package's."""
    listed = list(names)
    for name in listed:
        if not re.match(INSTALLED, name) or UNWANTED.search(name):
            yield f"wheel: {name} does not belong there"
    paths = (path for folder in SOURCES for path in (ROOT / folder).rglob("*.py"))
    own = {path.relative_to(ROOT).as_posix() for path in paths}
    for name in sorted({*own, "daskhpo/py.typed"} - set(listed)):
        yield f"wheel: {name} is missing"
    for end in ("METADATA", "entry_points.txt", "licenses/LICENSE"):
        if not any(name.endswith(f".dist-info/{end}") for name in listed):
            yield f"wheel: {end} is missing"


def sdist_faults(names: Iterable[str]) -> Iterator[str]:
    """Find what an sdist has too much or too little: it is enough to run the tests."""
    listed = list(names)
    for name in listed:
        if UNWANTED.search(name):
            yield f"sdist: {name} does not belong there"
    for folder in SDIST_FOLDERS:
        if not any(name.startswith(f"{folder}/") for name in listed):
            yield f"sdist: {folder}/ is missing"
    for name in sorted(set(SDIST_FILES) - set(listed)):
        yield f"sdist: {name} is missing"


def try_out(wheel: Path, folder: Path) -> str:
    """Install a wheel in a bare environment, run a study; return what it says.

    Raises
    ------
    RuntimeError : a command failed; the message has its output.
    DistFault : type checkers do not see the package's types.
    """
    environment = folder / "environment"
    venv.create(environment, with_pip=True, symlinks=True)
    python = str(environment / "bin/python")
    wheels = standin.download(ROOT / ".conda/wheels")
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-index"]
    run([*pip, "--find-links", str(wheels), str(wheel)], folder)
    shutil.copy(STUDY, folder / "tune.py")
    said = run([environment / "bin/daskhpo", "--version"], folder)
    run([environment / "bin/daskhpo", "run", "tune.py:study", "--num-trials", "8"], folder)
    said += run([python, "tune.py"], folder)
    (folder / "typed.py").write_text(TYPED)
    mypy = [sys.executable, "-m", "mypy", "--python-executable", python, "--follow-imports=silent"]
    seen = run([*mypy, "typed.py"], folder)
    if "num_trials" not in seen:
        raise DistFault(f"types are not seen: {seen}")
    return said


def check(wheel: Path, sdist: Path) -> None:
    """Raise `DistFault` if a distribution must not be published."""
    found = [*wheel_faults(wheel_names(wheel)), *sdist_faults(sdist_names(sdist))]
    version = project_version()
    found += [
        f"{path.name}: version {version} is not in its name"
        for path in (wheel, sdist)
        if not path.name.startswith(f"daskhpo-{version}")
    ]
    command = [sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(sdist)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        found.append(done.stdout + done.stderr)
    if found:
        raise DistFault("\n".join(found))


def project_version(root: Path = ROOT) -> str:
    """Read the version from the one place that has it."""
    text = (root / "daskhpo/_version.py").read_text(encoding="utf-8")
    found: list[str] = re.findall(r'^__version__ = "(.+)"$', text, flags=re.MULTILINE)
    [version] = found
    return version


def main() -> None:
    """Build, check and try; leave both files in ``dist``."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel, sdist = build(folder / "dist")
        check(wheel, sdist)
        print(f"{wheel.name}: {len(wheel_names(wheel))} files, {os.path.getsize(wheel):,} bytes")
        print(f"{sdist.name}: {len(sdist_names(sdist))} files, {os.path.getsize(sdist):,} bytes")
        print(try_out(wheel, folder).strip())
        DIST.mkdir(exist_ok=True)
        for path in (wheel, sdist):
            shutil.copy(path, DIST)
            print(DIST / path.name)


if __name__ == "__main__":
    main()
