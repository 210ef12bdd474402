"""Studies of Optuna as study directories."""

from __future__ import annotations

import json
import math

import pytest

from daskhpo import load_study
from daskhpo.callbacks import OptunaJournal
from daskhpo.callbacks.optuna import distribution
from daskhpo.core.errors import StudyExists
from daskhpo.core.events import SessionStarted
from daskhpo.core.types import CheckpointPolicy, Limits
from daskhpo.engine.session import read_manifest
from daskhpo.interchange.imported import write_study
from daskhpo.interchange.optuna import read_optuna
from daskhpo.searchers import GPSearch
from daskhpo.space import Categorical, Integer, Ordinal, Real, Space
from daskhpo.testing.callback import STORIES, follow
from tests.callbacks.studies import SPACE, a_study

BEGAN = SessionStarted(Limits(num_trials=3), CheckpointPolicy(), 0.0, clock=1.5e9)
X = {"x": (Real(0.0, 1.0), 0.5)}


def line(op_code, **fields):
    return json.dumps({"op_code": op_code, "worker_id": "w", **fields}) + "\n"


def created(params, **fields):
    distributions = {name: json.dumps(distribution(domain)) for name, (domain, _) in params.items()}
    values = {name: value for name, (_, value) in params.items()}
    day = "2024-05-01T10:00:00.000000+00:00"
    usual = {"study_id": 0, "datetime_start": day, "distributions": distributions, "params": values}
    return line(4, **usual | fields)


def done(trial, value, state=1, minute=5):
    day = f"2024-05-01T10:{minute:02}:00.000000+00:00"
    values = None if value is None else [value]
    return line(6, trial_id=trial, state=state, values=values, datetime_complete=day)


def step(trial, number, value):
    return line(7, trial_id=trial, step=number, intermediate_value=value)


HEAD = line(0, study_name="s", directions=[1])


def imported(folder, *lines, **options):
    path = folder / "optuna.log"
    path.write_text("".join(lines))
    write_study(read_optuna(path, **options), folder / "study")
    return load_study(folder / "study")


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize(
    "story", ["one trial is fully trained and one is stopped", "units are trained again"]
)
def test_there_and_back_a_study_has_the_same_trials(tmp_path, story, mode):
    records = [BEGAN, *STORIES[story]]
    info = a_study(tmp_path / "there", records, mode)
    follow([OptunaJournal()], records, info).end()
    (tmp_path / "there" / "journal.jsonl").write_text("")
    write_study(read_optuna(info.directory / "optuna.log"), tmp_path / "back")
    back = load_study(tmp_path / "back")
    assert (back.objective.metric, back.objective.mode) == ("loss", mode)
    assert back.trial(0).resource == 9
    assert back.trial(0).status.value == "completed"
    assert back.trial(0).config["optimizer"] == "adam"
    domains = read_manifest(tmp_path / "back").domains()
    assert {name: domains[name] for name in ("lr", "depth", "optimizer") if name in domains} == {
        name: SPACE[name] for name in ("lr", "optimizer")
    }


def test_values_reports_states_and_times_are_read(tmp_path):
    result = imported(
        tmp_path,
        HEAD,
        created(X),
        *(step(0, n, 5.0 - n) for n in range(3)),
        done(0, 3.0),
        created(X),
        step(1, 0, 9.0),
        done(1, None, state=2),
        created(X),
        done(2, None, state=3),
        created(X),
        done(3, 1.5),
        created(X, state=4),
        created(X, state=1, value=0.5, datetime_complete="2024-05-01T11:00:00+00:00"),
        created(X),
    )
    statuses = [trial.status.value for trial in (result.trial(n) for n in range(6))]
    assert statuses == ["completed", "stopped", "failed", "completed", "completed", "stopped"]
    assert result.best_trial.id == 4
    assert result.best_value == 0.5
    assert result.history()["resource"].tolist()[:3] == [1, 2, 3] or result.num_trials == 6
    assert result.trial(0).best_metrics == {"value": 3.0}
    assert result.trial(0).resource == 3
    assert result.trial(5).reason == "it was running when it was imported"
    assert result.cost()["seconds"] == 3600
    assert result.curves()["value"].notna().sum() == 6


def test_a_value_that_is_no_report_is_the_last_one(tmp_path):
    result = imported(tmp_path, HEAD, created(X), step(0, 1, 5.0), step(0, 2, 4.0), done(0, 7.0))
    assert result.history()["value"].tolist() == [5.0, 7.0]


