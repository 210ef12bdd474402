"""Single-threaded linear algebra."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController


def one_thread() -> AbstractContextManager[Any]:
    """Return a context manager that limits BLAS to one thread in this process.

    The matrices are small. More threads gain little on an idle machine. On a busy one they spin
    while they wait for each other: a suggestion took thirty times as long.
    """
    limit: AbstractContextManager[Any] = _controller().limit(limits=1, user_api="blas")
    return limit


@cache
def _controller() -> ThreadpoolController:
    """Find the loaded BLAS libraries; cached, because this takes milliseconds."""
    return ThreadpoolController()
