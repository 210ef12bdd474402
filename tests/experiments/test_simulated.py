"""Races in virtual time: on tables whose answers are known, and from the command to the report."""

from __future__ import annotations

import math
import re

import pandas as pd
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("scipy")

from daskhpo.core.objective import Objective
from daskhpo.simulation.curves import CurveTable, RecordedCurve
from experiments.readme import Place
from experiments.simulated import crossing as crossings
from experiments.simulated.frame import finished, frame, sooner, spread
from experiments.simulated.methods import EVERYTHING, METHODS
from experiments.simulated.profiles import PROFILES
from experiments.simulated.races import Race, Ran, run
from experiments.simulated.report import among, by_workers, markdown
from experiments.simulated.study import main
from experiments.simulated.tables import COMMITTED, Task, all_tasks

pytestmark = pytest.mark.slow


def a_task(*losses, seconds=None, rates=None):
    """A task of these curves, each unit of which takes a second."""
    curves = tuple(
        RecordedCurve(list(row), seconds or [float(i + 1) for i in range(len(row))])
        for row in losses
    )
    configs = tuple({"lr": rate} for rate in rates or [0.1] * len(losses))
    return Task("made up", "made up", CurveTable(Objective("loss"), configs, curves))


def a_run(method="ASHA", reached=math.inf, top=(), share=None, seed=0, done=1, workers=4):
    race = Race("made up", method, workers, seed, 8.0, share)
    return Ran(race, reached, done, done, tuple(top))


# -- tables ---------------------------------------------------------------------------------------


def test_a_target_is_what_a_share_of_the_configurations_reaches_anywhere_on_their_curves():
    task = a_task(*[[n, 1000.0] for n in range(500)])
    assert task.shares == (0.01, 0.002)
    assert task.target(0.01) == 4.0
    assert task.target(0.002) == 0.0


def test_a_small_table_has_one_target_that_five_configurations_reach():
    task = a_task(*[[float(n)] for n in range(50)])
    assert task.shares == (0.1,)
    assert task.target(0.1) == 4.0


def test_a_target_of_what_is_maximised_is_a_large_one():
    curves = tuple(RecordedCurve([float(n)], [1.0]) for n in range(10))
    task = Task("", "", CurveTable(Objective("accuracy", "max"), ({},) * 10, curves))
    assert task.target(0.2) == 8.0


def test_where_training_failed_or_is_not_known_the_loss_is_infinite():
    task = a_task([1.0, math.nan, 0.5], [2.0])
    assert task.losses.tolist() == [[1.0, math.inf, 0.5], [2.0, math.inf, math.inf]]


def test_the_committed_curves_are_of_whole_trainings():
    (task,) = [task for task in all_tasks((), COMMITTED / "none") if task.family == "adsorption"]
    assert len(task.curves) >= 50
    assert {curve.n_units for curve in task.curves.curves} == {27}
    assert task.rates.min() >= 1e-3
    assert task.rates.max() <= 1e-1


def test_a_table_of_ones_own_races_with_the_others(tmp_path):
    path = tmp_path / "mine.csv"
    a_task([3.0, 2.0], [2.0, 1.0]).curves.write(path)
    assert [(t.name, t.family) for t in all_tasks((path,), tmp_path)][-1] == (str(path), "mine")


# -- races ----------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path):
    """Ten curves that never cross; the best has 0 at its end."""
    path = tmp_path / "own.csv"
    a_task(*[[n + 10.0 / r for r in range(1, 10)] for n in range(10)]).curves.write(path)
    return path


@pytest.mark.parametrize("method", EVERYTHING)
def test_every_method_reaches_the_target_of_curves_that_do_not_cross(own, method):
    ran = run(Race(str(own), method, 2, 0, 200.0, share=0.5), (own,), own.parent)
    assert 0 < ran.reached <= 100
    assert ran.started >= ran.finished


def test_random_search_in_a_budget_finishes_what_there_is_time_for(own):
    ran = run(Race(str(own), "RS", 2, 0, 16.0), (own,), own.parent)
    assert ran.finished == 16
    assert ran.reached == math.inf


