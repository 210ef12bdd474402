"""`daskhpo verify`: a journal follows, or its first line that does not is shown."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from daskhpo.cli import main
from daskhpo.core.errors import JournalCorrupt, JournalDiffers, StudyMismatch
from daskhpo.core.objective import Objective
from daskhpo.core.space import Space
from daskhpo.core.types import CheckpointPolicy, Limits
from daskhpo.engine.coordinator import Problem
from daskhpo.engine.journal import FileJournal
from daskhpo.engine.session import create_directory
from daskhpo.schedulers import ASHA, FIFO, PBT, GuardedASHA, Hyperband, MedianStopping
from daskhpo.searchers import ForestSearch, RandomSearch
from daskhpo.space import Categorical, Integer, Real
from daskhpo.study.recorded import verify
from daskhpo.virtual.executor import IDEAL_CLUSTER, SimulatedExecutor
from daskhpo.virtual.replay import simulate

SPACE = {
    "lr": Real(1e-3, 1e-1, log=True),
    "layers": Integer(1, 4),
    "kind": Categorical(["a", ("b", 1), None]),
    "constant": (1, "x", False),
}
SCHEDULERS = {
    "fifo": FIFO(3),
    "asha": ASHA(9, grace_period=1, reduction_factor=3),
    "promotion": ASHA(9, grace_period=1, reduction_factor=3, variant="promotion", brackets=2),
    "guarded": GuardedASHA(9, 1),
    "hyperband": Hyperband(9, reduction_factor=3),
    "median": MedianStopping(FIFO(5)),
    "population": PBT(6, 2, mutations={"lr": Real(1e-3, 1e-1, log=True)}),
}


class Curve:
    def __init__(self, config):
        self.floor = config["lr"] * config["layers"]

    def metric(self, resource):
        return self.floor + 1 / resource

    def seconds(self, resource):
        return 2.0 * resource


class Own(FIFO):
    """A scheduler of the user's."""

    def __repr__(self):
        return f"Own({self.max_t})"


def a_study(directory, scheduler, n=12):
    problem = Problem(Space(SPACE), Objective("loss", "min"), scheduler, RandomSearch(), 7)
    create_directory(directory, problem, None)
    journal = FileJournal(directory / "journal.jsonl")
    executor = SimulatedExecutor(Curve, problem.objective, 3, [], IDEAL_CLUSTER)
    simulate(problem, executor, Limits(num_trials=n), CheckpointPolicy(), journal)
    journal.close()
    return problem


def lines_of(directory):
    return (directory / "journal.jsonl").read_text().splitlines(keepends=True)


def rewrite(directory, lines):
    (directory / "journal.jsonl").write_text("".join(lines))


@pytest.mark.parametrize("scheduler", SCHEDULERS.values(), ids=SCHEDULERS)
def test_the_journal_of_each_scheduler_follows_from_the_directory_alone(tmp_path, scheduler):
    problem = a_study(tmp_path / "s", scheduler)
    lines = lines_of(tmp_path / "s")
    for found in (verify(tmp_path / "s"), verify(tmp_path / "s", problem)):
        assert (found.n_records, found.n_trials, found.n_missing) == (len(lines), 12, 0)


@pytest.mark.parametrize("scheduler", SCHEDULERS.values(), ids=SCHEDULERS)
def test_a_line_that_was_removed_is_found(tmp_path, scheduler):
    a_study(tmp_path, scheduler)
    lines, tried = lines_of(tmp_path), 0
    for n, line in enumerate(lines[:-1]):
        follows = json.loads(line)["record"] in ("suggested", "launched", "ended", "exploited")
        if not follows or lines[n + 1] == line:
            continue
        rewrite(tmp_path, lines[:n] + lines[n + 1 :])
        with pytest.raises(JournalDiffers) as found:
            verify(tmp_path)
        assert found.value.line == n + 1
        assert found.value.recorded == lines[n + 1].strip()
        assert line.strip() in found.value.follows or "follow" in found.value.follows
        tried += 1
    assert tried >= 20


