"""Progress in the terminal, of a study whose searcher was late."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from daskhpo.callbacks import ConsoleProgress
from daskhpo.callbacks.values import StudyInfo, summarise
from daskhpo.core.events import (
    Ended,
    Failed,
    Launched,
    Reported,
    SessionStarted,
    SlotsChanged,
    Step,
    StopRequested,
    Suggested,
)
from daskhpo.core.objective import Objective
from daskhpo.core.types import CheckpointPolicy, Limits, Status, Stop
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
    assert "1.2 slot-seconds lost waiting for the searcher" in text
    assert "1 random configuration instead" in text


def test_where_nothing_was_lost_a_table_says_so_and_a_line_is_short():
    assert "0.0 slot-seconds lost" in shown(Terminal())
    assert "searcher" not in shown(io.StringIO())


# -- failures, names, pace -----------------------------------------------------------------------

TYPO = (
    'Traceback (most recent call last):\n  File "/home/me/tune.py", line 3, in train\n'
    "    return config['leraning']\nKeyError: 'leraning'"
)


def followed(file, records, name="first", metric="loss", **limits):
    limits = Limits(**limits)
    objective = Objective(metric)
    info = StudyInfo(name, Path("runs/first"), objective, limits, "FIFO(1)", None, None)
    began = SessionStarted(limits, CheckpointPolicy(), 0.0)
    progress = ConsoleProgress(file)
    followers = follow([progress], [began, SlotsChanged(1, 0.0), *records], info)
    return progress, followers


def failed(trial, at):
    return [
        Suggested(trial, {"x": 1.0}, 0, at),
        Launched(trial, 1, 0, 9, at),
        Failed(trial, 1, TYPO, at + 1),
        Ended(trial, Status.FAILED, "KeyError: 'leraning'", at + 1),
    ]


@pytest.mark.parametrize("file", [io.StringIO, Terminal])
def test_the_first_failure_is_shown_at_once_with_its_line(file):
    file = file()
    _, followers = followed(file, failed(0, 0.0))
    text = file.getvalue()
    assert "first: trial 0 failed: KeyError: 'leraning'" in text
    assert '  File "/home/me/tune.py", line 3, in train' in text
    assert "    return config['leraning']" in text
    assert "`daskhpo status runs/first 0`" in text
    for record in failed(1, 2.0):
        followers.apply(record)
    followers.end()
    assert "trial 1 failed" not in file.getvalue()


@pytest.mark.parametrize("file", [io.StringIO, Terminal])
def test_the_end_says_in_one_sentence_what_the_study_did(file):
    file = file()
    step = Step(9, {"loss": 0.25}, 1.0)
    records = [
        Suggested(0, {"x": 1.0}, 0, 0.0),
        Launched(0, 1, 0, 9, 0.0),
        Reported(0, 1, (step,), 1.0, decision=Stop("fully trained")),
        Ended(0, Status.COMPLETED, "fully trained", 1.0),
        Suggested(1, {"x": 2.0}, 0, 1.0),
    ]
    _, followers = followed(file, records)
    followers.end()
    text = " ".join(file.getvalue().split())
    assert (
        "first: FIFO tried 2 configurations and trained 1 to the end; the best is trial 0" in text
    )
    assert "with loss=0.25 after 9 units" in text


def test_the_end_says_so_if_all_trials_failed():
    file = io.StringIO()
    _, followers = followed(file, [*failed(0, 0.0), *failed(1, 2.0)])
    followers.end()
    assert "first: FIFO tried 2 configurations, and all failed" in file.getvalue()


@pytest.mark.parametrize("file", [io.StringIO, Terminal])
@pytest.mark.parametrize("name", ["[red]x[/red]", "[/]", ":smile:", "a[0]"])
def test_names_are_no_markup(file, name):
    file = file()
    step = Step(1, {name: 0.5}, 1.0)
    records = [
        Suggested(0, {name: name}, 0, 0.0),
        Launched(0, 1, 0, 1, 0.0),
        Reported(0, 1, (step,), 1.0, decision=Stop("done")),
    ]
    _, followers = followed(file, records, name=name, metric=name)
    followers.end()
    assert f"{name}=0.5 (trial 0: {name}={name})" in file.getvalue()


def test_control_characters_are_shown_and_not_obeyed():
    file, name = io.StringIO(), "a\x1b[2J\nb"
    _, followers = followed(file, [Suggested(0, {name: name}, 0, 0.0)], name=name)
    followers.apply(StopRequested("\x1b[31mbad", 2.0))
    followers.end()
    assert "\x1b" not in file.getvalue()
    assert r"a\x1b[2J\nb: stopped, because \x1b[31mbad" in file.getvalue()


def ended(trial, at):
    return [
        Suggested(trial, {"x": 1.0}, 0, at - 1),
        Launched(trial, 1, 0, 1, at - 1),
        Reported(trial, 1, (Step(1, {"loss": 1.0}, at),), at, decision=Stop("done")),
        Ended(trial, Status.COMPLETED, "done", at),
    ]


@pytest.mark.parametrize(
    ("seconds", "pace"), [(2.0, "30.0 trials/min"), (60.0, "1.0 trials/min"), (900.0, "4 trials/h")]
)
def test_a_slow_pace_is_by_the_hour(seconds, pace):
    file = io.StringIO()
    records = [record for n in range(4) for record in ended(n, (n + 1) * seconds)]
    _, followers = followed(file, records, num_trials=99)
    followers.end()
    assert f"{pace} on 1 slot" in file.getvalue()


def test_before_the_first_trial_leaves_its_slot_there_is_no_pace():
    file = io.StringIO()
    _, followers = followed(file, [Suggested(0, {"x": 1.0}, 0, 0.0)], num_trials=9)
    followers.end()
    assert "no trial has paused or ended yet on 1 slot" in file.getvalue()
    assert "left" not in file.getvalue()


def test_the_time_left_passes_between_two_ends(monkeypatch):
    now = 1000.0
    monkeypatch.setattr("daskhpo.callbacks.console.time.monotonic", lambda: now)
    progress, followers = followed(io.StringIO(), [*ended(0, 10.0), *ended(1, 20.0)], num_trials=5)

    def left():
        return progress._left(summarise(followers.progress))

    now += 20.0 - (now - progress._began_at)
    assert left() == pytest.approx(31.0)
    now += 12.0
    assert left() == pytest.approx(19.0)
    now += 100.0
    assert left() == 0.0


def test_nothing_is_left_at_the_end():
    file = io.StringIO()
    _, followers = followed(file, [*ended(0, 10.0)], num_trials=5, time_budget=60.0)
    followers.end()
    assert "left" not in file.getvalue()
