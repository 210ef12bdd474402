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
        self.readme = readme
        self.begin, self.end = (
            f"<!-- results of {profile}: {word} -->" for word in ("begin", "end")
        )
        self._page = readme.read_text() if readme.exists() else f"{self.begin}\n{self.end}\n"
        self._place = re.compile(f"{re.escape(self.begin)}.*?{re.escape(self.end)}", re.DOTALL)
        if not self._place.search(self._page):
            raise ValueError(
                f"{readme} has no place for results of {profile!r}: put the two lines "
                f"{self.begin!r} and {self.end!r} where they shall stand, or give another file by "
                "--readme"
            )

    def fill(self, text: str) -> None:
        """Replace what stands there, and nothing else."""
        self.readme.write_text(
            self._place.sub(lambda _: f"{self.begin}\n{text}\n{self.end}", self._page)
        )
