"""Results of an experiment have a place in its README, between two comments."""

from __future__ import annotations

import re
from pathlib import Path


class Place:
    """Where the results of a profile stand: a README that is not there yet is nothing else.

    Raises
    ------
    ValueError : the README has no such place.
    """

    def __init__(self, readme: Path, profile: str) -> None:
        self.readme, self.profile = readme, profile
        self._filled("")

    def fill(self, text: str) -> None:
        """Replace what stands there, and nothing else: it may have been edited meanwhile."""
        self.readme.write_text(self._filled(text))

    def _filled(self, text: str) -> str:
        begin, end = (f"<!-- results of {self.profile}: {word} -->" for word in ("begin", "end"))
        page = self.readme.read_text() if self.readme.exists() else f"{begin}\n{end}\n"
        place = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if not place.search(page):
            raise ValueError(
                f"{self.readme} has no place for results of {self.profile!r}: put the two lines "
                f"{begin!r} and {end!r} where they shall stand, or give another file by --readme"
            )
        return place.sub(lambda _: f"{begin}\n{text}\n{end}", page)
