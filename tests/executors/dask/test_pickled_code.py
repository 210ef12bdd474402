"""The user's code travels with its source lines, and its errors show them."""

from __future__ import annotations

import linecache

import pytest

from daskhpo.executors.dask import pickled_code
from daskhpo.executors.dask.pickled_code import dump_code, load_code, traceback_of

SCRIPT = """
def helper(config):
    return config["lr"]

def train(config, trial):
    return helper(config)
"""


@pytest.fixture
def train(tmp_path):
    """A function of a script that is not imported, and that is gone where it runs."""
    path = tmp_path / "tune.py"
    path.write_text(SCRIPT)
    names = {"__name__": "__main__"}
    exec(compile(SCRIPT, str(path), "exec"), names)
    data = dump_code(names["train"])
    path.unlink()
    linecache.cache.pop(str(path), None)
    yield load_code(data)
    linecache.cache.pop(str(path), None)


def error_of(act):
    try:
        act()
    except BaseException as error:
        return error
    raise AssertionError("it raised nothing")


def test_a_traceback_shows_file_line_and_source_of_a_script_that_is_elsewhere(train, tmp_path):
    shown = traceback_of(error_of(lambda: train({}, None)))
    assert f'File "{tmp_path}/tune.py", line 3, in helper\n    return config["lr"]' in shown
    assert shown.endswith("KeyError: 'lr'")


def test_a_traceback_shows_the_lines_as_they_were_when_the_study_began(train, tmp_path):
    (tmp_path / "tune.py").write_text("# edited since\n" * 9)
    linecache.checkcache()
    assert 'return config["lr"]' in traceback_of(error_of(lambda: train({}, None)))


def test_code_without_a_file_is_carried_too():
    names = {"__name__": "__main__"}
    exec("def train(config, trial):\n    return 1 / 0", names)
    shown = traceback_of(error_of(lambda: load_code(dump_code(names["train"]))({}, None)))
    assert 'File "<string>", line 2, in train' in shown


def test_what_is_importable_is_sent_by_its_name():
    assert load_code(dump_code(pytest.approx)) is pytest.approx
    assert len(dump_code(pytest.approx)) < 200


def test_a_traceback_is_without_the_calls_that_led_to_the_users_code(monkeypatch):
    def inner():
        raise ValueError("cause")

    def outer():
        try:
            inner()
        except ValueError as error:
            raise ExceptionGroup("group", [error]) from error

    full = traceback_of(error_of(outer))
    assert full.count(f'File "{__file__}"') > 3
    monkeypatch.setattr(pickled_code, "CALLERS", (__file__,))
    trimmed = traceback_of(error_of(outer))
    assert __file__ not in trimmed
    assert trimmed.count("ValueError: cause") == 2
