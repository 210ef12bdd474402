"""docs/formats.md says what the code says."""

from __future__ import annotations

import re
from pathlib import Path

from daskhpo.engine import records
from tools import release

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/formats.md").read_text(encoding="utf-8")


def test_the_numbers_are_those_of_the_code() -> None:
    assert list(release.formats()) == []


def test_every_format_of_the_code_is_on_the_page() -> None:
    found = [
        f"{'.'.join(path.relative_to(ROOT).with_suffix('').parts)}.{name}"
        for path in sorted((ROOT / "daskhpo").rglob("*.py"))
        for name in re.findall(
            r"^(\w+_FORMAT) = \d+", path.read_text(encoding="utf-8"), re.MULTILINE
        )
    ]
    assert len(found) >= 3
    assert [name for name in found if f"`{name}`" not in PAGE] == []


def test_every_number_that_is_compared_on_disk_has_a_name() -> None:
    for path in sorted((ROOT / "daskhpo").rglob("*.py")):
        unnamed = re.findall(r'.*"format": \d.*', path.read_text(encoding="utf-8"))
        assert not unnamed, f"{path}: {unnamed}"


def test_the_words_of_the_journal_are_listed() -> None:
    [part] = re.findall(r"## Words of the journal\n(.*?)\n## ", PAGE, re.DOTALL)
    listed = re.findall(r"`([a-z ]+)`", part)
    assert sorted(listed) == sorted([*records._KINDS, records._REPORTED])
