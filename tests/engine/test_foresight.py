"""Configurations that would lack memory are set aside before they run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from daskhpo.core.commands import Train
from daskhpo.core.domains import Categorical, Real
from daskhpo.core.errors import InvalidArgument
from daskhpo.core.events import Ended, Enqueued, Launched, SessionStarted, SetAside, SlotsChanged
from daskhpo.core.out_of_memory import MemoryKind, Shortage
from daskhpo.core.space import Space
from daskhpo.core.types import CheckpointPolicy, Limits, PeakMemory, Status
from daskhpo.engine.coordinator import MAX_SET_ASIDE, Coordinator
from daskhpo.engine.foresight import MemoryForesight, check_memory
from daskhpo.engine.records import decode_record, encode_record
from daskhpo.engine.replay import replay
from daskhpo.results.progress import StudyProgress
from daskhpo.results.result import Result
from daskhpo.schedulers import ASHA, FIFO, PBT
from daskhpo.searchers import GridSearch, RandomSearch
from daskhpo.testing.journal import MemoryJournal

DEVICE, HOST = MemoryKind.DEVICE, MemoryKind.HOST
SPACE = Space({"x": Real(0.0, 1.0), "kind": Categorical(["a", "b"])})
GB = 10**9


def foresight(memory_of=None, host=8 * GB, device=0) -> MemoryForesight:
    made = MemoryForesight(SPACE, memory_of)
    made.set_largest(host, device)
    return made


def config(x: float):
    return {"x": x, "kind": "a"}


def trained(n: int, made: MemoryForesight, of: str = "host") -> MemoryForesight:
    """Trials that use one GB, and up to ten times more with a larger x; none of over 6 GB."""
    for number in range(n):
        x = 0.75 * number / n
        made.observe(number, config(x), PeakMemory(**{of: int(GB * 10**x)}))
    return made


# -- what the user says --------------------------------------------------------------------------


def test_what_the_user_says_is_compared_with_the_largest_worker():
    made = foresight(lambda config: config["x"] * 10 * GB)
    assert made.shortage(0, config(0.9)) == Shortage(HOST, 9 * GB, 8 * GB)
    assert made.shortage(1, config(0.8)) is None


def test_of_trials_with_a_gpu_it_is_the_gpus_memory():
    made = foresight(lambda config: config["x"] * 10 * GB, host=GB, device=5 * GB)
    assert made.shortage(0, config(0.9)) == Shortage(DEVICE, 9 * GB, 5 * GB)
    assert made.shortage(1, config(0.4)) is None


def test_of_an_unknown_size_nothing_is_too_large():
    assert foresight(lambda config: 1e30, host=0).shortage(0, config(0.5)) is None


@pytest.mark.parametrize("given", ["8 GB", None, -1, float("nan"), float("inf"), True, [1]])
def test_what_is_no_number_of_bytes_is_refused(given):
    with pytest.raises(InvalidArgument, match="memory= returned"):
        check_memory(lambda config: given, config(0.5))


# -- what is predicted ---------------------------------------------------------------------------


@pytest.mark.parametrize(("of", "kind"), [("host", HOST), ("device", DEVICE)])
def test_what_trials_have_used_predicts_the_others(of, kind):
    made = trained(30, foresight(host=8 * GB, device=8 * GB), of)
    found = made.shortage(99, config(1.0))
    assert (found.of, found.has) == (kind, 8 * GB)
    assert found.needs == pytest.approx(10 * GB, rel=0.1)
    assert made.shortage(99, config(0.8)) is None, "about 6.3 GB"


def test_what_may_just_fit_runs():
    made = trained(30, foresight(host=int(9.9 * GB)))
    assert made.shortage(99, config(1.0)) is None


def test_trials_far_from_what_there_is_say_nothing():
    assert trained(30, foresight(host=40 * GB)).shortage(99, config(1.0)) is None


def test_a_few_trials_say_nothing():
    assert trained(4, foresight()).shortage(99, config(1.0)) is None


# -- in a study ----------------------------------------------------------------------------------


def large(config) -> float:
    return 9 * GB if config["kind"] == "b" else GB


class Listening(RandomSearch):
    """A searcher that notes how trials end."""

    def __init__(self):
        super().__init__()
        self.ends = {}

    def on_end(self, trial):
        self.ends[trial.id] = trial.status


def asked(desk, memory_of=large, **options):
    """A study whose user knows what configurations need."""
    study = desk(**options)
    study.problem = replace(study.problem, memory_of=memory_of)
    study.journal = MemoryJournal()
    study.coordinator = Coordinator(study.problem, study.journal)
    names = {"num_trials", "fail_fast"} & set(options)
    limits = Limits(**{name: options[name] for name in names})
    study.say(SessionStarted, limits, CheckpointPolicy())
    return study


def n_set_aside(study) -> int:
    return len(study.recorded(SetAside))


def test_a_trial_that_would_lack_memory_is_never_launched(desk):
    study = asked(desk, num_trials=20, searcher=Listening(), fail_fast=True)
    commands = study.say(SlotsChanged, 20, host_memory=8 * GB)
    aside = {record.trial for record in study.recorded(SetAside)}
    launched = {train.trial for train in commands.of(Train)}
    assert aside
    assert launched
    assert aside | launched == set(range(20))
    assert not aside & launched
    assert all(train.config["kind"] == "a" for train in commands.of(Train))
    assert study.coordinator.stop_reason is None, "fail_fast is for trials that ran"
    assert study.coordinator.searcher.ends == dict.fromkeys(aside, Status.FAILED)
    assert study.scheduler.ended == {}, "the scheduler was never told of them"
    reasons = {record.reason for record in study.recorded(Ended)}
    assert reasons == {
        "set aside: needs about 9.0 GB of host memory, and no worker has over 8.0 GB"
    }


def test_a_replay_asks_neither_the_user_nor_a_model(desk):
    study = asked(desk, num_trials=20)
    study.say(SlotsChanged, 3, host_memory=8 * GB)
    for trial in [*study.ledger.trials]:
        study.report(trial, 1, memory=PeakMemory(GB))

    def ask(config):
        raise AssertionError("asked")

    records = [decode_record(encode_record(record)) for record in study.journal.records]
    assert n_set_aside(study)
    again = replay(replace(study.problem, memory_of=ask), records, MemoryJournal())
    assert again.ledger.trials == study.ledger.trials
    assert again.ledger.n_ended == study.ledger.n_ended


def test_a_journal_that_was_cut_off_before_it_is_decided_again(desk):
    study = asked(desk, num_trials=20)
    study.say(SlotsChanged, 20, host_memory=8 * GB)
    records = study.journal.records
    first = next(i for i, record in enumerate(records) if isinstance(record, SetAside))
    for n in (first, first + 1):
        journal = MemoryJournal()
        replay(study.problem, records[:n], journal)
        assert records[:n] + journal.records == records


def test_whoever_reads_the_records_counts_them(desk):
    study = asked(desk, num_trials=20)
    study.say(SlotsChanged, 20, host_memory=8 * GB)
    progress = StudyProgress(study.problem.objective)
    for record in study.journal.records:
        progress.apply(record)
    assert progress.n_set_aside == n_set_aside(study) == progress.counts[Status.FAILED]
    assert progress.n_trials == 20


@pytest.mark.parametrize("onward", [FIFO(9), ASHA(max_t=9)])
def test_one_that_was_set_aside_may_be_run_by_hand(onward, desk):
    study = asked(desk, num_trials=20)
    study.problem = replace(study.problem, scheduler=onward)
    study.coordinator = Coordinator(study.problem, study.journal)
    study.say(SessionStarted, Limits(20), CheckpointPolicy())
    study.say(SlotsChanged, 20, host_memory=8 * GB)
    aside = n_set_aside(study)
    study.say(SessionStarted, Limits(20), CheckpointPolicy(), retry_failed=True)
    study.say(SlotsChanged, 20, host_memory=8 * GB)
    assert n_set_aside(study) == aside
    assert {record.trial for record in study.recorded(Launched)} == set(range(20))


def test_a_configuration_that_a_person_adds_runs(desk):
    study = asked(desk, lambda config: 9 * GB, num_trials=3)
    study.say(Enqueued, config(0.5), "r1")
    commands = study.say(SlotsChanged, 1, host_memory=8 * GB)
    assert commands.only(Train).config == config(0.5)


def test_a_study_in_which_nothing_fits_ends(desk):
    study = asked(desk, lambda config: 9 * GB, num_trials=5)
    study.say(SlotsChanged, 1, host_memory=8 * GB)
    assert n_set_aside(study) == 5
    assert study.coordinator.is_over
    study = asked(desk, lambda config: 9 * GB, searcher=GridSearch(4))
    study.say(SlotsChanged, 1, host_memory=8 * GB)
    assert study.coordinator.is_over


def test_one_of_many_in_a_row_runs_all_the_same(desk):
    study = asked(desk, lambda config: 9 * GB, num_trials=100)
    study.say(SlotsChanged, 2, host_memory=8 * GB)
    launched = [record.trial for record in study.recorded(Launched)]
    assert launched == [MAX_SET_ASIDE, 2 * MAX_SET_ASIDE + 1]
    study.failed(launched[0])
    assert study.recorded(Launched)[-1].trial == 3 * MAX_SET_ASIDE + 2


def test_a_population_has_all_its_members(desk):
    study = asked(desk, lambda config: 9 * GB, num_trials=4)
    scheduler = PBT(9, 3, ["x"])
    study.problem = replace(study.problem, scheduler=scheduler)
    study.coordinator = Coordinator(study.problem, study.journal)
    study.say(SessionStarted, Limits(4), CheckpointPolicy())
    commands = study.say(SlotsChanged, 4, host_memory=8 * GB)
    assert len(commands.of(Train)) == 4


def test_the_journal_has_sizes_only_where_they_are_known():
    assert "memory" not in encode_record(SlotsChanged(2, 1.0))
    line = encode_record(SlotsChanged(2, 1.0, "", 8, 9))
    assert decode_record(line) == SlotsChanged(2, 1.0, "", 8, 9)
    aside = SetAside(3, DEVICE, 9, 8, 1.0)
    assert encode_record(aside) == (
        '{"record":"set aside","seconds":1.0,"trial":3,"of":"device","needs":9,"has":8}'
    )
    assert decode_record(encode_record(aside)) == aside


def test_its_figures_are_in_the_result(desk):
    study = asked(desk, num_trials=20)
    study.say(SlotsChanged, 20, host_memory=8 * GB)
    result = Result(study.journal.records, study.problem.objective)
    assert result.num_set_aside == n_set_aside(study)
    assert set(result.trials().status) == {"failed", "running"}
