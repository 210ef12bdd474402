"""What ``jobqueue.yaml`` says holds, unless the call says otherwise."""

from __future__ import annotations

from typing import Any

import dask
import pytest

from daskhpo.cluster.site_config import WORKER_OPTIONS, configured, configured_lines
from daskhpo.cluster.slurm import worker_walltime
from daskhpo.core.errors import InvalidArgument
from daskhpo.executors.dask.slurm_worker import _parser


def setting(name: str, value: Any, section: str = "slurm") -> Any:
    return dask.config.set({f"jobqueue.{section}.{name}": value})


@pytest.mark.parametrize(
    "name",
    ["queue", "name", "death-timeout", "worker-command", "scheduler-options", "log-directory"],
)
def test_what_dask_jobqueue_ships_is_nobodys_choice(name: str) -> None:
    assert configured(name) is None


def test_a_setting_is_found_under_its_former_name_too() -> None:
    with setting("job-extra", ["-C gpu"]):
        assert configured_lines("job-extra-directives") == ["-C gpu"]
        with setting("job-extra-directives", ["-q long"]):
            assert configured_lines("job-extra-directives") == ["-q long"]


def test_a_setting_of_another_section_is_another() -> None:
    with setting("queue", "big", section="mysite"):
        assert configured("queue", "mysite") == "big"
        assert configured("queue") is None


def test_a_line_that_is_no_list_is_refused_with_its_place() -> None:
    with (
        setting("job-script-prologue", "module load cuda"),
        pytest.raises(InvalidArgument, match=r"job-script-prologue of jobqueue\.yaml"),
    ):
        configured_lines("job-script-prologue")


@pytest.mark.parametrize(
    ("given", "site", "seconds"),
    [(None, None, 1800), (None, "02:00:00", 7200), ("1h", "02:00:00", 3600), (90, None, 90)],
)
def test_the_walltime_is_that_of_the_call_then_of_the_site(
    given: Any, site: str | None, seconds: float
) -> None:
    with setting("walltime", site):
        assert worker_walltime(given) == seconds


def test_the_options_that_workers_are_said_to_have_are_theirs() -> None:
    options = {name for action in _parser()._actions for name in action.option_strings}
    assert set(WORKER_OPTIONS) <= options
