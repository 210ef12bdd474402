"""Bayesian optimisation with a Gaussian process: what is suggested.

A search that goes on for long differs from one processor's linear algebra to another's as it does
from seed to seed. So what is found is asserted of the median of several seeds; the comments give
the spread over 20 of them.
"""

from __future__ import annotations

import copy
import math
from statistics import median

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from daskhpo.core.types import Report, Status, Trial
from daskhpo.searchers import GPSearch
from daskhpo.searchers.gp.model import fit
from daskhpo.space import Categorical, Integer, Ordinal, Real, Space
from daskhpo.testing.searcher import SearcherContract, a_point, search
from experiments.adsorption.profiles import profile_named

PLANE = Space({"x": Real(0, 1), "y": Real(0, 1)})


class TestContract(SearcherContract):
    n = 14

    @pytest.fixture
    def make(self):
        return GPSearch


def ready(space=PLANE, seed=0, **options):
    searcher = GPSearch(**options)
    searcher.setup(space, seed)
    return searcher


def tell(searcher, trial, config, loss, resource=1):
    """A trial that starts, reports once, and ends."""
    searcher.on_start(trial, config)
    running = Trial(trial, config, Status.RUNNING, until=resource, resource=resource)
    searcher.observe(running, Report(resource, (loss,), loss))
    searcher.on_end(running._replace(status=Status.COMPLETED))


def fail(searcher, trial, config):
    searcher.on_start(trial, config)
    searcher.on_end(Trial(trial, config, Status.FAILED, until=1))


def optimised(searcher, function, n, first=0):
    """Configurations and losses of trials one after another."""
    seen = []
    for trial in range(first, first + n):
        config = searcher.suggest(trial)
        seen.append((config, function(config)))
        tell(searcher, trial, *seen[-1])
    return seen


def bowl(config):
    return (config["x"] - 0.3) ** 2 + (config["y"] - 0.8) ** 2


def told(searcher, n=12, function=bowl, seed=1):
    """The searcher after results that it did not ask for, as in a resumed study."""
    generator = np.random.default_rng(seed)
    for trial in range(n):
        config = searcher._space.sample(generator)
        tell(searcher, trial, config, function(config))
    return searcher


def apart(one, other):
    return math.dist([one["x"], one["y"]], [other["x"], other["y"]])


# -- what it finds -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("acq", ["EI", "LCB", "PI"])
def test_each_acquisition_finds_the_bottom_of_a_bowl(acq):
    designed, found = [], []
    for seed in range(5):
        losses = [loss for _, loss in optimised(ready(seed=seed, acq=acq), bowl, 20)]
        designed.append(min(losses[:8]))
        found.append(min(losses[8:]))
    assert median(found) < 1e-3  # one seed: below 1e-4, with PI 4e-3; 20 random points: 0.016
    assert median(found) < median(designed)


def test_acquisitions_differ():
    first = {acq: told(ready(acq=acq)).suggest(12)["x"] for acq in ("EI", "LCB", "PI")}
    assert len(set(first.values())) == 3


@pytest.mark.slow
def test_a_mixed_space_is_searched_in_all_its_parts():
    space = Space(
        {
            "lr": Real(1e-5, 1.0, log=True),
            "layers": Integer(1, 40),
            "batch": Ordinal([16, 64, 256]),
            "opt": Categorical(["a", "b", "c"]),
        }
    )

    def loss(config):
        off = abs(math.log10(config["lr"]) + 2.0) + abs(config["layers"] - 17) / 10
        return off + (config["batch"] != 64) + (config["opt"] != "b")

    best, least = min(optimised(ready(space), loss, 40), key=lambda pair: pair[1])
    assert (best["batch"], best["opt"]) == (64, "b")
    assert least < 0.2


def test_noise_is_learned():
    generator = np.random.default_rng(0)
    noisy = told(ready(), 60, lambda config: bowl(config) + 0.1 * generator.standard_normal())
    clean = told(ready(), 60)
    for searcher in (noisy, clean):
        searcher.suggest(60)
    variance = np.var([row.loss for row in noisy._evidence.observations.values()])
    assert noisy._losses._value.noise * variance == pytest.approx(0.1**2, rel=0.6)
    assert clean._losses._value.noise < 1e-3


def test_the_domain_of_the_adsorption_study_keeps_its_meaning():
    """Six hyperparameters: int, float, and a list of ordered numbers."""
    space = Space(profile_named("gpu").domains)
    searcher = ready(space)

    def loss(config):
        return abs(math.log10(config["lr"]) + 2) + abs(config["batch_size"] - 119) / 100

    configs = [config for config, _ in optimised(searcher, loss, 20)]
    for config in configs:
        assert space.complete(config) == config
        kinds = {name: type(value) for name, value in config.items()}
        assert kinds.pop("lr") is float
        assert set(kinds.values()) == {int}
    assert min(map(loss, configs[8:])) < 0.1


