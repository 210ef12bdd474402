"""Output of trials, each in its own file."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import subprocess
import sys
import threading

import pytest

from daskhpo import trial_output
from daskhpo.trial_output import TrialLog, TrialOutput, log_path, older_path


@contextlib.contextmanager
def routed(directory):
    """Route the output within a test: pytest replaces the streams between fixtures and tests."""
    output = TrialOutput(directory, is_own=True)
    with output.routed():
        yield output


def lines(directory, trial):
    """Return what a trial has in its file, without the line on its attempt."""
    path = log_path(directory, trial)
    return path.read_text().splitlines()[1:] if path.exists() else None


def test_prints_and_logs_of_a_trial_are_in_its_file_and_on_the_terminal(tmp_path, capsys):
    with routed(tmp_path) as output:
        print("before")
        output.begin(3, 2)
        print("printed", 1)
        print("an error", file=sys.stderr)
        handler = logging.StreamHandler()
        logger = logging.getLogger("of-a-user")
        logger.addHandler(handler)
        logger.warning("logged")
        logger.removeHandler(handler)
        output.end()
    print("after")
    found = log_path(tmp_path, 3).read_text()
    assert found.startswith("[attempt 2 on ")
    assert lines(tmp_path, 3) == ["printed 1", "an error", "logged"]
    assert "before" not in found
    assert "after" not in found
    shown = capsys.readouterr()
    assert shown.out == "before\nprinted 1\nafter\n"
    assert shown.err == "an error\nlogged\n"


def test_a_trial_that_prints_nothing_has_no_file(tmp_path):
    with routed(tmp_path) as output:
        output.begin(0, 1)
        assert os.environ[trial_output.LOG_VARIABLE] == str(log_path(tmp_path, 0))
        output.end()
        assert list(tmp_path.iterdir()) == []
        assert trial_output.LOG_VARIABLE not in os.environ


def test_the_streams_are_as_before_at_the_end(tmp_path):
    before = sys.stdout, sys.stderr
    with TrialOutput(tmp_path).routed(), TrialOutput(tmp_path).routed():
        assert sys.stdout is not before[0]
        assert sys.stdout.encoding == before[0].encoding
    assert (sys.stdout, sys.stderr) == before


def test_a_later_trial_and_a_later_attempt_do_not_mix(tmp_path):
    with routed(tmp_path) as output:
        for trial, attempt in ((0, 1), (1, 1), (0, 2)):
            output.begin(trial, attempt)
            print("trial", trial, "attempt", attempt)
        output.end()
        assert lines(tmp_path, 1) == ["trial 1 attempt 1"]
        first, title, second = lines(tmp_path, 0)
        assert (first, second) == ("trial 0 attempt 1", "trial 0 attempt 2")
        assert title.startswith("[attempt 2 on ")


def test_threads_of_a_trial_write_to_its_file(tmp_path):
    with routed(tmp_path) as output:
        output.begin(0, 1)
        thread = threading.Thread(target=print, args=("from a thread",))
        thread.start()
        thread.join()
        output.end()
        assert lines(tmp_path, 0) == ["from a thread"]


def test_concurrent_trials_in_one_process_do_not_mix(tmp_path):
    both = threading.Barrier(2)

    def train(trial):
        output = TrialOutput(tmp_path)
        with output.routed():
            both.wait(10)
            output.begin(trial, 1)
            for n in range(3):
                both.wait(10)
                print(f"{trial} prints {n}")
            both.wait(10)
            output.end()

    threads = [threading.Thread(target=train, args=(trial,)) for trial in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for trial in range(2):
        assert lines(tmp_path, trial) == [f"{trial} prints {n}" for n in range(3)]


def test_a_thread_that_was_there_before_writes_to_no_trial(tmp_path):
    go = threading.Event()

    def later():
        go.wait(10)
        print("of somebody else")

    thread = threading.Thread(target=later)
    thread.start()
    output = TrialOutput(tmp_path)
    with output.routed():
        output.begin(0, 1)
        go.set()
        thread.join()
        print("mine")
    assert lines(tmp_path, 0) == ["mine"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_writes_to_the_file(tmp_path):
    with routed(tmp_path) as output:
        output.begin(0, 1)
        print("parent, line 1")
        child = multiprocessing.get_context("fork").Process(target=print, args=("child",))
        child.start()
        child.join()
        print("parent, line 2")
        output.end()
        assert lines(tmp_path, 0) == ["parent, line 1", "child", "parent, line 2"]


def test_a_program_that_imports_daskhpo_writes_to_the_file(tmp_path, capfd):
    with routed(tmp_path) as output:
        output.begin(0, 1)
        print("parent")
        code = "import daskhpo, sys; print('child'); print('no line end', end='', file=sys.stderr)"
        env = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        subprocess.run([sys.executable, "-c", code], check=True, env=env)
        output.end()
        assert sorted(lines(tmp_path, 0)) == ["child", "no line end", "parent"] or (
            log_path(tmp_path, 0).read_text().count("child") == 1
        )
        assert "child" in capfd.readouterr().out


def test_many_lines_are_few_writes(tmp_path, monkeypatch):
    writes = []
    write = os.write
    monkeypatch.setattr(trial_output.os, "write", lambda *args: writes.append(1) or write(*args))
    log = TrialLog(str(tmp_path / "0.log"))
    for n in range(2000):
        log.write(f"line {n}\n")
    log.close()
    assert len(writes) <= 5
    assert (tmp_path / "0.log").read_text().splitlines() == [f"line {n}" for n in range(2000)]


def test_what_was_printed_is_in_the_file_although_nothing_follows(tmp_path, monkeypatch):
    monkeypatch.setattr(trial_output, "FLUSH_SECONDS", 0.01)
    log = TrialLog(str(tmp_path / "0.log"))
    log.write("no line end")
    timer = log._timer
    assert timer is not None
    timer.join(10)
    assert (tmp_path / "0.log").read_text() == "no line end"
    log.close()


def test_a_long_output_has_two_files_at_most(tmp_path, monkeypatch):
    monkeypatch.setattr(trial_output, "MAX_BYTES", 1000)
    monkeypatch.setattr(trial_output, "FLUSH_CHARACTERS", 100)
    path = tmp_path / "0.log"
    log = TrialLog(str(path))
    for n in range(500):
        log.write(f"line {n}\n")
    log.close()
    both = older_path(path).read_text() + (path.read_text() if path.exists() else "")
    assert both.endswith("line 499\n")
    assert sorted(tmp_path.iterdir()) in ([path, older_path(path)], [older_path(path)])
    assert all(file.stat().st_size < 1300 for file in tmp_path.iterdir())


def test_a_file_that_cannot_be_written_does_not_hurt_the_trial(tmp_path, capfd):
    (tmp_path / "logs").write_text("a file where the folder should be")
    output = TrialOutput(tmp_path)
    with output.routed():
        output.begin(0, 1)
        print("one\n" * 5000)
        print("two")
        output.end()
    shown = capfd.readouterr()
    assert shown.out.endswith("two\n")
    assert shown.err.count("cannot be written") <= 1
