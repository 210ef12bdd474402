"""``make conda``: build, test, bundle, install and run without a network.

    python -m tools.conda.check [CHANNEL] [--folder .conda]

Without a channel, a stand-in is made of this interpreter and wheels (`tools.conda.standin`).
The part after the bundle runs in a network namespace that has the loopback interface alone, with
only ``PATH`` and ``HOME`` set, also as jobs of a Slurm that it starts there (as root, where Slurm
is installed).
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tools.conda.names import ROOT

STUDY = Path(__file__).with_name("tune.py")
DEEP = "a-prefix-that-is-longer-than-the-placeholder/" * 3  # 135 characters


def run(command: Sequence[str | Path], folder: Path, **more: str) -> str:
    """Run a command; its environment is ``PATH``, ``HOME`` and ``more``.

    Raises
    ------
    RuntimeError : it failed; the message has its output.
    """
    home = folder / "home"
    home.mkdir(exist_ok=True)
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(home)} | more,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    if done.returncode:
        raise RuntimeError(f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def say(text: str) -> None:
    """Print a line with the seconds so far."""
    print(f"{time.monotonic() - _begin:7.1f} s  {text}", flush=True)


def prepare(channel: str | None, folder: Path, work: Path) -> Path:
    """Build the package, look into it, test it; return the bundle."""
    from tools.conda import package, standin
    from tools.conda.channel import LOCK, bundle, weigh

    source: str | Path = channel or standin.channel_of_requirements(folder)
    say(f"channel: {channel or 'a stand-in of wheels; nothing is resolved against conda-forge'}")
    built = package.build(source, work / "out")
    package.check(built, [ROOT, work])
    say(f"built {built.name}; nothing in it that does not belong there")
    n_tests = package.run_tests(built, source)
    say(f"its {n_tests} tests pass, each in a fresh environment")
    records = bundle([work / "out", source], work / "bundle", ["daskhpo"])
    inodes, n_bytes = weigh(work / "bundle")
    say(f"bundle: {len(records)} packages, {inodes} inodes, {n_bytes / 1e6:,.0f} MB, {LOCK}")
    return (work / "bundle").rename(work / "carried-elsewhere")


def without_network(bundle: Path, work: Path) -> None:
    """Install from the bundle, run studies, uninstall. There must be no network."""
    from tools.conda.channel import install, solve, weigh

    assert _interfaces() == ["lo"], f"there is a network: {_interfaces()}"
    prefix = work / DEEP / "prefix"
    cache = work / "cache-offline"
    records = solve([bundle], ["daskhpo"])
    install(records, prefix, cache)
    for what, folders in (("prefix", [prefix]), ("prefix and package cache", [prefix, cache])):
        inodes, n_bytes = weigh(*folders)
        say(f"{what}: {inodes:,} inodes, {n_bytes / 1e6:,.0f} MB")
    shutil.copy(STUDY, work / "tune.py")
    run([prefix / "bin/daskhpo", "run", "tune.py:study", "--num-trials", "8"], work)
    say(run([prefix / "bin/python", "tune.py"], work).strip())
    on_slurm(prefix, work)
    others = [record for record in records if record.name.normalized != "daskhpo"]
    uninstall(others, prefix, cache)


def on_slurm(prefix: Path, work: Path) -> None:
    """Run the study as jobs of a Slurm of our own, if there can be one."""
    from tests.slurm.slurm import Slurm, missing

    if (why := missing()) is not None:
        say(f"no Slurm jobs: {why}")
        return
    with tempfile.TemporaryDirectory() as short:  # the path of a socket has 107 characters at most
        slurm = Slurm(Path(short) / "slurm", n_nodes=2)
        try:
            slurm.start()
            words = slurm.environment | {"STUDY": "slurm"}
            say(run([prefix / "bin/python", "tune.py", "slurm"], work, **words).strip())
        finally:
            slurm.stop()


def uninstall(others: Sequence[object], prefix: Path, cache: Path) -> None:
    """Remove daskhpo, then everything; what it leaves is an error."""
    from tools.conda.channel import install

    install(others, prefix, cache)
    left = [path for path in prefix.rglob("*daskhpo*") if path.suffix != ".pyc"]
    left = [path for path in left if not path.is_dir() or any(p.is_file() for p in path.rglob("*"))]
    assert not left, f"uninstalling left {left}"
    install([], prefix, cache)
    left = [path for path in prefix.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    left = [p for p in left if "conda-meta" not in p.parts and p.name != "CACHEDIR.TAG"]
    assert not left, f"uninstalling left {left}"
    shutil.rmtree(prefix)
    say("uninstalled")


def cut_off(bundle: Path, work: Path) -> None:
    """Run `without_network` in a network namespace of its own."""
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    # Slurm asks for an address that is not 127.0.0.1; this one, of RFC 5737, leads nowhere.
    script = 'ip link set lo up && ip address add 192.0.2.1/32 dev lo && exec "$@"'
    inner = [sys.executable, "-m", "tools.conda.check", "--offline", str(bundle)]
    inner += ["--folder", str(work)]
    command = ["unshare", *user, "--net", "sh", "-c", script, "sh", *inner]
    subprocess.run(command, cwd=ROOT, check=True)


def _interfaces() -> list[str]:
    return sorted(name for _, name in socket.if_nameindex())


@contextmanager
def _workspace(folder: Path) -> Iterator[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as name:
        yield Path(name)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(prog="python -m tools.conda.check", description=__doc__)
    parser.add_argument("channel", nargs="?", help="such as conda-forge; without it: a stand-in")
    parser.add_argument("--folder", type=Path, default=ROOT / ".conda")
    parser.add_argument("--offline", type=Path, help=argparse.SUPPRESS)
    words = parser.parse_args(arguments)
    folder = words.folder.resolve()
    if words.offline is not None:
        without_network(words.offline, folder)
        return
    with _workspace(folder) as work:
        os.environ["RATTLER_CACHE_DIR"] = str(work / "cache")
        cut_off(prepare(words.channel, folder, work), work)
    say("the conda package works")


_begin = time.monotonic()
if __name__ == "__main__":
    main()
