"""The results section of an experiment's README, between two comments."""

from __future__ import annotations

import re
from pathlib import Path


class Place:
    """The location of a profile's results in a README.

    If the README does not exist, it is created with the results only.

    Raises
    ------
    ValueError : the README does not contain the two comments.
    """

    def __init__(self, readme: Path, profile: str) -> None:
        self.readme, self.profile = readme, profile
        self._filled("")

    def fill(self, text: str) -> None:
        """Replace the results; the rest is read again, as it may have been edited."""
        self.readme.write_text(self._filled(text))

    def _filled(self, text: str) -> str:
        begin, end = (f"<!-- results of {self.profile}: {word} -->" for word in ("begin", "end"))
        page = self.readme.read_text() if self.readme.exists() else f"{begin}\n{end}\n"
        place = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if not place.search(page):
            raise ValueError(
                f"{self.readme} has no place for results of {self.profile!r}: put the two lines "
                f"{begin!r} and {end!r} where the results belong, or give another file by --readme"
            )
        return place.sub(lambda _: f"{begin}\n{text}\n{end}", page)
