"""Numbers in what a program prints, or writes to its files."""

from __future__ import annotations

import csv
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from daskhpo.core.objective import RESERVED
from daskhpo.scripts.events import scalars_of

Numbers = dict[str, float]

NUMERAL = r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|nan|inf|NaN|Infinity)"
PAIR = re.compile(rf"(?<![\w./-])([A-Za-z_][\w./-]*)[\"']?\s*[=:]\s*({NUMERAL})(?![\w.])")
COUNTED = re.compile(
    r"(?<![\w./-])(epoch|step|iteration|iter)\b\s*[=:#\[(]?\s*(\d+)", re.IGNORECASE
)
STEPS = ("epoch", "step", "iteration", "iter", "global_step")  # names of numbers that count units


class OutputReader:
    """Finds the numbers in a line that a program prints.

    Parameters
    ----------
    metric : number that each report has.
    pattern : regular expression whose named groups are the numbers; None: a line of JSON, or
        ``name=1.0``, ``name: 1.0`` and, for the metric, ``name 1.0``.
    """

    def __init__(self, metric: str, pattern: str | None = None) -> None:
        self._metric = metric
        self._pattern = None if pattern is None else re.compile(pattern)
        own = rf"(?<![\w./-]){re.escape(metric)}[\"']?\s*[=:\s]\s*({NUMERAL})(?![\w.])"
        self._own = re.compile(own)

    def read(self, line: str) -> Numbers | None:
        """Return the numbers of a line; None: it has no metric."""
        if self._pattern is not None:
            found = self._pattern.search(line)
            if found is None:
                return None
            given = {name: text for name, text in found.groupdict().items() if text is not None}
            return self._with_metric(numbers(given))
        start = line.find("{")
        if start >= 0 and self._metric in line:
            try:
                row = json.loads(line[start : line.rfind("}") + 1])
            except ValueError:
                row = None
            if isinstance(row, Mapping):
                return self._with_metric(numbers(row))
        own = self._own.search(line)
        if own is None:
            return None
        steps = {name.lower(): text for name, text in COUNTED.findall(line)}
        return numbers(steps | dict(PAIR.findall(line)) | {self._metric: own[1]})

    def _with_metric(self, found: Numbers) -> Numbers | None:
        return found if self._metric in found else None


class FileReader(ABC):
    """Finds the numbers that a program adds to its files.

    Attributes
    ----------
    n_read : rows read so far, for a trial that continues.
    """

    n_read = 0

    def __init__(self, path: Path, metric: str) -> None:
        self._path, self._metric = path, metric

    @abstractmethod
    def rows(self) -> list[Numbers]:
        """Return all complete rows that are there."""

    def new(self) -> Iterator[Numbers]:
        """Yield the rows that have the metric and were not read yet."""
        if not self._path.exists():
            return
        rows = [row for row in self.rows() if self._metric in row]
        if len(rows) < self.n_read:  # the program began the file again
            self.n_read = 0
        for row in rows[self.n_read :]:
            self.n_read += 1
            yield row


class JsonReader(FileReader):
    """Reads a file of JSON lines."""

    def rows(self) -> list[Numbers]:
        lines = self._path.read_text(errors="replace").split("\n")[:-1]  # the last is not complete
        return [numbers(row) for line in lines if isinstance(row := _parsed(line), Mapping)]


class CsvReader(FileReader):
    """Reads a CSV file with a header."""

    def rows(self) -> list[Numbers]:
        lines = self._path.read_text(errors="replace").split("\n")[:-1]
        return [numbers(row) for row in csv.DictReader(lines)]


class EventReader(FileReader):
    """Reads TensorBoard's event files in a folder, and those below."""

    def rows(self) -> list[Numbers]:
        seen: Numbers = {}
        found: list[Numbers] = []
        for file in sorted(self._path.rglob("events.out.tfevents.*")):
            for step, values in scalars_of(file):
                seen |= numbers(values) | {"step": step}
                if self._metric in values:
                    found.append(dict(seen))
        return found


def file_reader(path: Path, metric: str) -> FileReader:
    """Return the reader of a file by its suffix; without one, of event files."""
    match path.suffix:
        case ".csv":
            return CsvReader(path, metric)
        case ".json" | ".jsonl":
            return JsonReader(path, metric)
        case _:
            return EventReader(path, metric)


def numbers(row: Mapping[Any, Any], prefix: str = "") -> Numbers:
    """Return the numbers of a row, by flat names; names of daskhpo's own are left out."""
    found: Numbers = {}
    for name, value in row.items():
        full = f"{prefix}{name}".strip()
        if isinstance(value, Mapping):
            found |= numbers(value, f"{full}/")
        elif full not in RESERVED and not isinstance(value, (list, type(None))):
            try:
                found[full] = float(value)
            except (TypeError, ValueError):
                continue
    return found


def step_of(metrics: Numbers, name: str | None) -> float | None:
    """Return the number that counts units; ``name``: None: one of the usual names."""
    names = STEPS if name is None else (name,)
    return next((metrics[each] for each in names if each in metrics), None)


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
