"""The comparison from the command to the report, on real workers; and what it says of numbers."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("torch")
pytest.importorskip("ase")
pytest.importorskip("matplotlib")

from daskhpo import load_study
from daskhpo.core.events import Held, Launched, Reported, Saved, SlotsChanged, Suggested
from daskhpo.core.types import Stop
from daskhpo.engine.session import study_records
from experiments.time_to_solution import machine
from experiments.time_to_solution.figures import all_figures, top_curves
from experiments.time_to_solution.methods import METHODS, in_turn
from experiments.time_to_solution.outcomes import Outcomes, _slot_seconds, on_grid, read
from experiments.time_to_solution.profiles import PROFILES
from experiments.time_to_solution.report import among, comparisons, results, write
from experiments.time_to_solution.study import main

from .simulated_outcomes import PROFILE, outcome, outcomes

COMMAND = [sys.executable, "-m", "experiments.time_to_solution.study", "--profile", "smoke"]
ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
]  # the first test waits for sixteen seconds of studies


def a_place(folder):
    """A README with a place for results."""
    path = folder / "README.md"
    path.write_text(
        "before\n<!-- results of smoke: begin -->\nlast year's\n"
        "<!-- results of smoke: end -->\nafter\n"
    )
    return path


def start(folder, *options):
    storage = ["--storage", str(folder / "runs"), "--readme", str(folder / "README.md")]
    return subprocess.Popen(
        [*COMMAND, *storage, *options],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


# -- on real workers -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The smoke profile, killed in the midst of its second study and gone on with."""
    folder = tmp_path_factory.mktemp("comparison")
    a_place(folder)
    first = start(folder, "--seeds", "1")
    second = folder / "runs" / f"smoke-0-{in_turn(0)[1].name}" / "journal.jsonl"
    deadline = time.monotonic() + 150
    try:
        while not (second.exists() and b'"launched"' in second.read_bytes()):
            assert first.poll() is None, "it ended before it was killed"
            assert time.monotonic() < deadline, "the second study never began"
            time.sleep(0.01)
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        print(first.communicate()[0])
    before = {path: path.read_bytes() for path in (folder / "runs").glob("*/journal.jsonl")}
    again = start(folder, "--seeds", "1")
    try:
        output, _ = again.communicate(timeout=200)
    finally:
        again.kill()
    assert again.returncode == 0, output
    return folder, before, output


@pytest.mark.cluster
@pytest.mark.long
def test_a_killed_run_goes_on_with_what_is_left_and_repeats_nothing(finished):
    folder, before, output = finished
    names = [method.name for method in in_turn(0)]
    assert "RS                    is finished" in output
    one, other = (folder / "runs" / f"smoke-0-{name}" / "journal.jsonl" for name in names[:2])
    assert one.read_bytes() == before[one]
    assert other.read_bytes().startswith(before[other][: before[other].rindex(b"\n") + 1])
    for name in names:
        path = folder / "runs" / f"smoke-0-{name}"
        seconds = max(record.seconds for record in study_records(path))
        assert 2.0 - 0.01 <= seconds < 8.0, name  # the last epoch may be a long one
        assert machine.read(path).whole == (name != names[1])
        assert load_study(path).stop_reason == "the time budget is spent"


@pytest.mark.cluster
@pytest.mark.long
def test_the_table_has_a_row_for_each_study_and_says_which_was_killed(finished):
    folder, _, _ = finished
    table = pd.read_csv(folder / "runs" / "smoke.csv").set_index("method")
    assert list(table.index) == list(METHODS)
    killed = in_turn(0)[1].name
    assert "was killed" in table.troubles[killed]
    assert table.sessions[killed] == 2
    assert not table.drop(killed).troubles.fillna("").str.contains("killed").any()
    assert (table.slot_seconds <= 2 * 2.0).all()
    assert (table.trials_finished <= table.trials_started).all()
    assert (table.worker_cpu_seconds > 0).all()


@pytest.mark.cluster
@pytest.mark.long
def test_with_a_checkpoint_after_every_epoch_each_state_that_goes_on_is_taken(finished):
    folder, _, _ = finished
    records = list(study_records(folder / "runs" / "smoke-0-asha-every"))
    reports = [record for record in records if isinstance(record, Reported)]
    n_epochs = sum(len(report.steps) for report in reports)
    n_stopped = sum(isinstance(report.decision, Stop) for report in reports)
    states = [record.ref for record in records if isinstance(record, Held)]
    assert len(states) >= n_epochs - n_stopped  # where a trial stops, nobody needs its state
    # A disk slower than an epoch skips those that have a successor; the last of them are written.
    assert any(isinstance(record, Saved) for record in records) == (n_epochs > 0)


@pytest.mark.cluster
@pytest.mark.long
def test_the_test_error_is_that_of_the_best_trial_and_is_read_once(finished):
    folder, _, _ = finished
    found = 0
    for path in sorted((folder / "runs").glob("smoke-0-*/test.json")):
        said, result = json.loads(path.read_text()), load_study(path.parent)
        assert said["trial"] == result.best_trial.id
        assert said["validation"] == pytest.approx(result.best_value)
        assert math.isfinite(said["test"])
        found += 1
    assert found >= 4  # a study of two seconds may end before its first epoch


