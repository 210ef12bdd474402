from __future__ import annotations

import re
from collections import Counter
from math import ceil

import pytest

from daskhpo.core.domains import Categorical, Integer, Ordinal, Real
from daskhpo.core.events import Exploited, Failed, Launched, Reported
from daskhpo.core.scheduler import Scheduler
from daskhpo.core.space import Space
from daskhpo.core.types import (
    CheckpointRef,
    Continue,
    Exploit,
    Pause,
    Report,
    Resume,
    Start,
    Status,
    Stop,
    Trial,
    Wait,
)
from daskhpo.schedulers import PBT
from daskhpo.schedulers.pbt import MAX_FAILURES
from daskhpo.testing.driver import (
    EVERYTHING_GOES_WRONG,
    Driver,
    Mishaps,
    a_report,
    noisy_curve,
)
from daskhpo.testing.scheduler import SchedulerContract, drive

SPACE = Space({"lr": Real(1e-4, 1e-1, log=True), "batch": Ordinal([16, 32, 64]), "kind": "a"})


def a_pbt(**options) -> PBT:
    scheduler = PBT(**{"max_t": 20, "perturbation_interval": 5, "mutations": ["lr"]} | options)
    scheduler.setup(SPACE, 0)
    return scheduler


class Contract(SchedulerContract):
    def test_no_trial_reports_twice_at_a_resource(self, make):
        study = drive(make(), mishaps=EVERYTHING_GOES_WRONG)
        lives: Counter[int] = Counter()  # with each state that it takes over it begins another one
        reports = set()
        for record in study.records:
            match record:
                case Exploited(number):
                    lives[number] += 1
                case Reported(number, steps=steps):
                    report = (number, lives[number], steps[-1].resource)
                    assert report not in reports
                    reports.add(report)
        assert max(lives.values()) > 0

    def test_a_lost_trial_changes_no_outcome_on_one_worker(self, make):
        calm = drive(make(), n_workers=1)
        stormy = drive(make(), n_workers=1, mishaps=Mishaps(lost=0.3))  # but not its state
        assert stormy.reached == calm.reached
        assert stormy.ended == calm.ended


class TestAsynchronous(Contract):
    @pytest.fixture
    def make(self):
        return a_pbt


class TestSynchronous(Contract):
    @pytest.fixture
    def make(self):
        return lambda: a_pbt(synchronous=True)


class Members:
    """A population whose members report as they are told; the scheduler's words are checked."""

    def __init__(self, n: int, **options) -> None:
        self.scheduler = a_pbt(**options)
        self.trials: dict[int, Trial] = {}
        self.n = n
        self.row = 0

    def start(self) -> None:
        for number in range(self.n):
            assert self.ask(can_start=True) == Start(until=5)
            config = {"lr": 0.01 * (number + 1), "batch": 32, "kind": "a"}
            self.trials[number] = Trial(number, config, Status.RUNNING, until=5, attempt=1)
            self.scheduler.on_launch(self.trials[number])

    def ask(self, can_start: bool = False):
        return self.scheduler.next_action(self.trials, can_start)

    def report(self, number: int, loss: float, held: bool = True):
        trial = self.trials[number]
        decision = self.scheduler.on_report(
            trial._replace(resource=trial.until), a_report(trial.until, loss)
        )
        self.row += 1
        ref = CheckpointRef(self.row, number, trial.until) if held else trial.held
        match decision:
            case Continue(until, keep):
                new = trial._replace(
                    resource=trial.until, until=until, held=ref if keep else trial.held
                )
            case Pause():
                new = trial._replace(resource=trial.until, status=Status.PAUSED, held=ref)
            case Stop():
                new = None
        if new is None:
            del self.trials[number]
            self.scheduler.on_end(trial._replace(status=Status.COMPLETED))
        else:
            self.trials[number] = new
        return decision

    def carry_out(self, action):
        match action:
            case Exploit(number, source, config):
                state = self.trials[source].newest
                self.trials[number] = self.trials[number]._replace(
                    config=config, held=state, resource=state.resource
                )
                self.scheduler.on_exploit(self.trials[number], source)
            case Resume(number, until):
                self.trials[number] = self.trials[number]._replace(
                    status=Status.RUNNING, until=until
                )
                self.scheduler.on_launch(self.trials[number])
        return action

    def resume_all(self):
        actions = []
        while not isinstance(action := self.carry_out(self.ask()), Wait):
            actions.append(action)
        return actions


