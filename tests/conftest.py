"""The order of the tests when several processes run them: a file at a time, the longest first."""

from __future__ import annotations

from pathlib import Path

import pytest

TIERS = ("slurm", "cluster", "slow")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    first: dict[Path, int] = {}  # the tier of a file's longest tests
    for item in items:
        for tier in range(first.get(item.path, len(TIERS))):
            if item.get_closest_marker(TIERS[tier]):
                first[item.path] = tier
                break
    items.sort(key=lambda item: first.get(item.path, len(TIERS)))
