"""Channels: solve, copy what was chosen into a folder, install from it.

A folder with ``repodata.json`` files is a channel. A *bundle* is such a folder that holds one
environment's packages and nothing else, with a lock file: it needs no network to install from.

    python -m tools.conda.channel bundle conda-forge OUT --environment conda/environment.yml
    python -m tools.conda.channel install OUT PREFIX --environment conda/environment.yml
    python -m tools.conda.channel lock conda-forge FILE "python 3.12.*" "pytorch * cuda*"
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

SUBDIR = "linux-64"
LOCK = f"{SUBDIR}.lock"


class BadChannel(ValueError):
    """A channel that cannot be what the caller means."""


def channel_url(channel: str | Path) -> str:
    """Return a URL, or a name such as ``conda-forge``, that no solver mistakes.

    A relative folder would be taken for the name of a channel on the network.

    Raises
    ------
    BadChannel : it looks like a folder, and there is no such channel.
    """
    text = str(channel)
    if "://" in text:
        return text
    folder = Path(text)
    if (folder / "noarch").is_dir():
        return folder.resolve().as_uri()
    if isinstance(channel, Path) or folder.exists() or os.sep in text.removeprefix("conda-forge/"):
        raise BadChannel(f"channel {text!r}: a folder with a subfolder noarch/ is a channel")
    return text


def virtual_packages() -> list[Any]:
    """Detect ``__glibc``, ``__cuda``, ...; ``CONDA_OVERRIDE_...`` wins."""
    from rattler import VirtualPackage, VirtualPackageOverrides

    return list(VirtualPackage.detect(overrides=VirtualPackageOverrides.from_env()))


def solve(channels: Sequence[str | Path], specs: Sequence[str]) -> list[Any]:
    """Choose packages for specs: records with URL and checksums, sorted by name.

    Raises
    ------
    rattler.exceptions.SolverError : no set of packages fulfils the specs; the message says why.
    """
    import rattler

    async def run() -> list[Any]:
        found: list[Any] = await rattler.solve(
            sources=[rattler.Channel(channel_url(channel)) for channel in channels],
            specs=[rattler.MatchSpec(spec) for spec in specs],
            platforms=[SUBDIR, "noarch"],
            virtual_packages=virtual_packages(),
        )
        return found

    return sorted(asyncio.run(run()), key=lambda record: str(record.file_name))


def explicit(records: Iterable[Any]) -> str:
    """Write records as a lock file that conda and mamba read: URLs and MD5."""
    lines = [f"{record.url}#{record.md5.hex()}" for record in records]
    return "\n".join([f"# platform: {SUBDIR}", "@EXPLICIT", *lines]) + "\n"


def index(channel: Path) -> None:
    """Write the ``repodata.json`` files of a folder."""
    from rattler.index import index_fs

    for subdir in ("noarch", SUBDIR):
        (channel / subdir).mkdir(parents=True, exist_ok=True)
    asyncio.run(index_fs(channel, force=True))


def bundle(channels: Sequence[str | Path], out: Path, specs: Sequence[str]) -> list[Any]:
    """Solve, and copy the chosen packages into a new folder, a channel of its own.

    Raises
    ------
    FileExistsError : ``out`` exists.
    """
    records = solve(channels, specs)
    out.mkdir(parents=True)
    for record in records:
        target = out / record.subdir / str(record.file_name)
        target.parent.mkdir(exist_ok=True)
        _fetch(str(record.url), target)
    index(out)
    (out / LOCK).write_text(explicit(records), encoding="utf-8")
    return records


def _fetch(url: str, target: Path) -> None:
    parts = urlsplit(url)
    if parts.scheme == "file":
        shutil.copy2(unquote(parts.path), target)
        return
    from rattler import Client
    from rattler.package_streaming import download_to_path

    asyncio.run(download_to_path(Client(), url, target))


def install(records: Sequence[Any], prefix: Path, cache: Path) -> None:
    """Make ``prefix`` hold these packages and no others; none: uninstall all.

    Raises
    ------
    rattler.exceptions.InstallerError : a package is damaged, or cannot be had.
    """
    import rattler

    async def run() -> None:
        # A relative prefix would be written into the first line of every command.
        await rattler.install(
            list(records), target_prefix=prefix.resolve(), cache_dir=cache, show_progress=False
        )

    asyncio.run(run())


def weigh(*folders: Path) -> tuple[int, int]:
    """Count inodes and bytes below folders, as a quota does: a hard link counts once."""
    seen: dict[tuple[int, int], int] = {}
    for folder in folders:
        for directory, _, files in os.walk(folder):
            for name in (directory, *(os.path.join(directory, file) for file in files)):
                about = os.lstat(name)
                seen[about.st_dev, about.st_ino] = about.st_blocks * 512
    return len(seen), sum(seen.values())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one of the commands ``bundle``, ``install``, ``lock``."""
    parser = argparse.ArgumentParser(prog="python -m tools.conda.channel", description=__doc__)
    parser.add_argument("command", choices=("bundle", "install", "lock"))
    parser.add_argument("channel", help="a name, a URL or a folder; several: joined by commas")
    parser.add_argument("target", type=Path, help="the folder or file to make")
    parser.add_argument("specs", nargs="*", help='such as daskhpo "pytorch * cuda*"')
    parser.add_argument("--environment", type=Path, help="a file whose dependencies are more specs")
    parser.add_argument("--cache", type=Path, help="folder of unpacked packages")
    words = parser.parse_args(arguments)
    channels = words.channel.split(",")
    if words.environment is not None:
        text = words.environment.read_text(encoding="utf-8")
        words.specs += [spec for spec in yaml.safe_load(text)["dependencies"] if type(spec) is str]
    if not words.specs:
        parser.error("name what is wanted: specs, or --environment FILE")
    if words.command == "bundle":
        records = bundle(channels, words.target, words.specs)
    else:
        records = solve(channels, words.specs)
    if words.command == "lock":
        words.target.write_text(explicit(records), encoding="utf-8")
    if words.command == "install":
        cache = words.cache or words.target.resolve().parent / ".conda-cache"
        install(records, words.target, cache)
    inodes, n_bytes = weigh(words.target)
    print(f"{len(records)} packages, {inodes:,} inodes, {n_bytes / 1e6:,.0f} MB: {words.target}")


if __name__ == "__main__":
    main()
