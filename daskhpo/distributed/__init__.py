"""Trials that train in several processes, such as one for each GPU of a node.

``launcher`` is the trial's own process, and ``rank`` the program of each process that it starts.
``ranks`` decides what follows from what they say, ``messages`` has the words, and ``processes``
starts and ends them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daskhpo._lazy import lazy

if TYPE_CHECKING:
    from daskhpo.distributed.launcher import launch
    from daskhpo.distributed.rank import RankTrial, current_trial

__all__ = ["RankTrial", "current_trial", "launch"]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "RankTrial": "daskhpo.distributed.rank",
        "current_trial": "daskhpo.distributed.rank",
        "launch": "daskhpo.distributed.launcher",
    },
)
