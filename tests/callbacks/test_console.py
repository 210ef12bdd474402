"""Progress in the terminal, of a study whose searcher was late."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from daskhpo.callbacks import ConsoleProgress
from daskhpo.callbacks.values import StudyInfo
from daskhpo.core.events import SessionStarted, SlotsChanged, Suggested
from daskhpo.core.objective import Objective
from daskhpo.core.types import CheckpointPolicy, Limits
from daskhpo.testing.callback import CallbackContract, follow


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")  # others are always 80 wide


def shown(file, **suggested):
    limits = Limits(num_trials=2)
    info = StudyInfo("first", Path("runs/first"), Objective("loss"), limits, "FIFO(1)", None, None)
    records = [
        SessionStarted(limits, CheckpointPolicy(), 0.0),
        SlotsChanged(4, 0.0),
        Suggested(0, {"x": 1.0}, 0, 0.5, **suggested),
    ]
    follow([ConsoleProgress(file)], records, info).end()
    return file.getvalue()


class TestConsoleProgress(CallbackContract):
    @pytest.fixture
    def make(self):
        return lambda: ConsoleProgress(io.StringIO())


@pytest.mark.parametrize("file", [io.StringIO, Terminal])
def test_it_says_what_waiting_for_the_searcher_has_cost(file):
    text = shown(file(), waited=1.25, fallback=True)
    assert "1.2 device-seconds lost waiting for the searcher" in text
    assert "1 random configuration instead" in text


def test_where_nothing_was_lost_a_table_says_so_and_a_line_is_short():
    assert "0.0 device-seconds lost" in shown(Terminal())
    assert "searcher" not in shown(io.StringIO())
