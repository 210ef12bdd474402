"""Callbacks: they follow the journal, and cannot hurt the study."""

from __future__ import annotations

import csv
import logging

import pytest

from daskhpo.callbacks import CSVLogger
from daskhpo.callbacks import base as base
from daskhpo.callbacks.base import Callback, JournalFollower, StudyInfo
from daskhpo.core.events import Ended, Launched, Reported, SessionStarted, Step, Suggested
from daskhpo.core.objective import Objective
from daskhpo.core.types import CheckpointPolicy, Limits, Status, Stop
from daskhpo.engine.journal import FileJournal, encode_record

OBJECTIVE = Objective("loss")


def a_study(trial=0, at=0.0):
    """Records of one trial that reports twice."""
    steps = tuple(Step(r, {"loss": 1.0 / r, "lr": 0.5}, at + r) for r in (1, 2))
    return [
        Suggested(trial, {"x": trial, "kind": "a"}, 0, at),
        Launched(trial, 1, 0, 2, at),
        Reported(trial, 1, steps, at + 2, decision=Stop("fully trained")),
        Ended(trial, Status.COMPLETED, "fully trained", at + 2),
    ]


EARLIER = [SessionStarted(Limits(), CheckpointPolicy(), 0.0), *a_study(0)]
LATER = [SessionStarted(Limits(), CheckpointPolicy(), 2.0), *a_study(1, at=2.0)]


class Notes(Callback):
    """Notes what it is told; raises in one of its methods if asked to."""

    def __init__(self, raises=""):
        self.told, self.records, self.raises = [], [], raises

    def __repr__(self):
        return "Notes()"

    def _note(self, name):
        if self.told[-1:] != [name] or name != "tick":
            self.told.append(name)
        if name == self.raises:
            raise ZeroDivisionError(name)

    def on_start(self, info):
        self.info = info
        self._note("start")

    def on_record(self, record, progress):
        self.records.append(record)
        self.n_trials = progress.n_trials
        self._note("record")

    def on_tick(self, progress):
        self._note("tick")

    def on_finish(self, progress):
        self._note("finish")


@pytest.fixture
def follow(tmp_path, monkeypatch):
    """Follows a journal of two sessions; the second one is written meanwhile."""
    monkeypatch.setattr(base, "JOURNAL_POLL_SECONDS", 0.001)
    info = StudyInfo("study", tmp_path, OBJECTIVE, Limits(), "FIFO(2)", None, None)

    def run(*callbacks):
        journal = FileJournal(tmp_path / "journal.jsonl")
        for record in EARLIER:
            journal.append(record)
        journal.flush()
        follower = JournalFollower(info, callbacks)
        for record in LATER:
            journal.append(record)
            journal.flush()
        journal.close()
        follower.finish()
        return info

    return run


def test_a_callback_hears_all_records_in_order_those_of_earlier_sessions_too(follow):
    notes = Notes()
    info = follow(notes)
    assert notes.info is info
    assert notes.records == EARLIER + LATER
    assert notes.n_trials == 2
    assert (notes.told[0], notes.told[-2:]) == ("start", ["tick", "finish"])


def test_a_callback_that_knows_no_leave_takes_it_for_the_end(tmp_path):
    (tmp_path / "journal.jsonl").write_text("".join(encode_record(r) + "\n" for r in EARLIER))
    info = StudyInfo("study", tmp_path, OBJECTIVE, Limits(), "FIFO(2)", None, None)
    notes = Notes()
    JournalFollower(info, [notes]).detach()
    assert notes.records == EARLIER
    assert notes.told[-1] == "finish"


@pytest.mark.parametrize("method", ["start", "record", "tick", "finish"])
def test_a_callback_that_raises_is_left_out_and_logged_once(follow, caplog, method):
    bad, good = Notes(raises=method), Notes()
    with caplog.at_level(logging.ERROR, logger="daskhpo"):
        follow(bad, good)
    assert bad.told.count(method) == 1
    assert bad.told[-1] == method
    (logged,) = caplog.records
    assert logged.getMessage() == "Notes() raised and will not be called again"
    assert logged.exc_info[0] is ZeroDivisionError
    assert good.records == EARLIER + LATER
    assert good.told[-1] == "finish"


def test_a_line_that_is_not_finished_is_told_when_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(base, "JOURNAL_POLL_SECONDS", 0.001)
    path, notes = tmp_path / "journal.jsonl", Notes()
    line = encode_record(EARLIER[0])
    info = StudyInfo("study", tmp_path, OBJECTIVE, Limits(), "FIFO(2)", None, None)
    follower = JournalFollower(info, [notes])
    with path.open("w") as file:
        for part in (line[:9], line[9:], "\n", line):
            file.write(part)
            file.flush()
        follower.finish()
    assert notes.records == EARLIER[:1]


def test_a_study_that_never_wrote_a_journal_ends_its_callbacks(tmp_path):
    notes = Notes()
    info = StudyInfo("study", tmp_path, OBJECTIVE, Limits(), "FIFO(2)", None, None)
    JournalFollower(info, [notes]).finish()
    assert notes.told == ["start", "tick", "finish"]


def test_a_journal_that_cannot_be_read_ends_the_following_and_not_the_callbacks(tmp_path, caplog):
    (tmp_path / "journal.jsonl").write_text(f"{encode_record(EARLIER[0])}\nnonsense\n")
    notes = Notes()
    info = StudyInfo("study", tmp_path, OBJECTIVE, Limits(), "FIFO(2)", None, None)
    JournalFollower(info, [notes]).finish()
    assert notes.records == EARLIER[:1]
    assert notes.told[-1] == "finish"
    assert "cannot be read; callbacks get no more records" in caplog.text


def test_the_csv_file_has_one_line_a_report_with_the_configuration(follow, tmp_path):
    follow(CSVLogger())
    with (tmp_path / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "trial",
        "attempt",
        "resource",
        "seconds",
        "config/x",
        "config/kind",
        "loss",
        "lr",
    ]
    assert [(row["trial"], row["resource"], row["loss"]) for row in rows] == [
        ("0", "1", "1.0"),
        ("0", "2", "0.5"),
        ("1", "1", "1.0"),
        ("1", "2", "0.5"),
    ]
    assert [row["config/x"] for row in rows] == ["0", "0", "1", "1"]


def test_the_csv_file_can_lie_elsewhere_and_leaves_out_metrics_that_come_later(tmp_path):
    path = tmp_path / "other.csv"
    logger = CSVLogger(path)
    logger.on_start(StudyInfo("study", tmp_path, OBJECTIVE, Limits(), "FIFO(2)", None, None))
    from daskhpo.results.result import StudyProgress

    progress = StudyProgress(OBJECTIVE)
    for record in [Suggested(0, {"x": 1}, 0, 0.0), Launched(0, 1, 0, 2, 0.0)]:
        progress.apply(record)
        logger.on_record(record, progress)
    for resource, metrics in [(1, {"loss": 1.0}), (2, {"loss": 0.5, "more": 3.0})]:
        logger.on_record(Reported(0, 1, (Step(resource, metrics, 1.0),), 1.0), progress)
    logger.on_tick(progress)
    assert path.read_text().count("\n") == 3
    logger.on_finish(progress)
    assert "more" not in path.read_text()
