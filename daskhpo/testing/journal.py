"""A journal for tests."""

from __future__ import annotations

from daskhpo.core.events import Record


class MemoryJournal:
    """Journal that keeps its records in a list."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def append(self, record: Record) -> None:
        self.records.append(record)

    def flush(self) -> None:
        pass