@pytest.mark.cluster
@pytest.mark.long
def test_the_report_replaces_its_place_in_the_readme_and_leaves_the_rest(finished):
    folder, _, _ = finished
    text = (folder / "README.md").read_text()
    assert text.startswith("before\n<!-- results of smoke: begin -->\nProfile `smoke`, seeds 0")
    assert text.endswith("<!-- results of smoke: end -->\nafter\n")
    assert "last year's" not in text
    assert "n = 1: fewer than 3 seeds" in text
    for picture in re.findall(r"\((figures/.*?\.png)\)", text):
        assert (folder / picture).stat().st_size > 5000
    page = (folder / "runs" / "smoke.html").read_text()
    assert page.count("data:image/png;base64,") == text.count("](figures/")
    addresses = re.findall(r"""(?:src|href)=["']?([^"' >]+)|url\(([^)]*)""", page)
    assert len(addresses) == text.count("](figures/")
    assert all(src.startswith("data:image/png;base64,") for src, _ in addresses)


@pytest.mark.cluster
@pytest.mark.long
def test_a_report_of_what_is_there_runs_nothing_and_writes_the_same(finished, capsys):
    folder, _, _ = finished
    before = (folder / "README.md").read_text()
    journals = {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/journal.jsonl")}
    where = ["--storage", str(folder / "runs"), "--readme", str(folder / "README.md")]
    assert main(["--profile", "smoke", "--report", *where]) == 0
    assert "Profile `smoke`" in capsys.readouterr().out
    assert (folder / "README.md").read_text() == before
    assert {p: p.stat().st_mtime_ns for p in folder.glob("runs/*/journal.jsonl")} == journals


@pytest.mark.cluster
@pytest.mark.long
def test_with_a_larger_budget_what_was_finished_is_to_be_gone_on_with(finished):
    folder, _, _ = finished
    longer = replace(PROFILES["smoke"], seconds=3600.0)
    with pytest.raises(ValueError, match=r"no study of profile 'smoke' that has run for 3600 s"):
        read(longer, folder / "runs")


# -- what is refused -----------------------------------------------------------------------------


def test_a_report_of_nothing_says_what_to_do(tmp_path, capsys):
    options = ["--profile", "smoke", "--report", "--storage", str(tmp_path)]
    assert main([*options, "--readme", str(a_place(tmp_path))]) == 2
    assert "Run the same command without --report" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options",
    [["--seeds", "0"], ["--slurm", "gpu"], ["--time-budget", "soon"], ["--profile", "desk"]],
)
def test_bad_options_are_refused(options, capsys):
    with pytest.raises(SystemExit) as left:
        main(options)
    assert left.value.code == 2
    assert options[0] in capsys.readouterr().err


def test_more_workers_than_the_machine_has_are_refused(tmp_path):
    many = str((os.cpu_count() or 1) + 1)
    with pytest.raises(ValueError, match="more than this machine's"):
        main(["--profile", "smoke", "--workers", many, "--storage", str(tmp_path)])


# -- numbers -------------------------------------------------------------------------------------


def test_each_seed_runs_every_method_and_begins_with_another():
    orders = [[method.name for method in in_turn(seed)] for seed in range(9)]
    assert all(sorted(order) == sorted(METHODS) for order in orders)
    assert len({order[0] for order in orders}) == 9


def test_the_speedup_is_the_ratio_of_times_to_random_searchs_last_mean():
    both = outcomes(n_seeds=1, methods=("rs", "asha"))
    rs, asha = both.all
    last = rs.curve["mean"].iloc[-1]
    when = {o.method.name: o.curve.seconds[o.curve["mean"] <= last].iloc[0] for o in both.all}
    assert both.speedup(asha) == when["rs"] / when["asha"] > 1
    assert both.speedup(rs) == 1


def test_a_method_that_never_gets_there_has_speedup_nought_and_is_counted_so():
    good, poor = outcome("rs", 0), outcome("asha", 0, seconds=8.0)
    both = Outcomes(PROFILE, (good, poor), ())
    assert both.speedup(poor) == 0
    assert "—; 0 of 1" in results(both)


def test_slot_seconds_are_workers_times_time():
    records = [SlotsChanged(1, 1.0), SlotsChanged(2, 2.0), SlotsChanged(1, 5.0)]
    assert _slot_seconds(records, until=10.0) == 1 + 2 * 3 + 5


def test_a_curve_holds_its_value_until_the_next_and_begins_when_it_begins():
    curve = pd.DataFrame({"seconds": [1.0, 3.0], "mean": [0.5, 0.2]})
    values = on_grid([curve], "mean", [0.0, 1.0, 2.9, 3.0, 9.0])
    np.testing.assert_array_equal(values, [[np.nan, 0.5, 0.5, 0.2, 0.2]])