# -- design --------------------------------------------------------------------------------------


def test_the_design_fills_the_space_evenly():
    searcher = ready(n_initial_points=16)
    x = sorted(searcher.suggest(trial)["x"] for trial in range(16))
    assert [int(value * 16) for value in x] == list(range(16))  # one in each sixteenth


def test_slots_get_points_of_the_design_until_enough_trials_have_reported():
    searcher, twin = ready(n_initial_points=2), ready(n_initial_points=99)
    early = [searcher.suggest(trial) for trial in range(30)]
    assert early == [twin.suggest(trial) for trial in range(30)]
    for trial in (0, 1):
        tell(searcher, trial, early[trial], 1.0 * trial)
    assert searcher.suggest(30) != twin.suggest(30)


def test_another_seed_gives_another_design():
    assert ready(seed=1).suggest(0) != ready(seed=2).suggest(0)


# -- in parallel ---------------------------------------------------------------------------------


def test_suggestions_in_parallel_keep_their_distance():
    searcher = told(ready())
    batch = [searcher.suggest(trial) for trial in range(12, 20)]
    assert min(apart(a, b) for i, a in enumerate(batch) for b in batch[:i]) > 0.01
    alone = [told(ready()).suggest(trial) for trial in range(12, 20)]
    assert max(apart(a, b) for a in alone for b in alone) < 0.01  # all want the same


def test_what_started_elsewhere_is_pending_too():
    suggested = told(ready()).suggest(12)
    resumed = told(ready())
    resumed.on_start(12, suggested)  # by an earlier session
    assert apart(resumed.suggest(13), suggested) > 0.01


def test_a_trial_that_ends_without_a_report_is_pending_no_more():
    searcher = told(ready())
    config = searcher.suggest(12)
    searcher.on_end(Trial(12, config, Status.STOPPED, until=1))
    assert len(searcher._evidence.pending) == 0


def test_a_resumed_searcher_knows_what_the_first_one_knew():
    first = ready()
    seen = optimised(first, bowl, 15)
    resumed = ready()
    for trial, (config, loss) in enumerate(seen):
        tell(resumed, trial, config, loss)  # suggest was never called
    assert resumed._evidence.observations == first._evidence.observations
    assert bowl(resumed.suggest(15)) < 0.01


def test_listening_never_fits_a_model(monkeypatch):
    searcher = ready()
    monkeypatch.setattr("daskhpo.searchers.gp.surrogate.fit", lambda *_: pytest.fail("fitted"))
    told(searcher, 20)
    fail(searcher, 20, {"x": 0.5, "y": 0.5})


# -- no repeats ----------------------------------------------------------------------------------


def test_a_finite_space_is_tried_in_full_before_anything_comes_again():
    space = Space({"n": Integer(1, 4), "o": Ordinal([1, 10]), "c": Categorical(["a", "b"])})
    seen = optimised(ready(space), lambda config: config["n"] + config["o"], 20)
    configs = [tuple(config.values()) for config, _ in seen]
    assert len(set(configs[:16])) == 16
    assert all(config is not None for config in configs[16:])


@pytest.mark.slow
def test_a_large_discrete_space_is_not_asked_twice():
    space = Space({name: Integer(0, 20) for name in "abc"})
    seen = optimised(ready(space), lambda config: sum(config.values()), 40)
    assert len({tuple(config.values()) for config, _ in seen}) == 40
    assert min(loss for _, loss in seen) == 0


# -- failures ------------------------------------------------------------------------------------


def beside_a_failing_region(seed, outcome):
    """Where the last 24 of 40 trials failed, and the best loss; the bowl's bottom is at 0.3."""
    searcher, failed = ready(seed=seed), []
    for trial in range(40):
        config = searcher.suggest(trial)
        if config["x"] < 0.4:
            failed += [config["x"]] * (trial >= 16)
            outcome(searcher, trial, config)
        else:
            tell(searcher, trial, config, bowl(config))
    return failed, min(row.loss for row in searcher._evidence.observations.values())


@pytest.mark.slow
def test_a_region_that_fails_is_left_alone():
    """Searchers that ignore failures spend all 24 trials there, and reach 0.07."""
    found = [beside_a_failing_region(seed, fail) for seed in range(5)]
    # The best that is left lies on the edge, which must be found: 9 to 15 of 24 on its wrong side.
    assert median(len(failed) for failed, _ in found) < 18
    assert median(sum(x < 0.35 for x in failed) for failed, _ in found) < 8  # one seed: 0 to 7
    assert median(loss for _, loss in found) < 0.0105  # one seed: 0.01001 to 0.0107; best: 0.01


