"""The error itself is found in a traceback, whatever else that says."""

from __future__ import annotations

import re
import subprocess
import traceback

import pytest

from daskhpo.core.tracebacks import headline, kind, place


def raised(act):
    """The traceback of what a function raises."""
    try:
        act()
    except BaseException:
        return traceback.format_exc()
    raise AssertionError("it raised nothing")


def cuda():
    raise RuntimeError("CUDA error: device-side assert\nCompile with `TORCH_USE_CUDA_DSA`.\n")


def noted():
    error = ValueError("the cause")
    error.add_note("while training\nof trial 3")
    raise error


def grouped():
    inner = ExceptionGroup("inner", [KeyError("deep"), noted_value()])
    raise ExceptionGroup("several", [inner, TypeError("another\nline")])


def noted_value():
    try:
        noted()
    except ValueError as error:
        return error


def chained():
    try:
        grouped()
    except ExceptionGroup as error:
        raise OSError("no data\nin sight") from error


def in_the_handler():
    try:
        {}["x"]
    except KeyError:
        [][1]


def group_of_a_cause():
    try:
        in_the_handler()
    except IndexError as error:
        raise ExceptionGroup("last", [error]) from error


def syntax():
    compile("def f(:\n", "broken.py", "exec")


def embedded():
    raise RuntimeError(f"the worker said:\n{raised(cuda)}")


def deep():
    return deep()


class Silent(Exception):
    pass


def silent():
    raise Silent


def begins_below():
    raise ValueError("\n\n  it begins below\nand ends here")


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (cuda, "RuntimeError: CUDA error: device-side assert"),
        (noted, "ValueError: the cause"),
        (chained, "OSError: no data"),
        (in_the_handler, "IndexError: list index out of range"),
        (syntax, "SyntaxError: invalid syntax"),
        (embedded, "RuntimeError: the worker said:"),
        (deep, "RecursionError: maximum recursion depth exceeded"),
        (silent, f"{__name__}.Silent"),
        (begins_below, "ValueError: it begins below"),
        (lambda: {}["lr"], "KeyError: 'lr'"),
        (lambda: exit(3), "SystemExit: 3"),
        (
            grouped,
            "ExceptionGroup: several (2 sub-exceptions): ExceptionGroup: inner (2 sub-exceptions); "
            "TypeError: another",
        ),
        (
            group_of_a_cause,
            "ExceptionGroup: last (1 sub-exception): IndexError: list index out of range",
        ),
    ],
)
def test_the_headline_names_the_error_itself(act, expected):
    assert headline(raised(act)) == expected


@pytest.mark.parametrize("text", ["loss=nan is not finite", "\n loss=nan is not finite\nmore"])
def test_the_headline_of_another_description_is_its_first_line(text):
    assert headline(text) == "loss=nan is not finite"
    assert place(text) == ""


def test_nothing_has_an_empty_headline():
    assert headline("") == headline("\n") == ""


@pytest.mark.parametrize("act", [cuda, chained, noted, silent])
def test_the_place_is_the_call_that_raised_and_its_line(act):
    first, second = place(raised(act)).splitlines()
    assert re.fullmatch(rf'  File "{__file__}", line \d+, in {act.__name__}', first)
    assert second.strip().startswith("raise ")


def test_the_place_of_a_group_is_where_the_group_was_raised():
    assert 'raise ExceptionGroup("several"' in place(raised(grouped))


def test_the_place_is_in_the_users_code_rather_than_in_a_library():
    shown = place(raised(lambda: subprocess.run(["/no/such/program"])))
    assert __file__ in shown
    assert "/no/such/program" in shown


def test_the_place_is_in_a_library_if_no_other_code_was_called():
    text = 'Traceback (most recent call last):\n  File "/lib/python3.11/a.py", line 3, in f\nE: x'
    assert place(text) == '  File "/lib/python3.11/a.py", line 3, in f'


def test_errors_are_of_one_kind_if_only_their_numbers_differ():
    one = "OutOfMemoryError: tried to allocate 2.30 GiB at 0x7f3a"
    other = "OutOfMemoryError: tried to allocate 512 GiB at 0x11"
    assert kind(one) == kind(other) != kind("OutOfMemoryError: tried to free 512 GiB at 0x11")
