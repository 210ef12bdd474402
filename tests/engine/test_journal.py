"""The journal: what was written comes back, whatever happened to the writer."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from types import MappingProxyType
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskhpo.core.errors import JournalCorrupt, StudyFailed
from daskhpo.core.events import (
    AttemptLost,
    Deleted,
    Dropped,
    Ended,
    Enqueued,
    Exploited,
    Extended,
    Failed,
    Held,
    Judged,
    Launched,
    OutOfTime,
    Record,
    Reported,
    RolledBack,
    Saved,
    SaveFailed,
    SessionStarted,
    SetAside,
    SlotsChanged,
    Step,
    StopRequested,
    Suggested,
    TrialPauseRequested,
    TrialStopRequested,
    Withheld,
)
from daskhpo.core.out_of_memory import MemoryKind
from daskhpo.core.types import (
    CheckpointPolicy,
    CheckpointRef,
    Continue,
    Limits,
    Pause,
    PeakMemory,
    Status,
    Stop,
    WritePolicy,
)
from daskhpo.engine import journal as journal_module
from daskhpo.engine.journal import FileJournal, decode_record, encode_record, read_journal

numbers = st.integers(0, 10**6)
seconds = st.integers(0, 10**12).map(lambda n: round(n / 1e6, 6))  # microseconds are kept
values = st.floats(allow_nan=False)
plain = st.one_of(st.none(), st.booleans(), st.integers(), values, st.text())
refs = st.builds(CheckpointRef, numbers, numbers, numbers, st.text(), numbers, numbers)
decisions = st.one_of(
    st.none(),
    st.builds(Continue, numbers),
    st.builds(Pause, st.booleans()),
    st.builds(Stop, st.text()),
)
limits = st.builds(
    Limits,
    st.none() | numbers,
    st.none() | values,
    st.none() | values,
    numbers,
    st.booleans(),
)
policies = st.builds(
    CheckpointPolicy,
    st.sampled_from(get_args(WritePolicy)),
    *[st.none() | numbers] * 4,
    st.floats(0, exclude_min=True),
    st.none() | numbers,
    st.none() | st.text(),
)
steps = st.lists(
    st.builds(Step, numbers, st.dictionaries(st.text(), values | st.integers()), seconds)
).map(tuple)
configs = st.dictionaries(
    st.text(), st.recursive(plain, lambda inner: st.lists(inner).map(tuple), max_leaves=5)
)
KINDS = {
    SessionStarted: st.builds(SessionStarted, limits, policies, seconds),
    Reported: st.builds(
        Reported,
        numbers,
        numbers,
        steps,
        seconds,
        st.booleans(),
        st.booleans(),
        decisions,
        st.none() | st.builds(PeakMemory, numbers, numbers),
    ),
    Held: st.builds(Held, numbers, numbers, st.none() | refs, seconds),
    Saved: st.builds(Saved, numbers, numbers, refs, seconds),
    SaveFailed: st.builds(SaveFailed, numbers, numbers, numbers, st.text(), seconds),
    Dropped: st.builds(Dropped, numbers, numbers, numbers, st.text(), seconds),
    AttemptLost: st.builds(
        AttemptLost, numbers, numbers, st.text(), seconds, st.booleans(), st.booleans()
    ),
    Failed: st.builds(Failed, numbers, numbers, st.text(), seconds, st.booleans(), st.booleans()),
    SlotsChanged: st.builds(SlotsChanged, numbers, seconds, st.text(), numbers, numbers),
    OutOfTime: st.builds(OutOfTime, numbers, numbers, seconds),
    StopRequested: st.builds(StopRequested, st.text(), seconds),
    TrialStopRequested: st.builds(TrialStopRequested, numbers, st.text(), st.text(), seconds),
    TrialPauseRequested: st.builds(TrialPauseRequested, numbers, st.booleans(), st.text(), seconds),
    Enqueued: st.builds(Enqueued, configs, st.text(), seconds),
    Suggested: st.builds(Suggested, numbers, configs, numbers, seconds),
    SetAside: st.builds(SetAside, numbers, st.sampled_from(MemoryKind), numbers, numbers, seconds),
    Judged: st.builds(Judged, st.booleans(), seconds),
    Launched: st.builds(Launched, numbers, numbers, numbers, numbers, seconds),
    Withheld: st.builds(Withheld, numbers, numbers, seconds),
    Ended: st.builds(Ended, numbers, st.sampled_from(Status), st.text(), seconds),
    Extended: st.builds(Extended, numbers, st.none() | numbers, configs, numbers, numbers, seconds),
    Exploited: st.builds(Exploited, numbers, numbers, configs, numbers, seconds),
    RolledBack: st.builds(RolledBack, numbers, seconds),
    Deleted: st.builds(Deleted, numbers, st.text(), seconds),
}
assert set(KINDS) == set(get_args(Record))
A, B, C = (StopRequested(reason, 1.0) for reason in "abc")


@pytest.mark.parametrize("kind", KINDS.values(), ids=[kind.__name__ for kind in KINDS])
@settings(max_examples=50)
@given(data=st.data())
def test_a_record_of_each_kind_comes_back_equal_with_its_types(kind, data):
    record = data.draw(kind)
    line = encode_record(record)
    assert "\n" not in line
    again = decode_record(line)
    assert again == record
    assert repr(again) == repr(record)  # which tells 1 from 1.0 from True


def test_metrics_that_are_not_finite_come_back():
    record = Reported(0, 1, (Step(1, {"loss": 1.0, "other": float("inf")}, 2.0),), 2.0)
    assert decode_record(encode_record(record)) == record
    odd = Reported(0, 1, (Step(1, {"loss": 1.0, "other": float("nan")}, 2.0),), 2.0)
    assert str(decode_record(encode_record(odd)).steps[0].metrics["other"]) == "nan"


def test_times_are_written_to_the_microsecond_and_what_is_empty_is_not_written():
    short = Suggested(0, MappingProxyType({"x": (1,)}), 0, 1.23456789, waited=1e-9)
    assert encode_record(short) == (
        '{"record":"suggested","seconds":1.234568,"trial":0,"config":{"x":[1]},"bracket":0}'
    )
    long = replace(short, waited=0.12345678, fallback=True)
    assert encode_record(long) == encode_record(short)[:-1] + ',"waited":0.123457,"fallback":true}'


def test_what_json_cannot_hold_is_refused():
    with pytest.raises(TypeError, match="cannot be written to a journal"):
        encode_record(Suggested(0, {"x": object()}, 0, 1.0))


@pytest.mark.parametrize("line", ["{}", "[]", "3", '{"record":"other"}', '{"record":"stop"}', "x"])
def test_a_line_that_is_no_record_is_refused_with_its_number(tmp_path, line):
    path = tmp_path / "journal.jsonl"
    path.write_text(f"{encode_record(A)}\n{line}\n{encode_record(B)}\n")
    records = read_journal(path)
    assert next(records) == A
    with pytest.raises(JournalCorrupt, match=r"journal\.jsonl, line 2 cannot be read"):
        next(records)


def write(path, *records):
    journal = FileJournal(path)
    for record in records:
        journal.append(record)
    journal.close()


def test_a_journal_is_appended_to(tmp_path):
    path = tmp_path / "journal.jsonl"
    write(path, A, B)
    write(path, C)
    assert list(read_journal(path)) == [A, B, C]


def test_nothing_is_written_before_the_flush(tmp_path):
    journal = FileJournal(tmp_path / "journal.jsonl")
    journal.append(A)
    assert list(read_journal(journal.path)) == []
    journal.flush()
    assert list(read_journal(journal.path)) == [A]
    journal.flush()
    assert list(read_journal(journal.path)) == [A]
    journal.close()


def test_a_torn_last_line_is_left_out_and_cut_off_by_the_next_writer(tmp_path):
    path = tmp_path / "journal.jsonl"
    write(path, A, B)
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        kept = [A, B][: whole[:size].count(b"\n")]
        assert list(read_journal(path)) == kept
        write(path, C)
        assert list(read_journal(path)) == [*kept, C]


def test_a_torn_line_longer_than_what_is_read_at_once_is_cut_off(tmp_path):
    path = tmp_path / "journal.jsonl"
    write(path, A, StopRequested("x" * 10_000, 1.0))
    path.write_bytes(path.read_bytes()[:-1])
    write(path, C)
    assert list(read_journal(path)) == [A, C]


@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o027, 0o640)])
def test_who_may_read_the_file_follows_from_the_umask(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write(tmp_path / "journal.jsonl", A)
    finally:
        os.umask(before)
    assert (tmp_path / "journal.jsonl").stat().st_mode & 0o777 == mode


def test_what_was_flushed_survives_a_kill(tmp_path):
    path = tmp_path / "journal.jsonl"
    code = f"""
        from itertools import count
        from pathlib import Path
        from daskhpo.core.events import SlotsChanged
        from daskhpo.engine.journal import FileJournal
        journal = FileJournal(Path({str(path)!r}))
        for n in count():
            journal.append(SlotsChanged(n, 0.0))
            journal.flush()
            print(n, flush=True)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE
    ) as writer:
        for _ in range(500):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        said = [int(line) for line in writer.stdout if line.endswith(b"\n")]
    found = [record.n_slots for record in read_journal(path)]
    assert found == list(range(len(found)))
    assert len(found) > max([499, *said])