def test_early_stopping_starts_more_and_is_there_sooner(own):
    theirs, ours = (
        run(Race(str(own), method, 2, 3, 60.0), (own,), own.parent) for method in ("RS", "ASHA")
    )
    assert ours.started > 2 * theirs.started
    assert sooner(ours, theirs) > 1


def test_the_best_six_are_the_mean_of_six_trials_and_only_get_better(own):
    ran = run(Race(str(own), "RS", 1, 0, 40.0), (own,), own.parent)
    means = [mean for _, mean in ran.top]
    assert means == sorted(means, reverse=True)
    assert ran.top[0][0] > 5  # one worker has to train the sixth
    assert ran.top_by(ran.top[0][0] - 1e-9) == math.inf
    assert ran.top_by(1e9) == means[-1]
    assert ran.time_to(means[-1]) == ran.top[-1][0]


def test_a_race_is_the_same_whenever_it_is_played(own):
    race = Race(str(own), "AHB", 3, 5, 30.0)
    assert run(race, (own,), own.parent) == run(race, (own,), own.parent)


def test_a_profile_plays_every_method_with_every_number_of_workers():
    task = a_task(*[[float(n)] for n in range(1000)])
    races = list(PROFILES["full"].races([task]))
    assert len(set(races)) == len(races)
    easy = {(r.method, r.workers) for r in races if r.share == 0.01}
    assert easy >= {(m, w) for m in METHODS for w in (1, 4, 16, 64, 256, 1024)}
    assert {r.workers for r in races if r.share == 0.002} == {64, 256, 1024}


# -- what is read from them -----------------------------------------------------------------------


def test_how_many_times_sooner_is_counted_against_the_same_seed():
    races = [
        a_run("RS", reached=8.0, share=0.1),
        a_run("ASHA", reached=2.0, share=0.1),
        a_run("RS", reached=3.0, share=0.1, seed=1),
        a_run("ASHA", reached=6.0, share=0.1, seed=1),
    ]
    table = frame(races, {"made up": "family"})
    assert table["sooner"].tolist() == [1.0, 4.0, 1.0, 0.5]
    assert set(table["family"]) == {"family"}


@pytest.mark.parametrize(
    ("theirs", "ours", "times"), [(4.0, math.inf, 0.0), (math.inf, 2.0, math.inf), (6.0, 2.0, 3.0)]
)
def test_who_never_comes_to_the_target_comes_infinitely_late(theirs, ours, times):
    assert sooner(a_run(reached=ours, share=0.1), a_run(reached=theirs, share=0.1)) == times


def test_where_neither_comes_to_the_target_nothing_is_known():
    assert math.isnan(sooner(a_run(share=0.1), a_run(share=0.1)))


def test_in_a_budget_the_last_mean_of_random_search_counts():
    theirs = a_run("RS", top=[(1.0, 0.9), (6.0, 0.5)])
    assert sooner(a_run(top=[(1.0, 0.7), (1.5, 0.5), (3.0, 0.1)]), theirs) == 4.0
    assert sooner(a_run(top=[(1.0, 0.6)]), theirs) == 0.0
    assert math.isnan(sooner(a_run(top=[(1.0, 0.6)]), a_run("RS")))


def test_trials_finished_are_counted_over_those_of_random_search():
    races = [a_run("RS", done=10), a_run("ASHA", done=80), a_run("AHB", done=40)]
    table = frame(races, {"made up": ""})
    assert [found[0] for found in finished(table).values()] == [8.0, 4.0, 1.0]


def test_a_spread_is_the_median_and_the_middle_80_per_cent():
    assert spread([*range(1, 12), math.nan]) == (6.0, 2.0, 10.0)
    assert spread([1.0, math.inf, math.inf])[0] == math.inf
    assert all(map(math.isnan, spread([])))


