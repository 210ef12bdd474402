"""The plain hooks: what a callback hears of a study, in which order, and with which values."""

from __future__ import annotations

import dataclasses
import math

import pytest

from daskhpo.callbacks import Callback, FrozenReport, FrozenTrial, StudySummary
from daskhpo.core.domains import Integer, Real
from daskhpo.core.events import Ended, Launched, Reported, SessionStarted, Step, Suggested
from daskhpo.core.objective import Objective
from daskhpo.core.space import Space
from daskhpo.core.types import CheckpointPolicy, Continue, Limits, Status, Stop
from daskhpo.engine.checkpoint_policy import check_policy
from daskhpo.engine.coordinator import Problem
from daskhpo.results.result import Result
from daskhpo.schedulers import ASHA, FIFO, PBT
from daskhpo.searchers import RandomSearch
from daskhpo.testing.callback import BEGAN, OBJECTIVE, STORIES, an_info, follow, resumed
from daskhpo.testing.journal import MemoryJournal
from daskhpo.virtual.executor import ClusterModel, SimulatedExecutor
from daskhpo.virtual.replay import simulate

DONE = Stop("fully trained")


class Log(Callback):
    """Every call, as its hook and its values."""

    def __init__(self):
        self.calls = []

    def on_study_start(self, info):
        self.calls.append(("study start", info))

    def on_trial_start(self, trial):
        self.calls.append(("trial start", trial))

    def on_report(self, trial, report):
        self.calls.append(("report", trial, report))

    def on_trial_end(self, trial):
        self.calls.append(("trial end", trial))

    def on_study_end(self, study):
        self.calls.append(("study end", study))

    def of(self, hook):
        return [call[1:] if len(call) > 2 else call[1] for call in self.calls if call[0] == hook]


@pytest.fixture
def log(tmp_path):
    """Follows records to the end, and returns what was heard."""

    def run(*records):
        records = [r for part in records for r in (part if isinstance(part, list) else [part])]
        heard = Log()
        follow([heard], records, an_info(tmp_path, records)).end()
        return heard

    return run


def told(heard):
    """Hooks with the numbers of trials, and of units."""
    shown = []
    for hook, first, *rest in heard.calls:
        shown.append((hook, *([first.id] if hook.startswith("trial") else [])))
        if rest:
            shown[-1] = (hook, first.id, rest[0].resource)
    return shown


def test_each_hook_is_called_in_the_order_of_the_journal(log):
    assert told(log(BEGAN, STORIES["one trial is fully trained and one is stopped"])) == [
        ("study start",),
        ("trial start", 0),
        ("trial start", 1),
        *[("report", 0, unit) for unit in (1, 2)],
        ("report", 1, 1),
        ("trial end", 1),
        *[("report", 0, unit) for unit in range(3, 10)],
        ("trial end", 0),
        ("study end",),
    ]


def test_a_trial_that_is_launched_again_does_not_start_again_and_repeats_no_unit(log):
    assert told(log(BEGAN, STORIES["units are trained again"])) == [
        ("study start",),
        ("trial start", 0),
        *[("report", 0, unit) for unit in range(1, 10)],
        ("trial end", 0),
        ("study end",),
    ]


def test_what_is_trained_from_another_trials_state_is_reported(log):
    heard = log(BEGAN, STORIES["a trial takes over another one's state"])
    units = [(t.n_exploits, t.config["optimizer"], r.resource) for t, r in heard.of("report")[2:]]
    assert units == [
        *[(0, "adam", unit) for unit in range(1, 6)],
        *[(1, "sgd", unit) for unit in range(3, 10)],
    ]


def test_a_resumed_study_is_told_from_its_first_session_on(log):
    first = [BEGAN, *STORIES["the study is stopped"]]
    heard = log(resumed(first))
    (info,) = heard.of("study start")
    assert info.session == 2
    assert [(t.session, r.resource) for t, r in heard.of("report")] == [
        *[(1, unit) for unit in (1, 2, 3, 4)],
        (2, 5),
    ]
    assert [trial.session for trial in heard.of("trial start")] == [1]
    assert [trial.session for trial in heard.of("trial end")] == [2]
    n_then = len(log(first).of("report"))
    assert [r.number for _, r in heard.of("report")][n_then:] == [n_then], "as it was then"


def test_a_trial_is_seen_as_it_was_at_each_unit(log):
    losses = (0.9, 0.5, 0.7)
    steps = tuple(Step(n, {"loss": loss}, float(n)) for n, loss in enumerate(losses, start=1))
    heard = log(
        BEGAN,
        Suggested(0, {"lr": 0.1}, 2, 0.0),
        Launched(0, 1, 0, 3, 0.0),
        Reported(0, 1, steps, 3.5, decision=Continue(9)),
    )
    assert [
        (trial.resource, trial.metrics["loss"], trial.best_value, report.value, report.is_best)
        for trial, report in heard.of("report")
    ] == [(1, 0.9, 0.9, 0.9, True), (2, 0.5, 0.5, 0.5, True), (3, 0.7, 0.5, 0.7, False)]
    assert [r.decision for _, r in heard.of("report")] == [None, None, Continue(9)]
    assert [(r.number, r.seconds) for _, r in heard.of("report")] == [(0, 1.0), (1, 2.0), (2, 3.0)]
    (started,) = heard.of("trial start")
    assert (started.bracket, started.attempt, started.resource) == (2, 1, 0)
    assert (started.status, started.metrics, started.best_value) == (Status.RUNNING, {}, None)


