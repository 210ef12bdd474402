"""A study is read from its journal in parts, and pages cost little."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from bokeh.document import Document

from daskhpo.core.objective import Objective
from daskhpo.dashboard import studies
from daskhpo.dashboard.documents import OpenPage
from daskhpo.dashboard.kinds import PageKind, Surroundings
from daskhpo.dashboard.studies import Pace, WatchedStudy
from daskhpo.dashboard.watcher import Watcher
from daskhpo.plots.page import PageData
from daskhpo.plots.study_page import build_study
from daskhpo.plots.trials_page import TableView
from tests.plots.made import write_study


def watched(directory: Path) -> WatchedStudy:
    return WatchedStudy(directory.name, directory, Objective("error"))


def read_all(study: WatchedStudy) -> None:
    while study.read():
        pass


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_journal_is_read_on_from_where_it_ended(tmp_path: Path) -> None:
    rest = write_study(tmp_path, num_trials=50, share=0.4)
    study = watched(tmp_path)
    read_all(study)
    before = study.version
    assert 0 < study.tables.n_trials < 50
    with (tmp_path / "journal.jsonl").open("a") as file:
        file.write("".join(f"{line}\n" for line in rest)[:-5])  # the last line is not complete
    read_all(study)
    assert study.tables.n_trials == 50
    assert study.version > before
    assert study.tables.facts.space["lr"].log  # type: ignore[attr-defined]


def test_a_long_past_is_read_in_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies, "SLICE_SECONDS", 0.0)
    write_study(tmp_path, num_trials=30)
    study = watched(tmp_path)
    assert study.read()
    n_slices = 1
    while study.read():
        n_slices += 1
    assert n_slices > 3
    assert study.tables.n_trials == 30


def test_a_study_that_has_not_begun_shows_nothing(tmp_path: Path) -> None:
    study = watched(tmp_path)
    assert not study.read()
    assert study.tables.n_trials == 0


def test_a_damaged_journal_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_study(tmp_path, num_trials=5)
    with (tmp_path / "journal.jsonl").open("a") as file:
        file.write('{"record":"nonsense"}\n')
    study = watched(tmp_path)
    read_all(study)
    read_all(study)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert study.tables.n_trials == 5


def test_work_takes_its_share_of_a_core_at_most() -> None:
    pace = Pace(0.5, 100.0)
    for worked in (0.001, 0.1, 1.0):
        pause = pace.pause(worked)
        assert worked / (worked + pause) <= studies.SHARE + 1e-9
    assert pace.pause(0.0) == 0.5


def test_curves_are_replayed_one_by_one_and_again_when_there_is_news(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studies, "REPLAY_SECONDS", 0.0)
    rest = write_study(tmp_path, num_trials=40, share=0.8)
    study = watched(tmp_path)
    assert not study.is_replaying
    read_all(study)
    counts = []
    while not counts or study.is_replaying:
        counts.append(sum(map(len, study.alternatives().replayed.values())))
    assert counts[0] == 0
    whole = study.alternatives()
    assert whole.is_whole
    assert whole.n_orders * len(whole.replayed) == counts[-1]
    assert study.alternatives() is whole, "nothing was read since"
    with (tmp_path / "journal.jsonl").open("a") as file:
        file.write("".join(f"{line}\n" for line in rest))
    read_all(study)
    assert study.alternatives() is whole, "until the first order of the new ones is complete"
    assert study.is_replaying
    while study.is_replaying:
        newest = study.alternatives()
    assert newest.is_whole
    assert newest.n_recorded > whole.n_recorded


def test_a_page_that_raises_stops_no_other_and_is_tried_again_with_news(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rest = write_study(tmp_path, num_trials=10, share=0.5)
    study, tried = watched(tmp_path), []

    def raising(name: str) -> PageKind:
        def data(study: WatchedStudy, around: Surroundings, view: TableView) -> PageData:
            tried.append(name)
            raise ValueError(f"{name} cannot be computed")

        return PageKind(name, name, data, build_study)

    kinds = [raising("one"), raising("other")]
    pages = [OpenPage(kind, Document(), {study.name: study}, None) for kind in kinds]
    watcher = Watcher(Surroundings, lambda: False)
    for page in pages:
        watcher.open(page)
    try:
        wait_until(lambda: {*tried} == {"one", "other"})
        n = watcher.n_refreshes
        pages[0].ask()
        wait_until(lambda: watcher.n_refreshes > n + 1)
        assert sorted(tried) == ["one", "other"], "nothing was read since"
        with (tmp_path / "journal.jsonl").open("a") as file:
            file.write("".join(f"{line}\n" for line in rest))
        wait_until(lambda: tried.count("one") > 1 and tried.count("other") > 1)
    finally:
        for page in pages:
            watcher.close(page)
    wait_until(lambda: not watcher.is_running)
    assert [record.levelname for record in caplog.records] == ["ERROR"] * len(tried)
