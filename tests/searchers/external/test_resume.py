"""A study that is gone on with: its optimiser knows what came before, and replay asks nothing."""

from __future__ import annotations

import json
import logging

import pytest

from daskhpo.core.commands import Train
from daskhpo.core.events import Ended, Reported, SlotsChanged, Step, Suggested, Trained
from daskhpo.core.objective import Objective
from daskhpo.core.types import CheckpointPolicy, Limits
from daskhpo.engine.coordinator import Problem
from daskhpo.engine.journal import read_journal
from daskhpo.engine.session import Session
from daskhpo.schedulers import ASHA
from daskhpo.searchers import (
    AxSearch,
    DragonflySearch,
    HyperOptSearch,
    OptunaSearch,
    OutOfProcess,
    SigOptSearch,
    SkoptSearch,
)
from daskhpo.space import Categorical, Real, Space
from tests.searchers.external.foreign import PYTHON, needs_foreign
from tests.searchers.external.shared import AX_WARNINGS, needs
from tests.searchers.external.sigopt_server import TOKEN, running
from tests.searchers.external.test_dragonfly import QUICK
from tests.searchers.external.test_process import SCRIPT

SPACE = Space({"x": Real(0.0, 1.0), "kind": Categorical(["a", "b"])})


def session(directory, searcher, *, resume):
    problem = Problem(SPACE, Objective("loss"), ASHA(9, 1, 3), searcher, 0)
    limits = Limits(num_trials=40)
    return Session(directory, problem, limits, CheckpointPolicy("never"), resume=resume)


def loss_of(config, resource):
    return (config["x"] - 0.3) ** 2 + 1.0 / resource


def work(study, n_reports, n_slots=3):
    """Slots come, and answer each command to train with the report of a whole segment."""
    coordinator, seconds = study.coordinator, study.began_at
    queue = list(coordinator.handle(SlotsChanged(n_slots, seconds)))
    for _ in range(n_reports):
        train = next(command for command in queue if isinstance(command, Train))
        queue.remove(train)
        trial = coordinator.ledger.trials[train.trial]
        units = range(trial.resource + 1, train.until + 1)
        seconds += 1.0
        steps = tuple(Step(unit, {"loss": loss_of(trial.config, unit)}, seconds) for unit in units)
        queue += coordinator.handle(Trained(train.trial, train.attempt, steps, seconds))
    study.journal.flush()


def killed(study):
    """The process is gone: nothing is closed in order, but the lock is nobody's."""
    study.coordinator = None
    study.lock.release()


def ended_or_reported(directory):
    """By the journal: for each trial that reported, its configuration and its best loss."""
    configs, best = {}, {}
    for record in read_journal(directory / "journal.jsonl"):
        match record:
            case Suggested(trial, config):
                configs[trial] = config
            case Reported(trial=trial, steps=steps):
                losses = [step.metrics["loss"] for step in steps]
                best[trial] = min([best[trial], *losses] if trial in best else losses)
    return {trial: (configs[trial], loss) for trial, loss in best.items()}


def test_a_new_process_is_told_each_earlier_trial_once_and_asked_only_then(tmp_path):
    log = tmp_path / "log"
    searcher = OutOfProcess(SCRIPT, options={"log": str(log)})
    first = session(tmp_path / "study", searcher, resume=False)
    work(first, 20)
    killed(first)
    known = ended_or_reported(tmp_path / "study")
    assert any(isinstance(r, Ended) for r in read_journal(tmp_path / "study/journal.jsonl"))
    log.unlink()

    second = session(tmp_path / "study", searcher, resume=True)
    assert not log.exists()  # the replay has started no process
    work(second, 8)
    second.close()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    words = [line["do"] for line in lines]
    assert words[0] == "setup"
    n_told = words.index("ask") - 1
    assert n_told >= len(known)  # those that ran on before it was first asked are among them
    told = {(line["values"]["x"], line["loss"]) for line in lines[1 : n_told + 1]}
    losses = dict(told)
    for config, loss in known.values():
        assert losses[config["x"]] <= loss
    assert len(losses) == n_told
    assert words.count("ask") > 1


def counted(monkeypatch, searcher):
    """Counts how often its optimisers are made and asked."""
    counts = {"made": 0, "asked": 0}
    make = type(searcher).optimiser

    def made(self, space, seed):
        counts["made"] += 1
        optimiser = make(self, space, seed)
        ask = optimiser.ask

        def asked():
            counts["asked"] += 1
            return ask()

        optimiser.ask = asked
        return optimiser

    monkeypatch.setattr(type(searcher), "optimiser", made)
    return counts


@pytest.fixture
def sigopt():
    with running() as server:
        yield SigOptSearch(server.address, TOKEN)


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(OptunaSearch, id="Optuna", marks=needs("optuna", "optuna")),
        pytest.param(lambda: OptunaSearch("cmaes"), id="CMA-ES", marks=needs("optuna", "optuna")),
        pytest.param(HyperOptSearch, id="HyperOpt", marks=needs("hyperopt", "hyperopt")),
        pytest.param(AxSearch, id="Ax", marks=[needs("ax", "ax"), *AX_WARNINGS]),
        pytest.param(SkoptSearch, id="scikit-optimize"),
        pytest.param(
            lambda: DragonflySearch(PYTHON, options=QUICK), id="Dragonfly", marks=needs_foreign
        ),
        pytest.param(None, id="SigOpt"),
    ],
)
def test_replay_makes_and_asks_no_optimiser_and_the_next_one_knows_all(
    make, tmp_path, monkeypatch, caplog, request
):
    caplog.set_level(logging.ERROR)
    searcher = request.getfixturevalue("sigopt") if make is None else make()
    first = session(tmp_path, searcher, resume=False)
    work(first, 16)
    killed(first)
    known = ended_or_reported(tmp_path)

    counts = counted(monkeypatch, searcher)
    second = session(tmp_path, searcher, resume=True)
    assert counts == {"made": 0, "asked": 0}
    earlier = second.coordinator.searcher._earlier
    for trial, (config, loss) in known.items():
        told, outcome = earlier[trial]
        assert told == config
        assert outcome.loss == loss
    work(second, 5)
    assert counts["made"] == 1
    assert counts["asked"] >= 1
    assert second.coordinator.searcher.error is None
    assert not caplog.records
    second.close()
