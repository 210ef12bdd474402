"""Callbacks: they follow the journal, and cannot hurt the study."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace

import pytest

from daskhpo.callbacks import follower as follower_module
from daskhpo.callbacks.base import Callback
from daskhpo.callbacks.follower import JournalFollower
from daskhpo.callbacks.values import StudyInfo
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

    def on_study_start(self, info):
        self.info = info
        self._note("start")

    def on_record(self, record, progress):
        self.records.append(record)
        self.n_trials = progress.n_trials
        self._note("record")

    def on_tick(self, study):
        self._note("tick")

    def on_study_end(self, study):
        self._note("end")


@pytest.fixture
def follow(tmp_path, monkeypatch):
    """Follows a journal of two sessions; the second one is written meanwhile."""
    monkeypatch.setattr(follower_module, "JOURNAL_POLL_SECONDS", 0.001)
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
    assert notes.info == replace(info, session=notes.info.session)
    assert notes.records == EARLIER + LATER
    assert notes.n_trials == 2
    assert (notes.told[0], notes.told[-2:]) == ("start", ["tick", "end"])


def test_a_callback_that_knows_no_detach_takes_it_for_the_end(tmp_path):
    (tmp_path / "journal.jsonl").write_text("".join(encode_record(r) + "\n" for r in EARLIER))
    info = StudyInfo("study", tmp_path, OBJECTIVE, Limits(), "FIFO(2)", None, None)
    notes = Notes()
    JournalFollower(info, [notes]).detach()
    assert notes.records == EARLIER
    assert notes.told[-1] == "end"


@pytest.mark.parametrize("method", ["start", "record", "tick", "end"])
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
    assert good.told[-1] == "end"


def test_a_callback_may_not_even_end_the_others_by_system_exit(follow, caplog):
    class Leaves(Notes):
        def on_record(self, record, progress):
            raise SystemExit(3)

    good = Notes()
    follow(Leaves(), good)
    assert good.records == EARLIER + LATER


def test_a_callback_that_does_not_return_is_not_waited_for_without_end(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(follower_module, "CALLBACK_END_SECONDS", 0.1)
    leave = threading.Event()

    class Hangs(Notes):
        def on_study_end(self, study):
            leave.wait()

    info = StudyInfo("study", tmp_path, OBJECTIVE, Limits(), "FIFO(2)", None, None)
    JournalFollower(info, [Hangs()]).finish()
    leave.set()
    assert "the callback Notes() still works 0.1 s after the end" in caplog.text


def test_a_line_that_is_not_finished_is_told_when_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(follower_module, "JOURNAL_POLL_SECONDS", 0.001)
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
    assert notes.told == ["start", "tick", "end"]


def test_a_journal_that_cannot_be_read_ends_the_following_and_not_the_callbacks(tmp_path, caplog):
    (tmp_path / "journal.jsonl").write_text(f"{encode_record(EARLIER[0])}\nnonsense\n")
    notes = Notes()
    info = StudyInfo("study", tmp_path, OBJECTIVE, Limits(), "FIFO(2)", None, None)
    JournalFollower(info, [notes]).finish()
    assert notes.records == EARLIER[:1]
    assert notes.told[-1] == "end"
    assert "cannot be read; callbacks get no more records" in caplog.text


@pytest.mark.parametrize("records", [[], EARLIER, EARLIER + LATER], ids=["none", "one", "two"])
def test_a_callback_hears_at_the_start_which_session_runs(tmp_path, records):
    (tmp_path / "journal.jsonl").write_text("".join(encode_record(r) + "\n" for r in records))
    info = StudyInfo("study", tmp_path, OBJECTIVE, Limits(), "FIFO(2)", None, None)
    notes = Notes()
    JournalFollower(info, [notes]).finish()
    assert notes.info.session == max(1, sum(isinstance(r, SessionStarted) for r in records))


def test_a_slow_callback_keeps_no_other_one_and_no_end_waiting(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(follower_module, "JOURNAL_POLL_SECONDS", 0.001)
    monkeypatch.setattr(follower_module, "CALLBACK_END_SECONDS", 0.1)
    leave, hangs = threading.Event(), threading.Event()

    class Hangs(Notes):
        own_thread = True

        def on_report(self, trial, report):
            hangs.set()
            leave.wait()

    (tmp_path / "journal.jsonl").write_text("".join(encode_record(r) + "\n" for r in EARLIER))
    info = StudyInfo("study", tmp_path, OBJECTIVE, Limits(), "FIFO(2)", None, None)
    slow, notes = Hangs(), Notes()
    follower = JournalFollower(info, [slow, notes])
    assert hangs.wait(10)
    with (tmp_path / "journal.jsonl").open("a") as file:
        file.write("".join(encode_record(r) + "\n" for r in LATER))
    follower.finish()
    assert notes.records == EARLIER + LATER
    assert notes.told[-1] == "end"
    n_missed = len(EARLIER + LATER) - 4  # it hangs in the fourth
    assert (
        f"still works 0.1 s after the end; it is not waited for, and has not heard the last "
        f"{n_missed} records" in caplog.text
    )
    leave.set()


def test_a_slow_callback_that_raises_is_left_out_and_logged_once(follow, caplog):
    bad, good = Notes(raises="record"), Notes()
    bad.own_thread = True
    follow(bad, good)
    assert caplog.text.count("will not be called again") == 1
    assert good.records == EARLIER + LATER


def test_a_slow_callback_hears_all_that_was_written_while_it_worked(follow):
    slow = Notes()
    slow.own_thread = True
    follow(slow)
    assert slow.records == EARLIER + LATER
    assert slow.told[-1] == "end"
