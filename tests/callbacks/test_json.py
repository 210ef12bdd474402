"""The file of JSON lines."""

from __future__ import annotations

import json

import pytest

from daskhpo.callbacks import JSONLogger
from daskhpo.testing.callback import BEGAN, STORIES, CallbackContract, an_info, follow, resumed


def rows(info):
    return [
        json.loads(line) for line in (info.directory / "history.jsonl").read_text().splitlines()
    ]


class TestJSONLogger(CallbackContract):
    @pytest.fixture
    def make(self):
        return JSONLogger

    def logged(self, info):
        return [(row["trial"], row["resource"]) for row in rows(info) if "metrics" in row]


def test_lines_are_the_study_its_reports_and_the_ends_of_trials(tmp_path):
    records = [BEGAN, *STORIES["one trial is fully trained and one is stopped"]]
    info = an_info(tmp_path, records)
    follow([JSONLogger()], records, info).end()
    study, *others = rows(info)
    assert study == {"study": tmp_path.name, "metric": "loss", "mode": "min"}
    first = {"trial": 0, "attempt": 1, "resource": 1, "seconds": 1.0, "metrics": {"loss": 1.3}}
    assert others[0] == first | {"config": {"lr": 0.1, "layers": [3, 4], "optimizer": "adam"}}
    end = {"trial": 1, "status": "stopped", "reason": "worse", "seconds": 2.0, "best": 2.3}
    assert end in others


def test_a_session_that_resumes_a_study_continues_the_file(tmp_path):
    records = [BEGAN, *STORIES["the study is stopped"]]
    path = tmp_path / "elsewhere" / "all.jsonl"
    follow([JSONLogger(path)], records, an_info(tmp_path, records)).end()
    before = path.read_bytes()
    after = resumed(records)
    follow([JSONLogger(path)], after, an_info(tmp_path, after)).end()
    assert path.read_bytes().startswith(before)
    assert len(path.read_bytes()) > len(before)


def test_a_file_of_another_study_is_left_alone(tmp_path, caplog):
    path = tmp_path / "all.jsonl"
    records = [BEGAN, *STORIES["the study is stopped"]]
    follow([JSONLogger(path)], records, an_info(tmp_path / "one", records)).end()
    before = path.read_bytes()
    followers = follow([JSONLogger(path)], records, an_info(tmp_path / "two", records))
    assert not followers.callbacks
    assert path.read_bytes() == before
    assert "is not of this study: give another file" in caplog.text
