"""Waiting for conditions."""

from __future__ import annotations

from tests.executors.dask.conftest import wait_for

__all__ = ["wait_for"]