def test_all_come_to_the_first_ranking_before_anybody_goes_on():
    members = Members(4)
    members.start()
    for number, loss in enumerate([0.4, 0.1, 0.2, 0.3]):
        members.report(number, loss)
    actions = members.resume_all()
    resumed = [action.trial for action in actions if isinstance(action, Resume)]
    assert sorted(resumed) == [0, 1, 2, 3]


def test_the_worst_take_over_from_the_best():
    members = Members(8)
    members.start()
    decisions = {n: members.report(n, loss=0.1 * (n + 1)) for n in range(8)}
    assert decisions[7] == Pause(keep=False)  # its own state is of no use
    exploits = [action for action in members.resume_all() if isinstance(action, Exploit)]
    assert {exploit.source for exploit in exploits} <= {0, 1}
    assert 7 in {exploit.trial for exploit in exploits}
    for exploit in exploits:
        assert members.trials[exploit.trial].held.trial == exploit.source


def ranked(members: Members) -> None:
    """Bring everybody past the first ranking, with losses in the order of their numbers."""
    members.start()
    for number in range(members.n):
        members.report(number, loss=1.0 + number)
    members.resume_all()


def test_who_is_not_among_the_worst_trains_on_and_the_best_leave_a_state():
    members = Members(8)
    ranked(members)
    assert members.report(0, loss=0.1) == Continue(15, keep=True)
    middle = members.report(3, loss=3.5)
    assert middle == Continue(15, keep=False)


