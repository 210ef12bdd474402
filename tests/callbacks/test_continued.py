"""Files that later sessions continue, and how far a logger has come."""

from __future__ import annotations

import pytest

from daskhpo.callbacks.continued import Bookmark, ContinuedFile, StudyClock, domains_of
from daskhpo.core.events import SessionStarted
from daskhpo.core.types import CheckpointPolicy, Limits
from daskhpo.testing.callback import an_info

LINES = [b"head\n", b"one\n", b"two\n", b"three\n"]


def write(path, lines, **options):
    file = ContinuedFile(path, **options)
    for line in lines:
        file.write(line)
    file.flush()
    return path.read_bytes()


@pytest.mark.parametrize("n", range(4))
@pytest.mark.parametrize("torn", [b"", b"t", b"tw", b"xyz"])
def test_what_is_there_is_kept_and_an_incomplete_end_is_cut_off(tmp_path, n, torn):
    path = tmp_path / "log"
    if n or not torn:
        path.write_bytes(b"".join(LINES[:n]) + torn)
        assert write(path, LINES) == b"".join(LINES)


def test_nothing_is_written_again(tmp_path):
    path = tmp_path / "log"
    write(path, LINES)
    path.chmod(0o400)
    before = path.stat()
    assert write(path, LINES) == b"".join(LINES)
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_from_the_first_line_that_differs_on_it_is_written_anew(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"head\none\nelse\nmore\n")
    assert write(path, LINES) == b"".join(LINES)


def test_lines_of_another_program_stay(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"head\n#note\none\n#more\n")
    found = write(path, LINES, is_own=lambda line: not line.startswith(b"#"))
    assert found == b"head\n#note\none\n#more\ntwo\nthree\n"


@pytest.mark.parametrize("data", [b"thesis\n", b"a thesis without a line end"])
def test_a_file_of_somebody_else_is_not_touched(tmp_path, data):
    path = tmp_path / "log"
    path.write_bytes(data)
    for is_own in (lambda line: True, lambda line: line.startswith(b"head")):
        with pytest.raises(ValueError, match="exists already and is not of this study"):
            write(path, LINES, is_own=is_own)
    assert path.read_bytes() == data


def test_an_empty_file_is_taken(tmp_path):
    (tmp_path / "log").touch()
    assert write(tmp_path / "log", LINES) == b"".join(LINES)


def test_a_bookmark_knows_what_was_logged(tmp_path):
    class Report:
        def __init__(self, number):
            self.number = number

    first = Bookmark(tmp_path / "mark.json")
    assert [first.is_new(Report(n)) for n in (0, 1, 0)] == [True, True, False]
    assert first.is_new_end()
    first.runs["3"] = "run"
    first.save(now=True)
    again = Bookmark(tmp_path / "mark.json")
    assert (again.id, again.runs) == (first.id, {"3": "run"})
    assert [again.is_new(Report(n)) for n in (0, 1, 2)] == [False, False, True]
    assert [again.is_new_end(), again.is_new_end()] == [False, True]
    assert Bookmark(tmp_path / "other.json").id != first.id


def test_the_time_of_day_is_that_of_each_session(tmp_path):
    info = an_info(tmp_path, [])
    clock = StudyClock(info)
    clock.learn(SessionStarted(Limits(), CheckpointPolicy(), 0.0, clock=1000.0))
    assert clock.at(5.0) == 1005.0
    clock.learn(SessionStarted(Limits(), CheckpointPolicy(), 10.0, clock=5000.0))
    assert clock.at(12.0) == 5002.0
    clock.learn(SessionStarted(Limits(), CheckpointPolicy(), 20.0))  # of an older version
    assert clock.at(22.0) == 5012.0


def test_a_study_without_a_manifest_has_no_domains(tmp_path):
    assert domains_of(tmp_path) == {}
