"""Each row of the page on faults has a test that shows what it says."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/how-to/faults.md"

TESTS = {  # the beginning of a row: tests by name, in tests/ or daskhpo/testing/
    "its code raises": "test_a_trial_that_raises_keeps_its_traceback_and_the_study_goes_on",
    "the first 5 trials all": "test_a_study_stops_when_its_first_trials_fail_by_the_same_error",
    "it calls `sys.exit()`": "test_system_exit_fails_the_trial_and_not_the_worker",
    "its process dies": "test_a_trial_that_kills_its_workers_is_given_up",
    "its device or machine has too little": (
        "test_a_full_device_fails_the_trial_at_once_and_its_process_is_not_used_again"
    ),
    "no worker has the memory": "test_a_trial_that_would_lack_memory_is_never_launched",
    "it trains [in several": "test_a_rank_that_fails_ends_all_at_once",
    "its metric is NaN": "test_a_metric_that_is_not_finite_fails_the_trial_for_good",
    "the study's metric is missing": "test_a_misspelt_metric_ends_the_study_at_the_first_report",
    "its state holds an unsupported": (
        "test_a_state_that_cannot_be_kept_ends_the_study_and_names_the_place"
    ),
    "its function returns early": "test_the_state_of_a_function_that_returned_is_saved",
    "its function returns without": "test_a_function_that_returns_without_a_report_has_failed",
    "its function reports once more": "test_a_stopped_function_ends_whatever_it_catches",
    "its function catches what a wrong": (
        "test_a_report_that_is_wrong_ends_the_study_also_if_the_code_catches_the_error"
    ),
    "`state=` or `save_checkpoint`": (
        "test_what_state_raises_is_the_trials_error_also_if_the_code_would_catch_it"
    ),
    "`setup`, `reset_config`": "test_each_object_that_was_set_up_is_cleaned_up_once",
    "it was resumed, and its function": (
        "test_a_function_that_does_not_look_at_its_state_is_warned_of"
    ),
    "it was resumed, but had given": (
        "test_a_paused_trial_that_trains_again_for_want_of_a_state_is_warned_of_once"
    ),
    "its code does not reach another": "test_a_study_ends_without_code_that_does_not_return",
    "it has spent `trial_time_limit`": (
        "test_a_step_that_hangs_beyond_the_time_limit_ends_its_trial_and_process"
    ),
    "its code runs longer than": (
        "test_a_step_that_hangs_fails_with_its_stack_and_its_process_is_replaced"
    ),
    "its processes use more": "test_a_trial_that_takes_too_much_memory_fails_alone",
    "processes that it started": "test_at_the_end_of_a_trial_all_end",
    "a worker process of the embedded": "test_a_worker_that_was_terminated_is_replaced",
    "with `--one-allocation`, a worker step": "test_a_job_whose_steps_all_fail_ends",
    "an object after `reset_config`": "test_an_object_that_was_not_reset_well_ends_the_study",
    "a worker is lost": "test_a_killed_worker_loses_no_trial",
    "a worker's Slurm job is about": (
        "test_before_its_job_ends_a_trial_hands_over_and_its_worker_retires"
    ),
    "a worker is terminated": "test_on_sigterm_a_trial_hands_over_and_goes_on_elsewhere",
    "a worker retires": "test_a_worker_that_goes_in_good_order_writes_what_it_holds",
    "a job of `slurm_cluster` ends": (
        "test_a_cancelled_job_hands_its_trial_over_and_another_job_comes"
    ),
    "a worker's memory for states": "test_memory_has_a_cap",
    "a worker joins": "test_a_study_waits_while_all_workers_are_gone_and_uses_those_that_come",
    "all workers are gone": (
        "test_a_study_waits_while_all_workers_are_gone_and_uses_those_that_come"
    ),
    "no worker offers the resources": (
        "test_a_resource_that_no_worker_offers_is_named_with_what_they_offer"
    ),
    "a checkpoint cannot be written": (
        "test_a_state_that_cannot_be_written_stays_and_is_written_when_the_disk_is_repaired"
    ),
    "a checkpoint is damaged": "test_a_damaged_checkpoint_makes_its_trial_start_anew",
    "the budget for checkpoints": "test_a_budget_is_kept_and_never_fails_a_study",
    "a worker cannot import": "test_a_worker_that_cannot_load_the_trainable_is_reported",
    "a worker has no daskhpo": "test_a_worker_with_other_software_is_named_and_not_used",
    "a worker offers a GPU": "test_a_worker_that_is_shown_no_gpu_says_so",
    "`idle-timeout` of Dask": "test_an_adaptive_cluster_grows_and_shrinks_with_a_study",
    "a worker process is stopped": "test_a_worker_that_is_stopped_is_killed",
    "a host falls silent": "test_a_host_that_falls_silent_loses_its_trial_to_another",
    "a nanny dies": "test_a_nanny_that_dies_takes_its_worker_along_and_the_study_continues",
    "a scheduler in another process dies": (
        "test_a_scheduler_that_dies_ends_the_study_with_the_way_to_resume"
    ),
    "the Dask cluster is closed": "test_a_cluster_that_is_closed_ends_the_study_with_an_error",
    "Ctrl-C | trials end": "test_control_c_once_stops_cleanly_and_says_how_to_go_on",
    "`daskhpo stop PATH`": "test_a_stop_from_another_process_ends_it",
    "Ctrl-C again": "test_a_second_interrupt_ends_the_command_in_one_line",
    "Ctrl-C while the workers start": (
        "test_control_c_while_workers_start_leaves_neither_noise_nor_processes"
    ),
    "the process is killed": "test_a_killed_coordinator_loses_no_reported_result",
    "the job of a [submitted]": "test_a_head_that_slurm_kills_is_followed_by_the_next_link",
    "your process ends while": (
        "test_a_study_goes_on_after_its_user_has_left_and_each_step_has_a_gpu"
    ),
    "the target is reached": (
        "test_a_time_budget_preempts_trials_and_a_later_session_continues_them"
    ),
    "another user of the machine": "test_nothing_of_a_running_study_opens_to_another_user",
    "a directory from another user": "test_a_file_that_a_directory_names_is_not_run_unasked",
    "a file of the directory is damaged": "test_damaged_studies_give_one_clear_error",
    "two processes run one study": "test_a_second_process_is_refused_and_told_who_holds_it",
    "the lock is taken over": (
        "test_the_holder_notices_that_it_was_succeeded_and_leaves_the_new_lock_alone"
    ),
    "the journal's last line": "test_a_torn_last_line_is_left_out_and_cut_off_by_the_next_writer",
    "the journal is damaged": "test_an_edited_journal_is_refused_and_the_directory_unlocked",
    "the definition of the study": "test_another_study_is_refused_and_both_are_shown",
    "a callback raises": "test_a_callback_that_raises_is_left_out_and_logged_once",
    "a callback does not return": (
        "test_a_callback_that_does_not_return_is_not_waited_for_without_end"
    ),
    "a scheduler or searcher raises": "test_a_part_that_raises_ends_the_study_with_its_error",
}


def rows() -> list[str]:
    lines = [line[2:] for line in PAGE.read_text(encoding="utf-8").splitlines() if line[:2] == "| "]
    cells = [(line, line.split("|")[1].strip()) for line in lines if line.strip("| ")]
    return [
        line
        for line, consequence in cells
        if consequence != "consequence" and not consequence.isdigit()
    ]


@cache
def sources() -> str:
    folders = (ROOT / "tests", ROOT / "daskhpo/testing")
    paths = [path for folder in folders for path in sorted(folder.rglob("*.py"))]
    return "".join(path.read_text(encoding="utf-8") for path in paths)


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[:40])
def test_each_row_has_a_test(row: str) -> None:
    [test] = [test for start, test in TESTS.items() if row.startswith(start)]
    assert f"def {test}(" in sources(), test


def test_each_test_has_a_row() -> None:
    assert [start for start in TESTS if not any(row.startswith(start) for row in rows())] == []