def test_who_waits_for_a_slot_gets_the_one_of_who_reports_next():
    members = Members(4)
    ranked(members)
    assert members.report(3, loss=9.0) == Pause(keep=False)
    exploit = members.carry_out(members.ask())
    assert isinstance(exploit, Exploit)
    assert members.report(0, loss=0.5) == Pause()  # 3 waits
    assert members.ask() == Resume(3, members.trials[3].resource // 5 * 5 + 5)


def test_a_member_whose_state_is_not_that_of_its_newest_report_is_not_exploited():
    members = Members(4)
    members.start()
    for number in range(4):
        members.report(number, loss=1.0 + number)
    members.trials = {n: trial._replace(held=None) for n, trial in members.trials.items()}
    assert all(isinstance(action, Resume) for action in members.resume_all())


@pytest.mark.parametrize(("resource", "is_near"), [(10, True), (15, False)])
def test_one_that_is_more_than_an_interval_behind_is_not_exploited(resource, is_near):
    members = Members(4)
    ranked(members)  # the best has a state at 5
    members.trials[3] = members.trials[3]._replace(until=resource)
    members.report(3, loss=9.0)
    action = members.ask()
    assert action.trial == 3
    assert isinstance(action, Exploit) is is_near


def test_one_whose_state_is_older_than_its_report_is_not_exploited():
    members = Members(4)
    ranked(members)
    assert members.report(0, loss=0.1, held=False) == Continue(15, keep=True)
    members.report(3, loss=9.0)
    assert members.ask() == Resume(3, until=15)


def test_until_it_reports_again_who_took_over_another_state_is_not_ranked():
    members = Members(4)
    ranked(members)
    members.report(3, loss=9.0)
    assert isinstance(members.carry_out(members.ask()), Exploit)
    assert members.report(2, loss=3.0) == Pause(keep=False)  # now the worst


def test_who_is_exploited_depends_on_the_seed_alone():
    def sources(seed):
        members = Members(8)
        members.scheduler.setup(SPACE, seed)
        members.start()
        for number in range(8):
            members.report(number, loss=1.0 + number)
        return [action.source for action in members.resume_all() if isinstance(action, Exploit)]

    assert sources(3) == sources(3)
    assert {source for seed in range(10) for source in sources(seed)} == {0, 1}
    assert len({tuple(sources(seed)) for seed in range(10)}) > 1


def explore(scheduler, member, config, row=0):
    """What a member would try that takes over another one's state and configuration."""
    ref = CheckpointRef(row, 99, 5)
    source = Trial(99, config, Status.PAUSED, until=5, resource=5, attempt=1, held=ref)
    return scheduler._explored(member, source)


def took_over(scheduler, member, config, row=0):
    ref = CheckpointRef(row, 99, 5)
    trial = Trial(member, config, Status.PAUSED, until=5, resource=5, attempt=1, held=ref)
    scheduler.on_exploit(trial, source=99)


def test_no_two_go_on_from_one_state_with_one_configuration():
    scheduler = a_pbt(mutations=["lr"])
    config = {"lr": 0.01, "batch": 32, "kind": "a"}
    rates = [0.01]
    for member in range(12):
        new = explore(scheduler, member, config)
        assert new["lr"] not in rates
        rates.append(new["lr"])
        took_over(scheduler, member, new)
    assert {0.8 * 0.01, 1.2 * 0.01} <= set(rates)
    first = [explore(a_pbt(), member, config) for member in range(12)]
    later = [explore(scheduler, member + 12, config, row=1) for member in range(12)]
    assert {c["lr"] for c in later} & set(rates)  # from another state all may be tried again
    assert len({c["lr"] for c in first}) < 12


def test_at_a_bound_nobody_becomes_the_copy_of_its_source():
    scheduler = a_pbt()
    for member in range(50):
        assert explore(scheduler, member, {"lr": 0.1, "batch": 32, "kind": "a"})["lr"] < 0.1


def test_where_there_is_but_one_other_value_it_is_tried_again():
    space = Space({"kind": Categorical(["a", "b"])})
    scheduler = PBT(20, 5, ["kind"])
    scheduler.setup(space, 0)
    for member in range(5):
        new = explore(scheduler, member, {"kind": "a"})
        assert new["kind"] in ("a", "b")
        took_over(scheduler, member, new)


def test_what_is_drawn_depends_on_the_seed_and_not_on_who_comes_first():
    def explored(seed, order):
        scheduler = PBT(20, 5, ["lr", "batch"])
        scheduler.setup(SPACE, seed)
        configs = {}
        for member in order:
            configs[member] = explore(scheduler, member, {"lr": 0.01, "batch": 32, "kind": "a"})
        return configs

    assert explored(0, [1, 2, 3]) == explored(0, [3, 1, 2])
    assert explored(0, [1]) != explored(1, [1])


def test_explored_values_stay_in_their_domains_and_constants_stay():
    space = Space(
        {
            "lr": Real(1e-4, 1e-1, log=True),
            "layers": Integer(1, 4),
            "batch": Ordinal([16, 32, 64]),
            "kind": Categorical(["a", "b"]),
            "momentum": 0.9,
            "width": Integer(8, 64),
        }
    )
    names = ["lr", "layers", "batch", "kind"]
    scheduler = PBT(20, 5, names)
    scheduler.setup(space, 0)
    config = {"lr": 0.1, "layers": 1, "batch": 64, "kind": "a", "momentum": 0.9, "width": 9}
    seen = Counter()
    for member in range(300):
        new = explore(scheduler, member, config)
        assert all(space.domains[name].contains(new[name]) for name in names)
        assert (new["momentum"], new["width"]) == (0.9, 9)
        assert isinstance(new["layers"], int)
        seen.update((name, new[name]) for name in names if name != "lr")
    assert {value for name, value in seen if name == "layers"} == {1, 2, 3, 4}
    assert {value for name, value in seen if name == "batch"} == {16, 32, 64}
    assert seen["kind", "b"] > seen["kind", "a"]  # only drawing anew gives the same one again


def test_where_nothing_is_drawn_anew_all_move_to_their_neighbours():
    space = Space(
        {"n": Integer(1, 64), "batch": Ordinal([16, 32, 64, 128]), "kind": Categorical([*"abc"])}
    )
    scheduler = PBT(20, 5, list(space), resample_probability=0.0)
    scheduler.setup(space, 0)
    configs = [explore(scheduler, n, {"n": 10, "batch": 64, "kind": "a"}) for n in range(60)]
    assert {config["n"] for config in configs} == {8, 12}
    assert {config["batch"] for config in configs} == {32, 128}
    assert {config["kind"] for config in configs} == {"b", "c"}


def test_a_metric_that_jumps_can_be_ranked_by_its_best_since_the_ranking_before():
    def best_of(compare, *rounds):
        scheduler = a_pbt(compare=compare)
        for resource, losses in zip((5, 10), rounds, strict=False):
            for number, some in enumerate(losses):
                trial = Trial(number, {}, Status.RUNNING, until=resource, attempt=1)
                scheduler.on_report(trial, Report(resource, some, best_loss=0.1))
        return scheduler._quantiles()[0]

    first = [(0.1, 0.9), (0.5, 0.4), (0.6, 0.6), (0.7, 0.7)]
    assert best_of("last", first) == [1]
    assert best_of("best", first) == [0]
    later = [(0.8, 0.7), (0.5, 0.6), (0.2, 0.9), (0.7, 0.7)]  # 0.1 was another state's
    assert best_of("best", first, later) == [2]


def fail(members: Members, number: int) -> bool:
    trial = members.trials[number]
    if lives := members.scheduler.on_failure(trial):
        members.trials[number] = trial._replace(status=Status.PAUSED)
    return lives


def test_a_member_that_fails_takes_over_another_ones_state():
    members = Members(4)
    ranked(members)
    members.report(0, loss=0.1)
    assert fail(members, 2)
    exploit = members.carry_out(members.ask())
    assert isinstance(exploit, Exploit)
    assert (exploit.trial, exploit.source) == (2, 0)
    assert members.carry_out(members.ask()) == Resume(2, until=15)


def test_a_member_that_goes_on_failing_is_given_up():
    members = Members(4)
    ranked(members)
    members.report(0, loss=0.1)
    for _ in range(MAX_FAILURES):
        assert fail(members, 2)
        members.resume_all()
    assert not fail(members, 2)


def test_failures_count_only_as_long_as_nothing_is_reported():
    members = Members(4)
    ranked(members)
    members.report(0, loss=0.1)
    for _ in range(MAX_FAILURES + 2):
        assert fail(members, 2)
        members.resume_all()
        members.report(2, loss=1.5)


def test_a_member_that_is_set_back_behind_its_configuration_takes_over_another_ones_state():
    members = Members(4)
    ranked(members)
    members.report(0, loss=0.1)
    trial = members.trials[2]._replace(resource=0, held=None)
    assert members.scheduler.on_rollback(trial)
    members.trials[2] = trial._replace(status=Status.PAUSED)
    action = members.ask()
    assert isinstance(action, Exploit)
    assert (action.trial, action.source) == (2, 0)


@pytest.mark.parametrize("n", [2, 4])
def test_who_fails_before_there_is_any_state_waits_for_the_first_one(n):
    """On its own it would fail again, and be given up before the others have come that far."""
    members = Members(n)
    members.start()
    assert fail(members, 1)
    assert members.ask() == Wait()
    assert members.report(0, loss=0.1) == Pause()
    exploit = members.carry_out(members.ask())
    assert isinstance(exploit, Exploit)
    assert (exploit.trial, exploit.source) == (1, 0)
    assert members.carry_out(members.ask()) == Resume(1, until=10)


def test_who_fails_while_nobody_trains_tries_again_by_itself():
    members = Members(1)
    members.start()
    assert fail(members, 0)
    assert members.carry_out(members.ask()) == Resume(0, until=5)


@pytest.mark.parametrize("synchronous", [False, True])
@pytest.mark.parametrize("n_workers", [1, 3, 8])
@pytest.mark.parametrize("seed", range(3))
def test_a_member_that_always_fails_with_its_own_configuration_trains_to_the_end(
    synchronous, n_workers, seed
):
    class Failing(Driver):
        def fails(self, number, until):
            return number == 0 and not self.trials[0].since  # it has exploited nobody yet

    scheduler = a_pbt(synchronous=synchronous)
    study = Failing(scheduler, noisy_curve(seed), 8, n_workers, seed).run()
    assert study.ended[0] == (Status.COMPLETED, 20)


def test_failing_members_of_a_study_are_rescued_as_often_as_was_said():
    study = drive(a_pbt(), mishaps=Mishaps(fails=0.1), num_trials=12)
    rescued = Counter(r.trial for r in study.records if isinstance(r, Failed) and r.paused)
    for number, (status, _) in study.ended.items():
        assert status is Status.COMPLETED or rescued[number] >= MAX_FAILURES
    completed = {n for n, (status, _) in study.ended.items() if status is Status.COMPLETED}
    assert completed & set(rescued)


@pytest.mark.parametrize("n_workers", [1, 2, 5, 12, 30])
def test_a_population_larger_than_the_cluster_is_trained_in_turns(n_workers):
    study = drive(a_pbt(), num_trials=12, n_workers=n_workers)
    assert all(ended == (Status.COMPLETED, 20) for ended in study.ended.values())
    assert any(isinstance(record, Exploited) for record in study.records)
    reached = dict.fromkeys(range(12), 0)
    for number, resource in study.reports:
        reached[number] = resource
        if n_workers == 1:  # nobody is two rankings ahead of another one
            assert max(reached.values()) - min(reached.values()) <= 10


@pytest.mark.parametrize("n_workers", [1, 2, 5, 12])
@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_in_step_the_worst_of_all_exploit_the_best_of_all_however_few_the_slots(
    n_workers, fraction
):
    study = drive(
        a_pbt(max_t=10, synchronous=True, quantile_fraction=fraction),
        num_trials=12,
        n_workers=n_workers,
    )
    curve = noisy_curve(0)
    ranked = sorted(range(12), key=lambda number: curve(number, 5))
    n = ceil(12 * fraction)
    exploits = [record for record in study.records if isinstance(record, Exploited)]
    assert sorted(exploit.trial for exploit in exploits) == sorted(ranked[12 - n :])
    assert {exploit.source for exploit in exploits} <= set(ranked[:n])


@pytest.mark.parametrize("n_workers", [1, 2, 5, 12, 30])
def test_in_step_nobody_goes_on_before_all_were_ranked(n_workers):
    study = drive(a_pbt(synchronous=True), num_trials=12, n_workers=n_workers)
    at = dict.fromkeys(range(12), 0)
    for record in study.records:
        match record:
            case Reported(number, steps=steps):
                at[number] = steps[-1].resource
            case Launched(until=until):
                assert min(at.values()) >= until - 5
    assert all(ended == (Status.COMPLETED, 20) for ended in study.ended.values())
    exploits = [record for record in study.records if isinstance(record, Exploited)]
    assert len(exploits) == 3 * 3  # a quarter of 12, at 5, 10 and 15


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"perturbation_interval": 20}, ValueError, "below max_t=20"),
        ({"perturbation_interval": 2.0}, TypeError, "must be an int"),
        ({"quantile_fraction": 0.6}, ValueError, "must be above 0 and at most 0.5"),
        ({"resample_probability": -0.1}, ValueError, "must be between 0 and 1"),
        ({"mutations": "lr"}, TypeError, "such as ['lr']"),
        ({"mutations": []}, TypeError, "names of hyperparameters"),
        ({"mutations": {"lr": 0.1}}, TypeError, "must be a domain"),
        ({"mutations": ["lr", "depth"]}, ValueError, "'depth' is not in the space"),
        ({"mutations": ["kind"]}, ValueError, "'kind' is a constant"),
        ({"compare": "first"}, ValueError, "'last' or 'best'"),
    ],
)
def test_what_makes_no_sense_is_refused(options, error, words):
    with pytest.raises(error, match=re.escape(words)):
        a_pbt(**options)