def test_a_decision_that_was_changed_is_found_with_both_values(tmp_path):
    a_study(tmp_path, SCHEDULERS["asha"])
    lines = lines_of(tmp_path)
    n = next(n for n, line in enumerate(lines) if '"decision":["stop"' in line)
    changed = json.loads(lines[n]) | {"decision": ["continue", 9]}
    rewrite(tmp_path, [*lines[:n], json.dumps(changed) + "\n", *lines[n + 1 :]])
    with pytest.raises(JournalDiffers) as found:
        verify(tmp_path)
    assert found.value.line == n + 1
    assert '["continue",9]' in found.value.recorded
    assert lines[n].strip() in found.value.follows


def test_a_record_that_the_study_cannot_have_met_is_found(tmp_path):
    a_study(tmp_path, SCHEDULERS["asha"])
    lines = lines_of(tmp_path)
    n = next(n for n, line in enumerate(lines) if line.startswith('{"record":"reported"'))
    unknown = json.loads(lines[n]) | {"trial": 99}
    no_metric = json.loads(lines[n])
    no_metric["steps"][0][2] = {"other": 1.0}
    for changed in (unknown, no_metric):
        rewrite(tmp_path, [*lines[:n], json.dumps(changed) + "\n", *lines[n + 1 :]])
        with pytest.raises(JournalDiffers) as found:
            verify(tmp_path)
        assert found.value.line == n + 1


@pytest.mark.parametrize("scheduler", SCHEDULERS.values(), ids=SCHEDULERS)
def test_a_journal_that_a_crash_cut_off_follows_wherever_it_ends(tmp_path, scheduler):
    a_study(tmp_path, scheduler, n=4)
    lines = lines_of(tmp_path)
    n_missing = 0
    for n in range(len(lines)):
        rewrite(tmp_path, [*lines[:n], lines[n][:-5]])
        found = verify(tmp_path)
        assert found.n_records == n
        n_missing += found.n_missing
    assert n_missing > 0


def test_another_definition_is_refused(tmp_path):
    problem = a_study(tmp_path, SCHEDULERS["asha"])
    with pytest.raises(StudyMismatch, match="seed"):
        verify(tmp_path, replace(problem, seed=8))


def test_a_scheduler_of_the_users_needs_its_file(tmp_path):
    problem = a_study(tmp_path, Own(3))
    with pytest.raises(StudyMismatch, match=r"Own.*FILE\.py:NAME"):
        verify(tmp_path)
    assert verify(tmp_path, problem).n_trials == 12


def test_a_line_that_cannot_be_read_is_named(tmp_path):
    a_study(tmp_path, SCHEDULERS["asha"])
    lines = lines_of(tmp_path)
    rewrite(tmp_path, [*lines[:4], "{\n", *lines[5:]])
    with pytest.raises(JournalCorrupt, match="line 5 cannot be read"):
        verify(tmp_path)


def test_the_command_shows_the_line_and_its_status(tmp_path, capsys):
    path = tmp_path / "s"
    a_study(path, SCHEDULERS["asha"])
    lines = lines_of(path)
    assert main(["verify", str(path)]) == 0
    assert f"all {len(lines)} records of 12 trials follow" in capsys.readouterr().out
    rewrite(path, lines[:-1])
    assert main(["verify", str(path)]) == 0
    assert "adds it: 1 record" in capsys.readouterr().out
    rewrite(path, lines[:5] + lines[6:])
    assert main(["verify", str(path)]) == 1
    out = capsys.readouterr().out
    assert "line 6 is the first that differs" in out
    assert lines[6].strip() in out
    assert main(["verify", str(tmp_path / "none")]) == 2


def test_the_verdict_on_a_model_that_verify_does_not_ask_is_not_missed(tmp_path):
    scheduler = GuardedASHA(9, 1)
    problem = Problem(Space(SPACE), Objective("loss", "min"), scheduler, ForestSearch(), 7)
    create_directory(tmp_path, problem, None)
    journal = FileJournal(tmp_path / "journal.jsonl")
    executor = SimulatedExecutor(Curve, problem.objective, 3, [], IDEAL_CLUSTER)
    simulate(problem, executor, Limits(num_trials=12), CheckpointPolicy(), journal)
    journal.close()
    assert '"judged"' in (tmp_path / "journal.jsonl").read_text()
    assert verify(tmp_path).n_missing == 0
