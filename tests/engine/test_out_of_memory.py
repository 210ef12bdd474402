"""Too little memory is an outcome of its own: what follows for the trial, and what is recorded."""

from __future__ import annotations

import json

import pytest

from daskhpo.core.commands import Release, Train
from daskhpo.core.events import (
    Ended,
    Failed,
    Launched,
    Reported,
    SessionStarted,
    Step,
    Suggested,
)
from daskhpo.core.objective import Objective
from daskhpo.core.out_of_memory import Alone, Larger, MemoryKind, OutOfMemory
from daskhpo.core.types import CheckpointPolicy, Continue, Limits, Pause, PeakMemory, Status, Stop
from daskhpo.engine.record_check import RecordChecker
from daskhpo.engine.records import decode_record, encode_record
from daskhpo.results.progress import StudyProgress
from daskhpo.searchers import RandomSearch

FULL = "Traceback\n  File 'a'\nRuntimeError: CUDA out of memory. Tried to allocate 2 GiB"
DEVICE = OutOfMemory(MemoryKind.DEVICE, 80, False)
HOST = OutOfMemory(MemoryKind.HOST, 8, True)


class Listening(RandomSearch):
    """A searcher that notes how trials end."""

    def __init__(self):
        super().__init__()
        self.ends = {}

    def on_end(self, trial):
        self.ends[trial.id] = trial.status


def full(desk, trial, found=DEVICE):
    return desk.failed(trial, FULL, out_of_memory=found)


def test_the_trial_fails_at_once_and_the_searcher_learns_it(desk):
    study = desk(num_trials=3, max_failures=5, searcher=Listening())
    study.slots(1)
    commands = full(study, 0)
    assert commands.only(Release).trial == 0
    assert commands.only(Train).trial == 1, "the slot goes on"
    assert study.ends() == {0: Status.FAILED}
    (end,) = study.recorded(Ended)
    assert (
        end.reason
        == "out of device memory: RuntimeError: CUDA out of memory. Tried to allocate 2 GiB"
    )
    (failed,) = study.recorded(Failed)
    assert failed.out_of_memory == DEVICE
    assert study.coordinator.searcher.ends == {0: Status.FAILED}


def test_it_is_an_outcome_and_does_not_stop_the_study(desk):
    study = desk(num_trials=9, max_failed_trials=2)
    study.slots(1)
    for trial in range(4):
        full(study, trial)
    assert study.coordinator.stop_reason is None


def test_the_first_one_stops_a_study_that_is_to_fail_fast(desk):
    study = desk(num_trials=9, fail_fast=True)
    study.slots(1)
    full(study, 0)
    assert study.coordinator.stop_reason == "trial 0 failed"


def test_it_runs_once_more_alone_and_keeps_to_itself(desk):
    study = desk(num_trials=1, on_oom="retry_alone", answers={(0, 1): Pause()}, policy="never")
    study.slots(1)
    launch = full(study, 0).only(Train)
    assert (launch.trial, launch.launch, launch.placement) == (0, True, Alone(MemoryKind.DEVICE))
    assert study.ledger.trials[0].n_failed == 0
    full(study, 0)
    assert study.ends() == {0: Status.FAILED}
    assert study.recorded(Ended)[0].reason.startswith(
        "out of device memory, also alone on its device: "
    )


def test_a_trial_that_needed_a_slot_alone_has_one_whenever_it_goes_on(desk):
    study = desk(num_trials=1, on_oom="retry_alone")
    study.slots(1)
    full(study, 0)
    study.report(0, 1)
    launch = study.lost(0).only(Train)
    assert launch.placement == Alone(MemoryKind.DEVICE)


def test_it_runs_once_more_where_there_is_more_memory(desk):
    study = desk(num_trials=2, on_oom="larger")
    study.slots(2)
    assert full(study, 0, HOST).only(Train).placement == Larger(MemoryKind.HOST, 8)
    full(study, 1, DEVICE)
    assert study.ends() == {1: Status.FAILED}, "no worker has a larger device"


def test_a_limit_is_the_same_for_a_trial_alone(desk):
    study = desk(num_trials=1, on_oom="retry_alone")
    study.slots(1)
    full(study, 0, OutOfMemory(MemoryKind.LIMIT))
    assert study.ends() == {0: Status.FAILED}