def test_a_constant_changes_if_its_domain_is_given():
    scheduler = PBT(20, 5, {"lr": Real(0.1, 1)})
    scheduler.setup(Space({"lr": 0.5, "x": Real(0, 1)}), seed=0)
    assert scheduler.mutates == ("lr",)
    with pytest.raises(ValueError, match="'lr' is a constant"):
        PBT(20, 5, ["lr"]).setup(Space({"lr": 0.5, "x": Real(0, 1)}), seed=0)
    with pytest.raises(ValueError, match="values that are not ints, but lr is 3"):
        scheduler.setup(Space({"lr": 3, "x": Real(0, 1)}), seed=0)


@pytest.mark.parametrize("own", [Real(1, 64), Ordinal([16, 32.5]), Categorical(["many", "few"])])
def test_ints_of_the_space_do_not_become_anything_else(own):
    with pytest.raises(ValueError, match=r"mutations\['batch'\]=.* not ints, but batch is Ordinal"):
        a_pbt(mutations={"batch": own})
    a_pbt(mutations={"batch": Integer(1, 64)})
    a_pbt(mutations={"lr": Ordinal([0, 1])})  # but what is a float may be a whole one


def test_mutations_may_have_domains_of_their_own():
    scheduler = PBT(20, 5, {"lr": Real(1e-3, 1e-2)}, resample_probability=1.0)
    scheduler.setup(SPACE, 0)
    values = {explore(scheduler, n, {"lr": 0.05, "batch": 16})["lr"] for n in range(20)}
    assert all(1e-3 <= value <= 1e-2 for value in values)
    assert isinstance(scheduler, Scheduler)