def test_what_is_never_reached_is_said_in_words():
    assert among([1.0, 2.0, math.inf], "{:.1f}") == "2.0 (1.0 to never)"
    assert among([2.0, 2.0], "{:.1f}") == "2.0"
    races = [a_run("RS", reached=8.0, share=0.1), a_run("ASHA", share=0.1)]
    text = by_workers(frame(races, {"made up": ""}))
    assert "| ASHA | 0.0; 100 % never |" in text
    assert "| RS: full trainings to the target | 8 |" in text


def test_a_table_has_its_first_column_to_the_left():
    assert markdown(["a", "b"], [[1, 2]]) == "| a | b |\n| --- | ---: |\n| 1 | 2 |"


# -- curves that cross ----------------------------------------------------------------------------


def test_curves_that_all_cross_have_ranks_that_say_the_opposite():
    task = a_task(*[[200.0 + i, 100.0 - i] for i in range(100)])
    found = crossings.crossing(task, 1)
    assert found.correlation == pytest.approx(-1.0)
    assert found.kept == 0.0


def test_the_best_that_begin_badly_are_cut_and_their_rates_are_told():
    slow = [[9.0, 1.0]] * 5
    fast = [[5.0, 2.0 + i] for i in range(45)]
    task = a_task(*slow, *fast, rates=[1e-3] * 5 + [1e-1] * 45)
    found = crossings.crossing(task, 1)
    assert found.kept == 0.0
    assert found.rates_cut == pytest.approx(1e-3)
    assert math.isnan(found.rates_kept)
    at_end = crossings.crossing(task, 2)
    assert at_end.correlation == pytest.approx(1.0)
    assert at_end.kept == 1.0


def test_trainings_that_failed_are_worse_than_all_others():
    task = a_task([1.0, math.nan], [math.nan, math.nan], [3.0, 2.0], [4.0, 3.0])
    assert crossings.crossing(task, 2).correlation == pytest.approx(1.0)


def test_rungs_are_below_the_full_length():
    assert crossings.rungs(a_task([1.0] * 27, [1.0])) == [1, 3, 9]
    assert crossings.rungs(a_task([1.0] * 28, [1.0])) == [1, 3, 9, 27]


# -- from the command to the report ---------------------------------------------------------------


def test_one_command_plays_and_reports(tmp_path, capsys):
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- results of smoke: begin -->\n<!-- results of smoke: end -->\n")
    where = ["--storage", str(tmp_path), "--readme", str(readme), "--shared", str(tmp_path / "no")]
    assert main(["--profile", "smoke", *where, "--processes", "2"]) == 0
    assert "are left out" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "smoke.csv")
    assert set(table["method"]) == set(EVERYTHING)
    assert (table.loc[table["method"] == "RS", "sooner"].dropna() == 1).all()
    text = readme.read_text()
    assert text.startswith("before\n")
    assert re.search(r"Trials finished, ASHA : AHB : RS = \d", text)
    for name in ("scaling", "budget", "crossing"):
        picture = tmp_path / "figures" / f"smoke-{name}.png"
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert f"(figures/{picture.name})" in text


def test_a_table_that_is_none_is_refused_before_anything_is_played(tmp_path, capsys):
    path = tmp_path / "mine.csv"
    path.write_text("a,b\n1,2\n")
    assert main(["--curves", str(path), "--shared", str(tmp_path)]) == 2
    assert "mine.csv: name the metric" in capsys.readouterr().out


def test_a_readme_without_a_place_is_refused_before_anything_is_played(tmp_path, capsys):
    readme = tmp_path / "README.md"
    readme.write_text("nothing here\n")
    assert main(["--readme", str(readme), "--shared", str(tmp_path)]) == 2
    assert "has no place for results of 'full'" in capsys.readouterr().out
    assert readme.read_text() == "nothing here\n"


def test_what_was_written_into_a_readme_during_a_run_stays(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("<!-- results of full: begin -->\nold\n<!-- results of full: end -->\n")
    place = Place(readme, "full")
    readme.write_text("written meanwhile\n" + readme.read_text())
    place.fill("new")
    text = readme.read_text()
    assert text.startswith("written meanwhile\n<!-- results of full: begin -->\nnew\n")
    assert "old" not in text
