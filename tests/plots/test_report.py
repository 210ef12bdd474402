"""The report: whole, small, and safe to open."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from daskhpo import Result
from daskhpo.cli import main
from daskhpo.core.objective import Objective
from daskhpo.plots.compare import comparison_html, groups, over_time, seconds_to, share_reached
from daskhpo.plots.report import report_html
from daskhpo.plots.tables import StudyTables
from daskhpo.plots.verdict import header
from tests.plots.made import asha_result, population, population_result, write_study

slow = pytest.mark.slow

SECTIONS = (
    *("Verdict", "Best so far, curves, rungs", "Hyperparameters", "Timeline and cost", "Trials"),
    *("Failures by reason", "Advice", "Environment", "How to reproduce", "Methods"),
)


@slow
def test_a_report_has_all_sections(tmp_path: Path) -> None:
    write_study(tmp_path / "net", num_trials=200)
    assert main(["report", str(tmp_path / "net")]) == 0
    text = (tmp_path / "net" / "report.html").read_text()
    assert re.findall(r"<h2[^>]*>([^<]*)</h2>", text) == [*SECTIONS]
    assert "SHA-256" in text
    assert "@inproceedings{li2020" in text
    assert text.count("<script src=") == 0


@slow
def test_a_population_has_a_section_of_its_own(tmp_path: Path) -> None:
    population_result().to_html(tmp_path / "p.html")
    assert "Schedule and lineage" in (tmp_path / "p.html").read_text()


@slow
@pytest.mark.parametrize("n", [0, 1])
def test_a_study_that_has_hardly_begun_has_a_report(n: int) -> None:
    tables = StudyTables(Objective("error"))
    for _ in range(n):
        tables.add_trial(0, 0.0)
        tables.set_config(tables.n_trials - 1, {"x": 1})
    assert "Verdict" in report_html(tables)


@slow
def test_ten_thousand_trials_fit_into_five_megabytes(tmp_path: Path) -> None:
    asha_result(10_000).to_html(tmp_path / "r.html")
    assert (tmp_path / "r.html").stat().st_size <= 5e6


@slow
def test_names_of_users_are_text_not_markup() -> None:
    tables = StudyTables(Objective("<script>alert(1)</script>"))
    tables.facts.name = tables.facts.scheduler = "<img src=x onerror=alert(2)>"
    for number in range(3):
        tables.add_trial(0, 0.0)
        tables.set_config(
            tables.n_trials - 1, {"<b>x</b>": number, "s": "</script><script>alert(3)</script>"}
        )
        tables.add_unit(number, 1, float(number), 1.0)
        tables.best[number] = float(number)
        tables.set_reason(number, "<script>alert(4)</script>", "<script>alert(5)</script>")
    text = report_html(tables)
    assert "<script>alert" not in text
    assert "<img src=x" not in text


def test_the_header_says_where_the_study_stands() -> None:
    text = header(asha_result().tables())
    assert f"{asha_result().best_value:.5g}" in text
    assert "200 of 200" in text


def test_a_result_has_a_face_in_notebooks() -> None:
    text = asha_result()._repr_html_()
    assert f"trial {asha_result().best_trial.id}" in text
    assert "no trial was started yet" in Result((), Objective("error"))._repr_html_()


# -- comparison ----------------------------------------------------------------------------------


@slow
def test_studies_are_compared(tmp_path: Path) -> None:
    for seed in range(2):
        write_study(tmp_path / f"asha{seed}", num_trials=40, seed=seed)
    write_study(tmp_path / "pbt", population(), num_trials=10)
    paths = [str(tmp_path / name) for name in ("asha0", "asha1", "pbt")]
    output = tmp_path / "all.html"
    assert main(["report", *paths, "--target", "0.5", "-o", str(output)]) == 0
    text = output.read_text()
    assert "Best value over time" in text
    assert "Time to the target" in text
    assert "(2 studies)" in text


def test_a_single_study_has_no_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_study(tmp_path, num_trials=5)
    assert main(["report", str(tmp_path), "--target", "0.5"]) == 2
    assert "--target compares studies" in capsys.readouterr().err


def test_studies_of_different_metrics_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="only studies of one metric"):
        comparison_html([StudyTables(Objective("a")), StudyTables(Objective("b"))])


def test_the_band_of_one_study_is_of_its_best_trials() -> None:
    columns = over_time([asha_result().tables()])
    assert (columns["low"] <= columns["middle"]).all()
    assert columns["low"][-1] == pytest.approx(asha_result().best_value)
    ranked = [t.best_loss for t in asha_result().best_trials(6)]
    assert columns["high"][-1] == pytest.approx(ranked[-1])


def test_the_band_of_several_studies_is_over_them() -> None:
    found = [asha_result(60, seed).tables() for seed in range(3)]
    columns = over_time(found)
    assert (columns["low"] <= columns["high"]).all()
    assert max(columns["hours"]) <= min(t.facts.seconds for t in found) / 3600 + 1e-9


def test_time_to_a_target_is_that_of_the_result() -> None:
    result = asha_result()
    assert seconds_to(result.tables(), 0.5) == pytest.approx(result.time_to_solution(0.5))
    assert seconds_to(result.tables(), -1.0) == float("inf")
    shares = share_reached([result.tables()], 0.5, 1e6)
    assert shares["share"] == [0.0, 1.0, 1.0]


def test_studies_of_one_method_are_one_group() -> None:
    a, b, c = (StudyTables(Objective("x")) for _ in range(3))
    for name, tables in zip("abc", (a, b, c), strict=True):
        tables.facts.name, tables.facts.scheduler = name, "FIFO"
    c.facts.scheduler = "ASHA"
    assert [len(found) for found in groups([a, b, c]).values()] == [2, 1]
    assert [*groups([a, c])] == ["a", "c"]


def test_studies_that_are_all_of_one_method_are_compared_one_by_one() -> None:
    studies = [StudyTables(Objective("x")) for _ in range(3)]
    for name, tables in zip("abc", studies, strict=True):
        tables.facts.name, tables.facts.scheduler = name, "FIFO"
        tables.facts.path = f"runs/{name}/net"
    assert [*groups(studies)] == ["a", "b", "c"]
    for tables in studies:
        tables.facts.name = "net"
    assert [*groups(studies)] == ["runs/a/net", "runs/b/net", "runs/c/net"]
    studies[0].facts.scheduler = "ASHA"
    assert [len(found) for found in groups(studies[:2]).values()] == [1, 1]
