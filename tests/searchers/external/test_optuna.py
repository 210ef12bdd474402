"""Optuna."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from statistics import fmean

import pytest

from daskhpo import Study, load_study
from daskhpo.core.random import rng
from daskhpo.core.types import Status, Trial
from daskhpo.schedulers import ASHA
from daskhpo.searchers import OptunaSearch, RandomSearch
from daskhpo.space import Ordinal, Real, Space
from tests.searchers.external.shared import (
    EVERY_KIND,
    ExternalContract,
    n_own,
    needs,
    regret,
    report,
    start,
    taught,
    wait_for,
)

pytestmark = needs("optuna", "optuna")


@pytest.mark.slow
class TestTpe(ExternalContract):
    @pytest.fixture
    def make(self):
        return OptunaSearch


@pytest.mark.slow
class TestGp(ExternalContract):
    n, n_study = 11, 12

    @pytest.fixture
    def make(self):
        return lambda **options: OptunaSearch("gp", **options)


@pytest.mark.slow
class TestCmaes(ExternalContract):
    @pytest.fixture
    def make(self):
        return lambda **options: OptunaSearch("cmaes", **options)


SPACE = Space({"x": Real(0.0, 1.0), "units": Ordinal([8, 16, 64])})


def ready(*arguments, **options):
    searcher = OptunaSearch(*arguments, **options)
    searcher.setup(SPACE, 0)
    return searcher


def recorded(searcher):
    """Optuna's own records: state, value and intermediate values of each trial."""
    trials = searcher._optimiser._study.get_trials()
    return [(trial.state.name, trial.value, trial.intermediate_values) for trial in trials]


def test_a_trial_is_pruned_until_it_is_trained_to_the_end():
    searcher = ready()
    config = start(searcher, 0)
    assert recorded(searcher) == [("RUNNING", None, {})]
    report(searcher, 0, config, loss=3.0, resource=1)
    assert recorded(searcher) == [("PRUNED", 3.0, {1: 3.0})]
    trial = report(searcher, 0, config, loss=2.0, resource=9)
    assert recorded(searcher) == [("PRUNED", 2.0, {9: 2.0})]
    searcher.on_end(trial._replace(status=Status.COMPLETED))
    assert recorded(searcher) == [("COMPLETE", 2.0, {})]


@pytest.mark.parametrize("sampler", ["gp", "cmaes"])
def test_samplers_that_know_no_pruned_trials_are_told_complete_ones(sampler):
    searcher = ready(sampler)
    report(searcher, 0, start(searcher, 0), loss=3.0)
    assert recorded(searcher) == [("COMPLETE", 3.0, {})]


def test_a_failed_trial_is_one_in_optuna_too():
    searcher = ready()
    for number, loss in enumerate([None, 4.0]):
        config = start(searcher, number)
        if loss is not None:
            report(searcher, number, config, loss)
        searcher.on_end(Trial(number, config, Status.FAILED, until=1))
    assert [state for state, *_ in recorded(searcher)] == ["FAIL", "FAIL"]


def test_optuna_sees_the_order_of_an_ordinal():
    searcher = ready()
    start(searcher, 1)
    searcher.on_start(0, {"x": 0.5, "units": 64})
    [_, trial] = searcher._optimiser._study.get_trials()
    assert trial.params == {"x": 0.5, "units": 2}


def test_a_changed_configuration_is_what_optuna_knows():
    searcher = ready()
    start(searcher, 0)
    report(searcher, 0, {"x": 0.25, "units": 16}, loss=1.0)
    [trial] = searcher._optimiser._study.get_trials()
    assert trial.params == {"x": 0.25, "units": 1}


@pytest.mark.slow
@pytest.mark.parametrize(("sampler", "n"), [("tpe", 30), ("cmaes", 36), ("gp", 13)])
def test_it_gets_better_with_what_it_learns(sampler, n):
    losses = regret(OptunaSearch(sampler), n)
    assert fmean(losses[-3:]) < 0.7 * fmean(losses[:10])


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes"])
def test_it_learns_from_an_earlier_session(sampler):
    at_random = fmean(regret(RandomSearch(), 30))
    assert taught(OptunaSearch(sampler), 40, n_proposals=5) < 0.6 * at_random


