"""The register of unstable tests: those that failed in CI and passed when they ran once more.

``python tests/unstable.py < NAMES`` adds an entry per name to ``tests/unstable.txt`` and exits with
1 if a test has three. The commit that mends a test deletes its entries.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

REGISTER = Path(__file__).with_suffix(".txt")
LIMIT = 3  # entries of one test that fail the build


def entries(text: str) -> list[str]:
    """List the names in a register; one may be there several times."""
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return [line.partition(" ")[2] for line in lines]


def add(text: str, names: Iterable[str], date: str) -> str:
    """Return the register with an entry more for each name."""
    return text + "".join(f"{date} {name}\n" for name in names)


def over_limit(text: str) -> list[str]:
    """List the tests with too many entries."""
    return [name for name, n in Counter(entries(text)).items() if n >= LIMIT]


def main() -> int:
    names = [line.strip() for line in sys.stdin if line.strip()]
    text = add(REGISTER.read_text(), names, f"{datetime.now(UTC):%Y-%m-%d}")
    REGISTER.write_text(text)
    for name in over_limit(text):
        print(f"{name} was unstable {LIMIT} times: mend it, or what it tests")
    return int(bool(over_limit(text)))


if __name__ == "__main__":
    sys.exit(main())
