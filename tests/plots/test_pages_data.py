"""What pages say besides plots: tables with pages, jobs, GPUs, forecasts, all of one trial."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from daskhpo.core.events import Record
from daskhpo.core.objective import Objective
from daskhpo.core.types import CheckpointRef, Limits
from daskhpo.engine.session import read_manifest
from daskhpo.plots import population, trials_page, use
from daskhpo.plots.compare import groups
from daskhpo.plots.importance import deciles
from daskhpo.plots.tables import StudyTables
from daskhpo.plots.trials_page import TableView, detail_html, rows_of, trials_data
from daskhpo.plots.use_page import Gpu, gpu_columns, use_data
from daskhpo.plots.verdict import header
from daskhpo.results.progress import StudyProgress
from daskhpo.results.recorder import Recorder, read_tables
from daskhpo.trial_output import tail
from tests.plots.made import asha_result, population_result, records_of, write_study

OBJECTIVE = Objective("error")


# -- the table of trials -------------------------------------------------------------------------


def test_a_page_of_a_long_table_has_the_trials_that_pass_its_filters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trials_page, "TABLE_TRIALS", 50)
    monkeypatch.setattr(trials_page, "PAGE_TRIALS", 30)
    tables = asha_result().tables()
    trials = asha_result().trials("best")
    first = trials_data(tables).sources["trials"]["id"].tolist()
    assert first == list(range(30))
    second = trials_data(tables, TableView(page=1, order="best"))
    expected = trials.sort_values("error", kind="stable")["trial"].tolist()
    assert second.sources["trials"]["id"].tolist()[:20] == expected[30:50]
    assert second.texts["pager"] == "31 to 60 of 200"
    assert trials_data(tables, TableView(page=99)).texts["pager"] == "181 to 200 of 200"
    assert trials_data(tables, TableView(text="nothing like it")).texts["pager"] == "none"


@pytest.mark.parametrize("state", ["stopped", "failed", "completed"])
def test_filters_of_a_long_table_see_all_trials(state: str) -> None:
    tables, trials = asha_result().tables(), asha_result().trials()
    of_state = trials[trials["status"] == state]["trial"].tolist()
    assert rows_of(tables, TableView(states=(state,))).tolist() == of_state
    newest = rows_of(tables, TableView(states=(state,), order="newest"))
    assert newest.tolist() == of_state[::-1]
    both = rows_of(tables, TableView(states=(state,), text="OPTIMIZER=adam"))
    adam = trials[(trials["status"] == state) & (trials["config/optimizer"] == "adam")]
    assert both.tolist() == adam["trial"].tolist()


def test_all_of_a_trial_is_told(tmp_path: Path) -> None:
    tables = asha_result().tables()
    ref = CheckpointRef(7, 3, 9, "c/7", 1_500_000)
    text = detail_html(tables, 3, [ref], "a <b>\nbar 1 %\rbar 2 %\r\n\x1b[31mred\x1b[0m")
    assert "<td>9</td><td>1.5 MB</td><td>c/7</td>" in text
    assert "a &lt;b&gt;\nbar 2 %\nred</pre>" in text
    assert "trial.seed" in text
    assert "Checkpoints" not in detail_html(tables, 3)


@pytest.mark.parametrize(
    ("text", "expected"), [("", ""), ("one\n", "one\n"), ("x" * 50 + "\nlast\n", "last\n")]
)
def test_the_end_of_a_log_has_whole_lines(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "0.log"
    assert tail(path) == ""
    path.write_text(text)
    assert tail(path, 10) == expected


# -- workers and cost ----------------------------------------------------------------------------


def with_jobs() -> StudyTables:
    tables = StudyTables(OBJECTIVE)
    for n_slots, seconds, job in [(1, 0, "7"), (2, 5, "8"), (1, 3600, "7"), (2, 3700, "9")]:
        tables.add_slots(n_slots, float(seconds), 0.0, job)
    tables.facts.seconds = 7200.0
    return tables


def test_jobs_that_do_not_overlap_share_a_line() -> None:
    columns = use.jobs(with_jobs())
    rows = [*zip(columns["job"], columns["row"], columns["left"], columns["right"], strict=True)]
    assert rows == [
        ("7", "0", 0.0, 1.0),
        ("8", "1", 5 / 3600, 2.0),
        ("9", "0", 3700 / 3600, 2.0),
    ]
    assert use.jobs(with_jobs(), hours=0.5)["job"] == ["8", "9"]


def test_a_study_without_jobs_and_gpus_shows_none() -> None:
    new = use_data(asha_result().tables())
    assert new.notes["jobs"] == new.notes["gpus"] == ("", False)
    new = use_data(with_jobs(), gpus=[Gpu("w0", "A100", 0.5, 10e9, 40e9)])
    assert new.notes["jobs"][1]
    assert new.notes["gpus"] == ("1 workers", True)


def test_gpus_without_a_known_size_are_not_full() -> None:
    columns = gpu_columns([Gpu("w0", "A100", 0.5, 10e9, 40e9), Gpu("w1", "", 0.1, 5e9, 0)])
    assert columns["full"] == [0.25, 0.0]
    assert columns["used"] == [10.0, 5.0]


def test_steps_have_the_area_of_the_bins_and_reach_both_ends() -> None:
    tables = asha_result().tables()
    bins = use.spent(tables)
    steps = use.stepped(bins)
    assert steps["hours"][0] == 0.0
    assert steps["hours"][-1] == pytest.approx(tables.facts.seconds / 3600)
    for name in use.PURPOSES:
        area = np.trapezoid(steps[name], steps["hours"])
        assert area == pytest.approx(bins[name].sum() * 2 * bins["hours"][0])


# -- the verdict ---------------------------------------------------------------------------------


def at_share(directory: Path, share: float) -> StudyTables:
    records: list[Record] = records_of(directory)
    progress = StudyProgress(OBJECTIVE, keep_ended=False)
    recorder = Recorder(progress)
    recorder.describe("study", read_manifest(directory))
    for record in records[: round(share * len(records))]:
        progress.apply(record)
        recorder.apply(record)
    return recorder.tables


def test_a_study_says_what_it_does(tmp_path: Path) -> None:
    write_study(tmp_path, num_trials=60)
    assert ">running<" in header(at_share(tmp_path, 0.5))
    assert at_share(tmp_path, 0.5).facts.seconds_left
    assert ">complete<" in header(read_tables(tmp_path, OBJECTIVE))
    assert read_tables(tmp_path, OBJECTIVE).facts.seconds_left is None
    tables = at_share(tmp_path, 0.5)
    tables.facts.stop_reason = "the target was reached"
    assert ">stopped<" in header(tables)


def test_a_time_budget_is_shown_and_ends_the_forecast(tmp_path: Path) -> None:
    write_study(tmp_path, num_trials=60)
    tables = at_share(tmp_path, 0.5)
    tables.facts.limits = Limits(time_budget=tables.facts.seconds + 30)
    tables.facts.seconds_left = 30.0
    assert "about 30 s left" in header(tables, cost="1.5 of 8 GPU-hours of Slurm jobs")
    assert "1.5 of 8 GPU-hours" in header(tables, cost="1.5 of 8 GPU-hours of Slurm jobs")


# -- others --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["width", "layers", "optimizer"])
def test_medians_of_few_values_are_one_a_value(name: str) -> None:
    columns = deciles(asha_result().tables(), name)
    assert (np.diff(columns["at"]) > 0).all()
    assert len(columns["at"]) == {"width": 4, "layers": 6, "optimizer": 3}[name]


def test_the_spread_of_a_population_is_that_of_its_last_values() -> None:
    result = population_result()
    columns = population.spread_of_values(result.tables())
    last = result.trials()["error"]
    assert columns["low"][-1] == pytest.approx(last.min())
    assert columns["high"][-1] == pytest.approx(last.max())


def test_methods_have_the_shortest_names_that_tell_them_apart() -> None:
    def study(scheduler: str) -> StudyTables:
        tables = StudyTables(OBJECTIVE)
        tables.facts.scheduler, tables.facts.searcher = scheduler, "RandomSearch()"
        return tables

    two = ["ASHA(max_t=9)", "FIFO(max_t=9)"] * 2
    assert [*groups([study(text) for text in two])] == ["ASHA, RandomSearch", "FIFO, RandomSearch"]
    alike = ["ASHA(max_t=9)", "ASHA(max_t=27)"] * 2
    assert [*groups([study(text) for text in alike])] == [
        "ASHA(max_t=9), RandomSearch()",
        "ASHA(max_t=27), RandomSearch()",
    ]
