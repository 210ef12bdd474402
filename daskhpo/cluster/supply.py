"""Supply of workers: why none is there yet, and whether one will come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

SUPPLY = "daskhpo-supply"  #: name of a supply among the extensions of Dask's scheduler


@dataclass(frozen=True)
class WorkerOutlook:
    """Outlook on workers that are not there.

    Attributes
    ----------
    why : why none is there, in words for the user; empty: nothing is known.
    is_hopeless : True: none will come.
    """

    why: str = ""
    is_hopeless: bool = False


class WorkerSupply(Protocol):
    """Something that starts workers for a Dask scheduler."""

    def outlook(self) -> WorkerOutlook:
        """Return what to expect; called often, in any thread."""