def test_the_end_of_a_trial_says_how_and_why(log):
    failed = log(BEGAN, STORIES["a trial fails before its first report"]).of("trial end")[0]
    assert (failed.status, failed.reason) == (Status.FAILED, "KeyError: 'lr'")
    assert failed.error.startswith("Traceback")
    assert (failed.started, failed.ended, failed.seconds) == (0.0, 1.0, 1.0)
    assert failed.best_value is None


@pytest.mark.parametrize(("mode", "best"), [("min", 0.2), ("max", 0.9)])
def test_values_are_those_of_the_users_metric(tmp_path, mode, best):
    records = [
        BEGAN,
        Suggested(0, {}, 0, 0.0),
        Launched(0, 1, 0, 3, 0.0),
        Reported(0, 1, (Step(1, {"loss": 0.9}, 1.0), Step(2, {"loss": 0.2}, 2.0)), 2.0),
    ]
    heard = Log()
    info = dataclasses.replace(an_info(tmp_path, records), objective=Objective("loss", mode))
    follow([heard], records, info).end()
    assert heard.of("study end")[0].best.best_value == best


def test_the_end_of_a_study_sums_it_up(log):
    study = log(BEGAN, STORIES["trials are paused, and one is resumed"]).of("study end")[0]
    assert (study.n_trials, study.session, study.seconds) == (2, 1, 10.0)
    assert study.counts[Status.COMPLETED] == study.counts[Status.PAUSED] == 1
    assert study.counts[Status.FAILED] == 0
    assert study.best.id == 0
    assert study.stop_reason is None


def test_the_values_are_read_only(log):
    heard = log(BEGAN, STORIES["one trial is fully trained and one is stopped"])
    trial, report = heard.of("report")[0]
    (study,) = heard.of("study end")
    for value, kind in ((trial, FrozenTrial), (report, FrozenReport), (study, StudySummary)):
        for field in dataclasses.fields(kind):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(value, field.name, None)
    for mapping in (trial.config, trial.metrics, report.metrics, study.counts):
        with pytest.raises(TypeError, match="does not support item assignment"):
            mapping["lr"] = 1.0


def test_what_was_received_does_not_change_later(log):
    heard = log(BEGAN, STORIES["a trial takes over another one's state"])
    before = heard.of("report")[2][0]
    assert (before.id, before.resource, before.status) == (1, 1, Status.RUNNING)
    assert before.config["optimizer"] == "adam"


class Known:
    """A curve that breaks for large ``x``."""

    def __init__(self, config):
        self.x, self.step = config["x"], config["step"]

    def metric(self, resource):
        return math.nan if self.x > 0.9 and resource > 2 else self.x + 1 / resource

    def seconds(self, resource):
        return float(self.step * resource)


STUDIES = {
    "stopped": (ASHA(9), 20, {}, "auto"),
    "paused": (ASHA(9, variant="promotion"), 20, {}, "auto"),
    "workers lost": (FIFO(9), 9, {"resizes": [(30.0, 1), (99.0, 4)]}, "never"),
    "jobs that end": (FIFO(9), 9, {"cluster": ClusterModel(90.0, requeue_seconds=9.0)}, "never"),
    "a population": (PBT(9, 3, ["x"]), 6, {}, "auto"),
}


@pytest.mark.parametrize(
    ("scheduler", "num_trials", "options", "policy"), STUDIES.values(), ids=STUDIES
)
def test_reports_are_the_rows_of_the_history(log, scheduler, num_trials, options, policy):
    journal = MemoryJournal()
    space = Space({"x": Real(0.0, 1.0), "step": Integer(3, 9)})
    problem = Problem(space, OBJECTIVE, scheduler, RandomSearch(), 0)
    executor = SimulatedExecutor(Known, OBJECTIVE, 3, **options)
    simulate(problem, executor, Limits(num_trials), check_policy(policy), journal)
    heard, result = log(journal.records), Result(journal.records, OBJECTIVE)
    frame = result.history().drop(columns="seconds").sort_values(["trial", "attempt", "resource"])
    rows = [(t.id, t.attempt, r.resource, r.value) for t, r in heard.of("report")]
    assert sorted(rows) == list(frame.itertuples(index=False, name=None))
    assert [r.number for _, r in heard.of("report")] == list(range(len(rows)))
    assert len(heard.of("trial start")) == result.num_trials
    ends = {trial.id: (trial.status.value, trial.seconds) for trial in heard.of("trial end")}
    table = result.trials().set_index("trial")
    assert ends == {
        trial: (row["status"], row["seconds"])
        for trial, row in table.iterrows()
        if Status(row["status"]).ended
    }


def test_a_trial_hears_of_its_end_once_in_a_study_of_two_sessions(log):
    first = [BEGAN, *STORIES["one trial is fully trained and one is stopped"]]
    heard = log(first, SessionStarted(Limits(), CheckpointPolicy(), 9.0), Suggested(2, {}, 0, 9.0))
    assert [trial.id for trial in heard.of("trial end")] == [1, 0]
    assert [trial.id for trial in heard.of("trial start")] == [0, 1], "2 was never launched"
    assert sum(isinstance(record, Ended) for record in first) == 2
