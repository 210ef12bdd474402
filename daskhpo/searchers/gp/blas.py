"""Linear algebra on one thread."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController


def one_thread() -> AbstractContextManager[Any]:
    """While it is entered, BLAS works on one thread in this process.

    Matrices here are small: more threads win little on an idle machine, and on a busy one they
    spin while they wait for each other, so that a suggestion took thirty times as long.
    """
    limit: AbstractContextManager[Any] = _controller().limit(limits=1, user_api="blas")
    return limit


@cache
def _controller() -> ThreadpoolController:
    """Looks for the libraries that are loaded, which takes milliseconds: numpy's and scipy's."""
    return ThreadpoolController()
