"""Progress in a notebook: one output, updated."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from daskhpo.callbacks import StudyInfo
from daskhpo.callbacks.notebook import NotebookProgress, is_notebook, summary_html
from daskhpo.callbacks.values import summarise
from daskhpo.core.objective import Objective
from daskhpo.core.types import Limits
from daskhpo.results.progress import StudyProgress
from tests.plots.made import records_of, write_study


def info(directory: Path) -> StudyInfo:
    name = "<b>net</b>"
    limits = Limits(num_trials=20)
    return StudyInfo(name, directory, Objective("error"), limits, "ASHA", "http://x/?token=1", None)


def progress(directory: Path) -> StudyProgress:
    write_study(directory, num_trials=20)
    found = StudyProgress(Objective("error"), keep_ended=False)
    for record in records_of(directory):
        found.apply(record)
    return found


def test_it_shows_states_the_best_trial_and_the_link(tmp_path: Path) -> None:
    study = progress(tmp_path)
    text = summary_html(info(tmp_path), summarise(study))
    assert study.best is not None
    assert f"trial {study.best.id}" in text
    assert "20 of 20" in text
    assert "stopped" in text
    assert "http://x/?token=1" in text
    assert "<b>net</b>" not in text


def test_one_output_is_updated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from IPython import display as ipython

    shown: list[str] = []
    cell = SimpleNamespace(update=lambda html: shown.append(html.data))
    monkeypatch.setattr(ipython, "display", lambda html, display_id: cell)
    callback = NotebookProgress()
    callback.on_study_start(info(tmp_path))
    callback.on_study_end(summarise(progress(tmp_path)))
    assert len(shown) == 1
    assert "20 of 20" in shown[0]


@pytest.mark.parametrize(
    ("shell", "expected"),
    [(None, False), (SimpleNamespace(), False), (SimpleNamespace(kernel=object()), True)],
)
def test_a_terminal_is_no_notebook(
    shell: Any, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert is_notebook() is expected


def test_without_ipython_it_is_no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert not is_notebook()
