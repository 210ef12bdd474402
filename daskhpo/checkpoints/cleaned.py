"""What cleaning a store removed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cleaned:
    """How many files were removed, and their bytes; those of a shared row are freed by the last."""

    n_files: int = 0
    n_bytes: int = 0

    def __add__(self, other: Cleaned) -> Cleaned:
        return Cleaned(self.n_files + other.n_files, self.n_bytes + other.n_bytes)