@pytest.mark.parametrize(
    ("kind", "attributes", "expected", "value"),
    [
        ("FloatDistribution", {"low": 0.1, "high": 1, "log": True}, Real(0.1, 1, log=True), 0.5),
        ("FloatDistribution", {"low": 0, "high": 1, "step": 0.5}, Ordinal([0, 0.5, 1.0]), 0.5),
        ("IntDistribution", {"low": 1, "high": 9, "step": 1, "log": False}, Integer(1, 9), 4.0),
        ("IntDistribution", {"low": 0, "high": 8, "step": 4}, Ordinal([0, 4, 8]), 4.0),
        ("IntUniformDistribution", {"low": 1, "high": 9, "step": 1}, Integer(1, 9), 4),
        ("LogUniformDistribution", {"low": 0.1, "high": 1}, Real(0.1, 1, log=True), 0.5),
        ("CategoricalDistribution", {"choices": ["a", None]}, Categorical(["a", None]), 1),
        ("FloatDistribution", {"low": 2.0, "high": 2.0}, 2.0, 2.0),
        ("CategoricalDistribution", {"choices": ["a"]}, "a", 0),
    ],
)
def test_distributions_become_domains(tmp_path, kind, attributes, expected, value):
    text = json.dumps({"name": kind, "attributes": attributes})
    param = {"param_name": "p", "param_value_internal": value, "distribution": text}
    path = tmp_path / "optuna.log"
    path.write_text(HEAD + created({}) + line(5, trial_id=0, **param) + done(0, 1.0))
    study = read_optuna(path)
    assert study.space["p"] == expected
    (trial,) = study.trials
    assert Space({"p": expected, "x": Real(0, 1)}).complete(dict(trial.config) | {"x": 0.1})


def test_a_study_is_warm_started_from_what_was_imported(tmp_path):
    lines = [created({"x": (X["x"][0], n / 10)}) + done(n, (n / 10 - 0.5) ** 2) for n in range(10)]
    imported(tmp_path, HEAD, *lines)
    searcher = GPSearch(warm_start=tmp_path / "study")
    searcher.setup(Space({"x": Real(0.0, 1.0)}), 0)
    assert abs(searcher.suggest(0)["x"] - 0.5) < 0.3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it creates no study"),
        ("hello\n", "line 1 is none of an Optuna journal file"),
        ('{"record":"began"}\n', "line 1 is none of an Optuna journal file"),
        (HEAD + line(0, study_name="t", directions=[1]), "several studies, such as 's' and 't'"),
        (line(0, study_name="s", directions=[1, 2]), "several objectives"),
        (HEAD + line(1, study_id=0), "was deleted"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, text, message):
    path = tmp_path / "file"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_optuna(path)


def test_a_line_that_is_being_written_is_left_out_and_no_number_is_infinite(tmp_path):
    last = created(X)[:-9]
    result = imported(tmp_path, HEAD, created(X), step(0, 1, math.nan), step(0, 2, 1.0), last)
    assert result.num_trials == 1
    assert result.best_value == 1.0


def test_an_existing_directory_is_left_alone(tmp_path):
    imported(tmp_path, HEAD, created(X), done(0, 1.0))
    with pytest.raises(StudyExists, match="give another path"):
        write_study(read_optuna(tmp_path / "optuna.log"), tmp_path / "study")


def test_a_study_that_optuna_itself_ran_has_the_same_best_trial(tmp_path):
    optuna = pytest.importorskip("optuna")

    def objective(trial):
        x = trial.suggest_float("x", 0, 4)
        n = trial.suggest_int("n", 1, 64, log=True)
        kind = trial.suggest_categorical("kind", ["a", "b", None])
        for unit in range(3):
            trial.report(x + 1 / (unit + 1), unit)
            if trial.should_prune():
                raise optuna.TrialPruned
        return x + n + (kind == "a")

    path = tmp_path / "optuna.log"
    backend = optuna.storages.journal.JournalFileBackend(str(path))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=optuna.storages.JournalStorage(backend),
        direction="maximize",
        sampler=optuna.samplers.RandomSampler(seed=0),
    )
    study.optimize(objective, 20)
    write_study(read_optuna(path), tmp_path / "study")
    result = load_study(tmp_path / "study")
    assert result.num_trials == 20
    assert result.best_value == study.best_value
    assert result.best_config == study.best_params
    assert read_manifest(tmp_path / "study").domains() == {
        "x": Real(0.0, 4.0),
        "n": Integer(1, 64, log=True),
        "kind": Categorical(["a", "b", None]),
    }
