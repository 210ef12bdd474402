"""What users wrote is shown by a terminal as it is, and obeyed by none."""

from __future__ import annotations

import shlex

import pytest

from daskhpo.core.printable import printable, shell_word


@pytest.mark.parametrize("text", ["loss", "größe/η² 損失 🙂", "[red]a[/red]", "a b", ":smile:"])
def test_what_has_a_shape_stays(text):
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("user\u202etxt", r"user\u202etxt"),
        ("a\u2028b\x85", r"a\u2028b\x85"),
        ("t\udce9l", r"t\udce9l"),
        (None, "None"),
        (("a\n", 1), "('a\\n', 1)"),
    ],
)
def test_what_a_terminal_obeys_is_escaped(text, shown):
    assert printable(text) == shown
    printable(text).encode()


def test_lines_can_be_kept():
    assert printable("a\n\tb\r\x1b", lines=True) == "a\n\tb\\r\\x1b"


@pytest.mark.parametrize("path", ["runs/first", "runs/my study", "it's", "a;rm -rf b", "$HOME"])
def test_a_path_in_a_command_is_one_word(path):
    assert shlex.split(f"daskhpo status {shell_word(path)} 0") == ["daskhpo", "status", path, "0"]
