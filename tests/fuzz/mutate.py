"""Damage to a study's directory, drawn by a seed: by accident, or by somebody who means it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

FIXTURES = Path(__file__).parent.parent / "compatibility" / "fixtures"
STUDIES = ("study-1", "study-asha", "study-pbt", "submission-jobs", "submission-steps")
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 2**70, 10**300, 0.5, -0.0),
    *(float("nan"), float("inf"), float("-inf"), 1e308, 5e-324),
    *(
        "",
        " ",
        "x",
        "\0",
        "\x1b[2J\x1b]0;owned\x07",
        "\u202egnp.exe",
        "\ud800",
        "a\nb",
        "../../etc",
    ),
    *("=cmd|' /C calc'!A0", "<script>alert(1)</script>", "x" * 100_000, "%s%n", "-1", "nan"),
    *([], {}, [[]], [{}], {"": {}}, [None], [[1, 2], [3]], {"record": "began"}),
)
DEEP = b"[" * 100_000
DEEP_OBJECT = b'{"a":' * 50_000


def damaged_study(seed: int, folder: Path) -> tuple[Path, str]:
    """Make a damaged study in a folder; return its directory, and what was done."""
    rng = random.Random(seed)
    original = rng.choice(STUDIES)
    directory = folder / f"study-{seed}"
    shutil.copytree(FIXTURES / original, directory)
    (directory / "lock.json").write_text(json.dumps({"token": "t", "pid": 1, "host": "h"}))
    shutil.copy(FIXTURES / "requests.jsonl", directory / "requests.jsonl")
    done = [original]
    for _ in range(1 if rng.random() < 0.7 else rng.randint(2, 4)):
        files = sorted(path for path in directory.rglob("*") if path.is_file())
        if not files:
            break
        path = rng.choice(files)
        # Most of what a study says is in two files.
        if rng.random() < 0.6:
            path = directory / rng.choice(("study.json", "journal.jsonl"))
        if not path.is_file() or path.is_symlink():
            continue
        kind = rng.choices(KINDS, WEIGHTS)[0]
        try:
            detail = kind(path, rng)
        except (ValueError, TypeError, IndexError, RecursionError):
            if not path.is_file():
                continue
            detail = flipped(path, rng)
            kind = flipped
        done.append(f"{path.relative_to(directory)} {kind.__name__} {detail}")
    with contextlib.suppress(OSError):
        os.utime(directory / "lock.json", (0, 0), follow_symlinks=False)  # its process is gone
    return directory, "; ".join(done)


def flipped(path: Path, rng: random.Random) -> str:
    data = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 1, 8, 64))):
        if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    return ""


def truncated(path: Path, rng: random.Random) -> str:
    n = rng.randrange(path.stat().st_size + 1)
    os.truncate(path, n)
    return f"to {n}"


def spliced(path: Path, rng: random.Random) -> str:
    data = path.read_bytes()
    a, b = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
    piece = rng.choice(
        (b"", data[a:b] * 2, rng.randbytes(50), b"\0" * 5000, b"\x1b]0;x\x07", b"9" * 5000)
    )
    path.write_bytes(data[:a] + piece + data[b:])
    return f"{a}-{b}"


def changed_value(path: Path, rng: random.Random) -> str:
    lines = path.read_text().split("\n") if path.suffix == ".jsonl" else [path.read_text()]
    full = [n for n, line in enumerate(lines) if line.strip()]
    number = rng.choice(full)
    data = json.loads(lines[number])
    value = rng.choice(ODD)
    where = _replaced(data, value, rng)
    lines[number] = json.dumps(data)
    path.write_text("\n".join(lines), errors="surrogatepass")
    return f"line {number + 1}, {where} = {str(value)[:40]!r}"


def _replaced(data: Any, value: Any, rng: random.Random) -> str:
    """Replace, remove or rename one item somewhere in plain data."""
    where = ""
    while True:
        keys = list(data) if isinstance(data, dict) else list(range(len(data)))
        if not keys:
            raise ValueError("empty")
        key = rng.choice(keys)
        where += f".{key}"
        if isinstance(data[key], (dict, list)) and data[key] and rng.random() < 0.7:
            data = data[key]
            continue
        action = rng.random()
        if action < 0.75:
            data[key] = value
        elif action < 0.85:
            del data[key]
        elif isinstance(data, dict):
            data[str(value)] = data.pop(key)
        else:
            data += [value] * 3
        return where


def moved_lines(path: Path, rng: random.Random) -> str:
    lines = path.read_bytes().split(b"\n")
    a, b = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.randrange(4):
        case 0:
            lines[a], lines[b] = lines[b], lines[a]
        case 1:
            lines.insert(b, lines[a])
        case 2:
            del lines[a]
        case _:
            lines.insert(
                a, rng.choice((DEEP, DEEP_OBJECT, b"null", b"[]", b"{}", b"1", b"\xff\xfe", b'"x"'))
            )
    path.write_bytes(b"\n".join(lines))
    return f"{a}, {b}"


def deep(path: Path, rng: random.Random) -> str:
    path.write_bytes(rng.choice((DEEP, DEEP_OBJECT, DEEP + b"\n", b'{"space":' * 20_000)))
    return ""


def huge(path: Path, rng: random.Random) -> str:
    os.truncate(path, rng.choice((2**30, 2**40)))
    return ""


def emptied(path: Path, rng: random.Random) -> str:
    path.write_bytes(b"")
    return ""


def replaced(path: Path, rng: random.Random) -> str:
    """Put something else in the place of a file."""
    path.unlink()
    what = rng.choice(
        ("nothing", "pipe", "folder", "loop", "zeros", "dangling", "passwd", "socket")
    )
    match what:
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path.name)
        case "zeros":
            path.symlink_to("/dev/zero")
        case "dangling":
            path.symlink_to("/nonexistent/x")
        case "passwd":
            path.symlink_to("/etc/passwd")
        case "socket":
            import socket

            here = os.getcwd()
            os.chdir(path.parent)  # the name of a socket must be short
            try:
                with socket.socket(socket.AF_UNIX) as end:
                    end.bind(path.name)
            finally:
                os.chdir(here)
    return what


KINDS: tuple[Callable[[Path, random.Random], str], ...] = (
    *(flipped, truncated, spliced, changed_value, moved_lines, deep, huge, emptied, replaced),
)
WEIGHTS = (10, 6, 6, 40, 12, 2, 2, 2, 8)
