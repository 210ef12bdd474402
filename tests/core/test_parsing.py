"""Objects from text: known names with plain values, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskhpo.core.parsing import MAX_LENGTH, parse_call

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


def box(*args, **options):
    """What a call was given."""
    return args, options


@given(PLAIN)
def test_a_plain_value_is_what_its_repr_says(value):
    assert parse_call(repr(value), {}) == value


@given(st.lists(PLAIN, max_size=3), st.dictionaries(st.sampled_from(["a", "b"]), PLAIN))
def test_a_known_name_is_called_with_what_stands_there(args, options):
    shown = ", ".join([*map(repr, args), *(f"{k}={v!r}" for k, v in options.items())])
    assert parse_call(f"box({shown})", {"box": box}) == (tuple(args), options)


def test_known_names_may_stand_within_one_another():
    assert parse_call("box([box(1)], x={'y': box()})", {"box": box}) == (
        ([((1,), {})],),
        {"x": {"y": ((), {})}},
    )


@pytest.mark.parametrize(
    "text",
    [
        "open('x')",
        "box.__class__",
        "box.__call__(1)",
        "(lambda: 1)()",
        "box(*[1])",
        "box(**{'a': 1})",
        "{**{}}",
        "box",
        "[x for x in (1, 2)]",
        "1 + 1",
        "2 ** 9",
        "f'{1}'",
        "(x := 1)",
        "...",
        "b'x'",
        "1j",
        "-'x'",
        "box(open('x'))",
        "[box, box(1)][0]",
    ],
)
def test_anything_else_is_refused_and_not_run(text):
    called = []
    with pytest.raises(ValueError, match="is not allowed; write plain values and calls of box"):
        parse_call(text, {"box": lambda *args: called.append(args)})
    assert not called


@pytest.mark.parametrize("text", ["", "box(", "1; 2", "import os", "box()\nbox()", "\0", "(" * 99])
def test_what_is_no_expression_is_refused(text):
    with pytest.raises(ValueError, match=r"cannot be read|null bytes"):
        parse_call(text, {"box": box})


def test_arguments_that_the_callable_refuses_are_named_with_the_text():
    with pytest.raises(ValueError, match=r"'box\(z=1\)': .*unexpected keyword"):
        parse_call("box(z=1)", {"box": lambda a=0: a})


def test_a_text_without_an_end_is_refused():
    with pytest.raises(ValueError, match="is longer than"):
        parse_call("1" * (MAX_LENGTH + 1), {})
