"""What a study does whose user names no scheduler, or no searcher."""

from __future__ import annotations

import pytest

from daskhpo import Study, Trainable
from daskhpo.core.domains import Real
from daskhpo.schedulers import ASHA, FIFO, GuardedASHA
from daskhpo.searchers import ForestSearch, GPSearch, RandomSearch

X = {"x": Real(0.0, 1.0)}


class Net(Trainable):
    def setup(self, config):
        pass

    def step(self):
        return {"loss": 1.0}


def train(config, trial):
    trial.report({"loss": config["x"]})


def once(config):
    return {"loss": config["x"]}


def parts(trainable, **options):
    problem = Study(trainable, X, "loss", **options).problem
    return repr(problem.scheduler), repr(problem.searcher)


RULE = "GuardedASHA(max_t={}, grace_period={}, reduction_factor=3)"


@pytest.mark.parametrize("trainable", [Net, train, None])
def test_with_max_t_alone_the_rule_and_its_searcher(trainable):
    assert parts(trainable, max_t=81) == (RULE.format(81, 1), "ForestSearch()")


@pytest.mark.parametrize(("max_t", "rung"), [(3, 1), (50, 1), (100, 2), (1000, 20)])
def test_the_first_rung_is_a_fiftieth_of_a_training(max_t, rung):
    assert parts(train, max_t=max_t)[0] == RULE.format(max_t, rung)


@pytest.mark.parametrize("max_t", [1, 2])
def test_trials_of_one_or_two_units_are_not_compared_before_their_end(max_t):
    assert parts(train, max_t=max_t) == (f"FIFO(max_t={max_t})", "ForestSearch()")


@pytest.mark.parametrize("options", [{}, {"max_t": 1}])
def test_a_function_that_returns_one_value_needs_no_max_t(options):
    assert parts(once, **options) == ("FIFO(max_t=1)", "ForestSearch()")


@pytest.mark.parametrize("trainable", [Net, train, None])
def test_max_t_is_asked_for_if_it_cannot_be_known(trainable):
    with pytest.raises(ValueError, match=r"max_t is not given: how many units.*Give max_t=81"):
        Study(trainable, X, "loss")


def test_max_t_and_a_scheduler_are_one_too_many():
    with pytest.raises(ValueError, match=r"scheduler=ASHA.*has its own: give one of the two"):
        Study(train, X, "loss", scheduler=ASHA(27), max_t=27)


def test_one_value_of_many_units_is_refused():
    with pytest.raises(ValueError, match="neither a scheduler nor max_t"):
        Study(once, X, "loss", max_t=27)


def test_a_searcher_alone_is_put_under_the_rule():
    assert parts(train, searcher=GPSearch(), max_t=9)[0] == RULE.format(9, 1)


@pytest.mark.parametrize(
    ("scheduler", "searcher"),
    [(GuardedASHA(9), ForestSearch), (ASHA(9), RandomSearch), (FIFO(9), RandomSearch)],
)
def test_a_scheduler_alone_has_the_searcher_that_belongs_to_it(scheduler, searcher):
    study = Study(train, X, "loss", scheduler=scheduler)
    assert type(study.problem.searcher) is searcher


def test_ask_and_tell_needs_no_scheduler(tmp_path):
    study = Study(None, X, "loss", "max", max_t=9, storage=tmp_path, name="asked")
    for _ in range(40):
        trial = study.ask()
        while study.tell(trial, {"loss": trial.config["x"] * (trial.resource + 1)}):
            pass
    study.close()
    result = study.result()
    assert result.num_trials > 10
    again = Study(None, X, "loss", "max", max_t=9, storage=tmp_path, name="asked")
    assert again.ask() is not None  # it replays
    again.close()