@pytest.mark.cluster
@pytest.mark.long
@pytest.mark.cluster
@pytest.mark.long
def test_what_came_after_the_budget_is_not_in_the_curves(finished):
    folder, _, _ = finished
    for one in read(PROFILES["smoke"], folder / "runs").all:
        assert (one.cut.history().seconds <= 2.0).all()
        launched = [r for r in study_records(one.result.path) if isinstance(r, Launched)]
        suggested = [r for r in study_records(one.result.path) if isinstance(r, Suggested)]
        assert one.cut.num_trials == sum(r.seconds <= 2.0 for r in suggested)
        assert one.n_finished <= len(launched)


def test_medians_are_shown_with_their_range():
    assert among([3.0, 1.0, 2.0], "{:g}") == "2 (1 to 3)"
    assert among([0.1234, 0.1234], "{:.3f}") == "0.123"
    assert among([math.nan, 5.0], "{:g}") == "5"
    assert among([math.nan], "{:g}") == "—"


def test_methods_are_compared_from_three_seeds_on_and_not_before():
    assert "−" not in results(outcomes(n_seeds=2, methods=("rs", "asha")))
    three = outcomes(n_seeds=3, methods=("rs", "asha"))
    text = comparisons(three)
    apart = [three.get(METHODS["asha"], s).top - three.get(METHODS["rs"], s).top for s in range(3)]
    low = f"{min(apart):+.3f} to {max(apart):+.3f}"
    assert f"| ASHA/RS − RS | {np.median(apart):+.3f} ({low})" in text
    assert "by chance with probability 0.25" in text


def test_trials_finished_are_shown_beside_those_of_the_reference():
    three = outcomes(n_seeds=3, methods=("rs", "asha", "ahb"))
    n = [[three.get(METHODS[m], s).n_finished for m in ("asha", "ahb", "rs")] for s in range(3)]
    ratios = [np.median([row[i] / row[2] for row in n]) for i in range(2)]
    text = results(three)
    shown = re.search(r"RS = ([\d.]+)[^:]*: ([\d.]+)[^:]*: 1.0, n = 3;.*about 8 : 4 : 1", text)
    assert [float(shown[1]), float(shown[2])] == pytest.approx(ratios, abs=0.05)


# -- the machine ---------------------------------------------------------------------------------


def a_record(**changes):
    about = {"machine": "M", "versions": {"Python": "3"}}
    return replace(machine.Record(1, True, 150.0, 5.0, 0.01, 2.0, about, 0.0), **changes)


@pytest.mark.parametrize(
    ("record", "seen"),
    [
        (a_record(), ""),
        (a_record(worker_cpu=100.0), "CPU 66% of slot time"),
        (a_record(probe=0.02), "2.0 times slower"),
        (a_record(whole=False, sessions=2), "a session of 2 was killed"),
        (a_record(sessions=2), ""),
    ],
)
def test_a_disturbed_machine_is_recognised(record, seen):
    assert "; ".join(record.troubles(160.0, 0.01, on_cpu=True)) == seen


def test_a_disturbed_study_is_named_below_the_table():
    one = outcome("rs", 0, machine=a_record(worker_cpu=600.0))
    other = outcome("asha", 0, machine=a_record(worker_cpu=600.0, probe=0.02))
    text = results(Outcomes(PROFILE, (one, other), ("laptop-1-rs",)))
    assert "**1 of 2 studies were disturbed**" in text
    assert "| seed 0, ASHA/RS | 2.0 times slower |" in text
    assert "**not finished, not included**: laptop-1-rs" in text
    assert "- machine: M" in text


# -- figures -------------------------------------------------------------------------------------


def test_each_figure_is_drawn_where_there_is_data_for_it():
    assert list(all_figures(outcomes())) == ["top6", "target", "best", "checkpoints", "search"]
    assert list(all_figures(outcomes(1, ("rs", "asha")))) == ["top6", "target", "best"]


def test_a_panel_shows_the_mean_of_the_seeds_and_how_many_trials_finished():
    three = outcomes(methods=("rs", "asha"))
    figure = top_curves(three)
    figure.canvas.draw()
    asha = next(axes for axes in figure.axes if axes.get_title() == "ASHA/RS")
    mean = asha.lines[-1].get_ydata()
    own = three.of(METHODS["asha"])
    assert mean[-1] == pytest.approx(np.mean([one.top for one in own]))
    begin = max(one.curve.seconds.iloc[0] for one in own)
    assert np.isnan(mean[asha.lines[-1].get_xdata() < begin]).all()  # not before each has six
    counts = [one.n_finished for one in own]
    text = asha.texts[0].get_text()
    assert text == f"n = {np.median(counts):g} ({min(counts)}–{max(counts)})"


def test_a_method_with_fewer_than_six_trials_has_no_curve_but_its_number():
    figure = top_curves(outcomes(1, ("rs",), seconds=8.0))
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts][1] == "fewer than 6 trials"


def test_the_readme_has_a_place_for_each_profile_that_is_to_be_run(tmp_path):
    readme = (ROOT / "experiments/time_to_solution/README.md").read_text()
    for name in set(PROFILES) - {"smoke"}:
        assert f"<!-- results of {name}: begin -->" in readme
    path = tmp_path / "README.md"
    path.write_text("no place")
    with pytest.raises(ValueError, match="has run"):
        write(PROFILES["laptop"], tmp_path, path)
