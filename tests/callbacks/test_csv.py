"""The CSV file of a study's reports."""

from __future__ import annotations

import csv

import pytest

from daskhpo.callbacks import CSVLogger
from daskhpo.core.events import Launched, Reported, SessionStarted, Step, Suggested
from daskhpo.core.types import CheckpointPolicy, Limits
from daskhpo.testing.callback import STORIES, CallbackContract, an_info, follow


def rows(info):
    with (info.directory / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


class TestCSVLogger(CallbackContract):
    @pytest.fixture
    def make(self):
        return CSVLogger

    def logged(self, info):
        return [(int(row["trial"]), int(row["resource"])) for row in rows(info)]


def test_the_file_has_one_line_a_report_with_the_configuration(tmp_path):
    records = [SessionStarted(Limits(), CheckpointPolicy(), 0.0)]
    for trial in (0, 1):
        steps = tuple(Step(r, {"loss": 1.0 / r, "lr": 0.5}, r) for r in (1, 2))
        records.append(Suggested(trial, {"x": trial, "kind": "a"}, 0, 0.0))
        records.append(Launched(trial, 1, 0, 2, 0.0))
        records.append(Reported(trial, 1, steps, 2.0))
    info = an_info(tmp_path, records)
    follow([CSVLogger()], records, info).end()
    names = ["trial", "attempt", "resource", "seconds", "config/x", "config/kind", "loss", "lr"]
    assert list(rows(info)[0]) == names
    assert [(row["trial"], row["resource"], row["loss"]) for row in rows(info)] == [
        ("0", "1", "1.0"),
        ("0", "2", "0.5"),
        ("1", "1", "1.0"),
        ("1", "2", "0.5"),
    ]
    assert [row["config/x"] for row in rows(info)] == ["0", "0", "1", "1"]


def test_the_file_can_lie_elsewhere_and_leaves_out_metrics_that_come_later(tmp_path):
    path = tmp_path / "other.csv"
    records = STORIES["a metric comes later"]
    followers = follow([CSVLogger(path)], records, an_info(tmp_path, records))
    assert path.read_text().count("\n") == 10, "a tick writes what there is"
    followers.end()
    assert "accuracy" not in path.read_text()