def test_a_journal_that_cannot_be_written_says_so_and_keeps_what_it_has(tmp_path):
    """A file size limit stands in for a full disk; it needs a process of its own."""
    path = tmp_path / "journal.jsonl"
    code = f"""
import pathlib, resource, signal
from daskhpo.core.events import SlotsChanged
from daskhpo.engine.journal import FileJournal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
journal = FileJournal(pathlib.Path({str(path)!r}))
n = 0
try:
    while True:
        journal.append(SlotsChanged(n, 0.0)); journal.flush(); n += 1
except OSError as error:
    print(n, error.strerror)
journal.close()
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    n_kept, problem = told.stdout.split(maxsplit=1)
    assert problem.strip() == "File too large"
    assert len(list(read_journal(path))) == int(n_kept)


# -- file systems that fail, and studies that were taken over -------------------------------------


class Failing:
    """`os.write` that fails at some calls, and may write a part before that."""

    def __init__(self, *errors: int | None, partly: bool = False) -> None:
        self.errors, self.partly, self.write = list(errors), partly, os.write

    def __call__(self, handle: int, data: bytes) -> int:
        number = self.errors.pop(0) if self.errors else None
        if number is None:
            return self.write(handle, data)
        if self.partly:
            self.write(handle, data[:7])
        raise OSError(number, os.strerror(number))


@pytest.mark.parametrize("partly", [False, True])
@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOSPC, errno.EDQUOT])
def test_a_file_system_that_fails_for_a_while_is_waited_for(
    number, partly, tmp_path, monkeypatch, caplog
):
    journal = FileJournal(tmp_path / "journal.jsonl")
    journal.append(A)
    journal.flush()
    journal.append(B)
    journal.append(C)
    monkeypatch.setattr(os, "write", Failing(number, number, partly=partly))
    journal.flush()
    journal.close()
    assert list(read_journal(journal.path)) == [A, B, C]
    assert caplog.text.count("cannot be written") == 1
    assert str(journal.path) in caplog.text


def test_one_that_fails_for_good_is_named_and_what_was_written_stands(tmp_path, monkeypatch):
    monkeypatch.setattr(journal_module, "WAIT_SECONDS", 0.1)
    journal = FileJournal(tmp_path / "journal.jsonl")
    journal.append(A)
    journal.flush()
    journal.append(B)
    failing = Failing(*[errno.EIO] * 99, partly=True)
    monkeypatch.setattr(os, "write", failing)
    with pytest.raises(StudyFailed, match=r"journal\.jsonl cannot be written: Input/output error"):
        journal.flush()
    failing.errors.clear()
    assert list(read_journal(journal.path)) == [A]
    with contextlib.suppress(OSError):
        journal.close()
    write(journal.path, C)
    assert list(read_journal(journal.path)) == [A, C]


def test_a_writer_that_slept_while_the_study_was_taken_over_writes_nothing(tmp_path):
    path = tmp_path / "journal.jsonl"
    sleeper = FileJournal(path)
    sleeper.append(A)
    sleeper.flush()
    sleeper.append(StopRequested("it wakes", 9.0))
    owner = FileJournal(path)
    owner.append(B)
    owner.flush()
    with pytest.raises(StudyFailed, match=f"another process took over {tmp_path}"):
        sleeper.flush()
    os.write(sleeper._fd, b"what it had begun to write\n")  # between its check and its write
    owner.append(C)
    owner.close()
    assert list(read_journal(path)) == [A, B, C]


def test_a_directory_that_is_moved_away_ends_the_study_and_is_not_made_anew(tmp_path):
    path = tmp_path / "here" / "journal.jsonl"
    path.parent.mkdir()
    journal = FileJournal(path)
    journal.append(A)
    journal.flush()
    path.parent.rename(tmp_path / "there")
    journal.append(B)
    with pytest.raises(StudyFailed, match="is gone: the study's directory was moved or removed"):
        journal.flush()
    assert not path.parent.exists()
    assert list(read_journal(tmp_path / "there" / "journal.jsonl")) == [A]


def test_the_next_writer_keeps_the_content_and_the_mode(tmp_path):
    path = tmp_path / "journal.jsonl"
    write(path, A, B)
    path.chmod(0o640)
    journal = FileJournal(path)
    journal.append(C)
    journal.close()
    assert list(read_journal(path)) == [A, B, C]
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_file_without_lines_is_no_journal(tmp_path):
    path = tmp_path / "journal.jsonl"
    with path.open("wb") as file:
        file.truncate(2**40)  # a sparse one: eight kilobytes on the disk
    with pytest.raises(JournalCorrupt, match="line 1 has more than 67108864 bytes"):
        list(read_journal(path))


@pytest.mark.parametrize("line", ["[" * 100_000, '{"record":"began"}', "null", '{"record":[]}'])
def test_whatever_a_line_holds_is_one_error_with_its_number(tmp_path, line):
    path = tmp_path / "journal.jsonl"
    write(path, A)
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(JournalCorrupt, match="line 2 cannot be read"):
        list(read_journal(path))