@pytest.mark.parametrize("answer", [Pause(), Stop("enough")])
def test_a_decision_stands_if_its_state_takes_too_much(answer, desk):
    study = desk(num_trials=1, on_oom="retry_alone", policy="end", answers={(0, 1): answer})
    study.slots(1)
    study.report(0, 1)
    assert full(study, 0).of(Train) == []
    if isinstance(answer, Stop):
        assert study.ends() == {0: Status.STOPPED}
    else:
        assert study.status(0) is Status.PAUSED


def test_a_member_of_a_population_takes_over_another_one(desk):
    study = desk(num_trials=2, keeps_failed=True)
    study.slots(1)
    full(study, 0)
    assert study.status(0) is Status.PAUSED
    assert study.recorded(Failed)[0].paused


def test_a_failed_trial_that_runs_again_has_its_one_more_run_again(desk):
    study = desk(num_trials=1, on_oom="retry_alone")
    study.slots(1)
    full(study, 0)
    full(study, 0)
    assert study.ends() == {0: Status.FAILED}
    limits = Limits(1, on_oom="retry_alone")
    study.say(SessionStarted, limits, CheckpointPolicy(), retry_failed=True)
    assert study.slots(1).only(Train).placement is None
    assert full(study, 0).only(Train).placement == Alone(MemoryKind.DEVICE)


def test_an_attempt_that_is_over_says_nothing(desk):
    study = desk(num_trials=1)
    study.slots(1)
    study.lost(0)
    assert study.failed(0, FULL, attempt=1, out_of_memory=DEVICE) == []
    assert study.recorded(Failed) == []


# -- the journal ---------------------------------------------------------------------------------


def test_the_journal_has_it_and_old_lines_stay_as_they_are():
    failed = Failed(0, 1, "x", 1.0, out_of_memory=HOST)
    line = encode_record(failed)
    assert '"out_of_memory":["host",8,true]' in line
    assert decode_record(line) == failed
    old = encode_record(Failed(0, 1, "x", 1.0))
    assert "memory" not in old
    assert decode_record(old).out_of_memory is None


def test_the_journal_has_what_follows_only_if_it_is_not_the_default(desk):
    study = desk(num_trials=1)
    assert "on_oom" not in encode_record(study.journal.records[0])
    study = desk(num_trials=1, on_oom="larger")
    line = encode_record(study.journal.records[0])
    assert decode_record(line).limits == Limits(1, on_oom="larger")


def test_the_peak_of_a_trial_is_in_its_report(desk):
    study = desk(num_trials=1, answers={(0, 1): Continue(2)})
    study.slots(1)
    study.report(0, 1, memory=PeakMemory(5, 7))
    study.report(0, 2)
    first, second = study.recorded(Reported)
    assert (first.memory, second.memory) == (PeakMemory(5, 7), None)
    assert '"memory":[5,7]' in encode_record(first)
    assert "memory" not in encode_record(second)
    assert decode_record(encode_record(first)) == first
    RecordChecker(any_trial=True).check(first)


@pytest.mark.parametrize("memory", [[1, "2"], [1.5, 2], [-9, 0], {"host": []}])
def test_a_peak_that_no_session_writes_is_refused(memory, desk):
    study = desk(num_trials=1)
    study.slots(1)
    study.report(0, 1, memory=PeakMemory(5, 7))
    line = encode_record(study.recorded(Reported)[0]).replace("[5,7]", json.dumps(memory))
    with pytest.raises(ValueError, match="its memory is"):
        RecordChecker(any_trial=True).check(decode_record(line))


def test_a_trial_has_the_most_that_any_of_its_attempts_used():
    progress = StudyProgress(Objective("loss", "min"))
    for record in [
        Suggested(0, {}, 0, 0.0),
        Launched(0, 1, 0, 3, 0.0),
        Reported(0, 1, (Step(1, {"loss": 1.0}, 1.0),), 1.0, memory=PeakMemory(5, 7)),
        Reported(0, 1, (Step(2, {"loss": 1.0}, 2.0),), 2.0),
        Reported(0, 2, (Step(3, {"loss": 1.0}, 3.0),), 3.0, memory=PeakMemory(6, 2)),
    ]:
        progress.apply(record)
    assert progress.trials[0].memory == PeakMemory(6, 7)
