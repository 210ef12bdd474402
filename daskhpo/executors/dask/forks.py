"""Processes that trials start by multiprocessing: as those of a user's script.

A Dask worker differs from a script. It was itself spawned, and so would all that it starts be,
which costs seconds for each process of a DataLoader. Its event loop handles SIGTERM, and a forked
process would hand that on to the worker. And the user's script is not its main module: classes and
functions of the script cannot be pickled by their names.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
from functools import cache, reduce
from multiprocessing.reduction import ForkingPickler
from types import FunctionType
from typing import Any

import cloudpickle


@cache
def start_processes_as_scripts_do() -> None:
    """Let multiprocessing work as in a script of this platform; done once."""
    multiprocessing.set_start_method(None, force=True)
    ForkingPickler.reducer_override = _by_value_if_needed  # type: ignore[method-assign]
    masks = threading.local()

    def before() -> None:  # a signal that comes to a child at once must find the default
        masks.old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def in_parent() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.old)

    def in_child() -> None:
        signal.set_wakeup_fd(-1)  # it would wake the worker's event loop
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # SIGINT stays ignored, as in the worker
        in_parent()

    os.register_at_fork(before=before, after_in_parent=in_parent, after_in_child=in_child)


def _by_value_if_needed(pickler: Any, obj: Any) -> Any:
    """Reduce classes and functions that the other process cannot import by name."""
    if isinstance(obj, type | FunctionType) and not _has_name(obj):
        return pickle.loads, (cloudpickle.dumps(obj),)
    return NotImplemented


def _has_name(obj: Any) -> bool:
    module = sys.modules.get(obj.__module__)
    try:
        return reduce(getattr, obj.__qualname__.split("."), module) is obj
    except AttributeError:
        return False