def test_cmaes_begins_from_ten_earlier_trials_in_spite_of_categories():
    for n in (9, 10):
        searcher = OptunaSearch("cmaes")
        searcher.setup(EVERY_KIND, 0)
        for number in range(n):
            config = EVERY_KIND.sample(rng(5, "earlier", number))
            searcher.on_start(number, config)
            trial = report(searcher, number, config, float(number))
            searcher.on_end(trial._replace(status=Status.COMPLETED))
        start(searcher, n)
        source = searcher._optimiser._study.sampler._source_trials
        if n == 9:
            assert source is None
        else:
            assert [trial.value for trial in source] == [float(number) for number in range(10)]
            assert source[0].params.keys() == set(EVERY_KIND.domains) - {"norm"}
            assert searcher.error is None


def test_an_unknown_sampler_is_refused():
    with pytest.raises(ValueError, match=r"sampler='grid' must be 'tpe', 'gp' or 'cmaes'"):
        OptunaSearch("grid")


def train(config, trial):
    for _ in range(trial.resource, trial.max_t):
        time.sleep(0.1)  # a training takes its time, in which the next suggestion can be made
        trial.report({"loss": (config["x"] - 0.3) ** 2 + config["units"] / 100})


def without(library: str, code: str) -> subprocess.CompletedProcess[str]:
    """Run code in an interpreter that cannot import a library."""
    code = f"import sys; sys.modules[{library!r}] = None\n" + textwrap.dedent(code)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Directory of a study that Optuna made, on an embedded cluster, in two sessions."""
    storage = tmp_path_factory.mktemp("runs")
    study = Study(
        train,
        space=dict(SPACE),
        metric="loss",
        scheduler=ASHA(9, grace_period=1, reduction_factor=3),
        searcher=OptunaSearch(points_to_evaluate=[{"x": 0.9, "units": 64}]),
        storage=storage,
        name="optuna",
    )
    handle = study.start(time_budget="100s", progress=False)
    wait_for(lambda: n_own(study.path) >= 10, "suggestions of Optuna")
    handle.stop("enough was seen")
    n_begun = len(handle.wait().trials())
    study.extend(num_trials=n_begun + 8, progress=False)
    return study.path


@pytest.mark.cluster
def test_a_study_on_a_cluster_runs_and_is_gone_on_with(finished):
    trials = load_study(finished).trials()
    assert len(trials) >= 18
    assert n_own(finished) > 10
    assert not set(trials.status) - {"completed", "stopped"}
    assert (trials["config/x"][0], trials["config/units"][0]) == (0.9, 64)
    assert set(trials["config/units"]) <= {8, 16, 64}


@pytest.mark.cluster
def test_a_finished_study_opens_without_its_optimiser(finished):
    run = without(
        "optuna",
        f"""
        from daskhpo import load_study
        result = load_study({str(finished)!r})
        print(len(result.trials()) >= 18, result.best_value < 0.9)
        """,
    )
    assert run.stdout.split() == ["True", "True"], run.stderr


@pytest.mark.parametrize(
    ("library", "call", "extra"),
    [
        ("optuna", "OptunaSearch()", "optuna"),
        ("cmaes", "OptunaSearch('cmaes')", "optuna"),
        ("torch", "OptunaSearch('gp')", "torch"),
        ("hyperopt", "HyperOptSearch()", "hyperopt"),
        ("ax", "AxSearch()", "ax"),
    ],
)
def test_a_missing_library_gives_an_error_that_names_the_extra(library, call, extra):
    run = without(library, f"from daskhpo.searchers import {call.split('(')[0]}; {call}")
    assert f"MissingLibrary: {library} is not installed" in run.stderr
    assert f"pip install 'daskhpo[{extra}]'" in run.stderr