def test_failures_leave_the_surface_as_it_is():
    clean, failing = told(ready()), told(ready())
    for trial in range(12, 18):
        fail(failing, trial, {"x": 0.3, "y": 0.05 * (trial - 11)})
    grid = np.random.default_rng(2).random((50, 2))
    (before, _), (after, feasibility) = clean._learned(), failing._learned()
    for one, other in zip(
        before.posterior.predict(before.at(grid)),
        after.posterior.predict(after.at(grid)),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-7)
    inside, far = feasibility.log_weight(np.array([[0.3, 0.15], [0.9, 0.9]]))
    assert inside < -100 < math.log(0.6) < far


def test_if_all_trials_fail_it_looks_far_from_them():
    searcher = ready(n_initial_points=4)
    for trial in range(12):
        fail(searcher, trial, {"x": 0.04 * trial, "y": 0.04 * trial})
    suggested = searcher.suggest(12)
    assert abs(suggested["x"] - suggested["y"]) > 0.5


def test_equal_losses_are_no_error():
    searcher = ready()
    seen = optimised(searcher, lambda config: 1.0, 14)
    assert len({tuple(config.values()) for config, _ in seen}) == 14


def test_one_enormous_loss_does_not_hide_the_others():
    searcher = told(ready(), 20)
    tell(searcher, 20, {"x": 0.9, "y": 0.1}, 1e12)
    surrogate, _ = searcher._learned()
    x, y = surrogate.good[0]
    assert bowl({"x": x, "y": y}) < 0.05  # one seed: below 0.036; with the loss as it is: 0.07 up


# -- several resources ---------------------------------------------------------------------------


def test_early_reports_count_before_any_training_is_full():
    searcher, configs = ready(), []
    for trial in range(20):
        configs.append(searcher.suggest(trial))
        tell(searcher, trial, configs[-1], bowl(configs[-1]), resource=3)
    assert min(map(bowl, configs[8:])) < 1e-4 < min(map(bowl, configs[:8]))


def test_full_trainings_overrule_misleading_early_reports():
    """After one unit x = 1 looks best; after nine x = 0 is."""
    searcher = ready(Space({"x": Real(0, 1)}))
    for trial in range(30):
        config = {"x": (trial + 0.5) / 30}
        running = Trial(trial, config, Status.RUNNING, until=9)
        searcher.on_start(trial, config)
        searcher.observe(running, Report(1, (1 - config["x"],), 1 - config["x"]))
        if trial % 3 == 0:
            searcher.observe(running, Report(9, (config["x"],) * 8, config["x"]))
        searcher.on_end(running._replace(status=Status.STOPPED))
    assert searcher.suggest(30)["x"] < 0.1


def test_a_configuration_that_changes_in_mid_life_is_credited_with_its_own_losses():
    searcher = ready(Space({"x": Real(0, 1)}))
    trial = Trial(0, {"x": 0.2}, Status.RUNNING, until=1)
    searcher.on_start(0, trial.config)
    searcher.observe(trial, Report(1, (5.0,), 5.0))
    searcher.observe(trial._replace(config={"x": 0.8}), Report(3, (9.0, 7.0), 5.0))
    rows = [(row.unit, row.resource, row.loss) for row in searcher._evidence.observations.values()]
    assert rows == [((0.2,), 1, 5.0), ((0.8,), 3, 7.0)]


def test_a_model_keeps_to_its_largest_size():
    searcher = told(ready(), 450)
    searcher.suggest(450)
    assert len(searcher._learned()[0].posterior._data) == 400


def test_a_suggestion_is_made_on_one_thread_of_blas_and_leaves_the_others(monkeypatch):
    def n_threads():
        return {lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"}

    def fitted(*arguments):
        meanwhile.update(n_threads())
        return fit(*arguments)

    searcher, meanwhile = told(ready()), set()
    monkeypatch.setattr("daskhpo.searchers.gp.surrogate.fit", fitted)
    with threadpool_limits(2):
        searcher.suggest(12)
        assert meanwhile == {1}
        assert n_threads() == {2}


# -- arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"acq": "UCB"}, "acq='UCB' must be 'EI', 'LCB' or 'PI'"),
        ({"n_initial_points": 0}, "n_initial_points=0 must be at least 1"),
        ({"n_initial_points": 2.5}, "n_initial_points=2.5"),
        ({"kappa": -1.0}, "kappa=-1.0"),
        ({"xi": math.nan}, "xi=nan"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GPSearch(**options)


def test_a_copy_in_mid_study_is_independent():
    searcher = told(ready())
    twin = copy.deepcopy(searcher)
    tell(twin, 12, twin.suggest(12), 5.0)
    assert len(searcher._evidence.observations) == 12
    assert search(ready(Space(a_point_space())), 3)  # constants and all


def a_point_space():
    epochs = a_point()["epochs"]
    return {"lr": Real(1e-4, 1e-1, log=True), "layers": Integer(1, 4), "epochs": epochs}
