"""Settings of ``jobqueue.yaml``, for what a call leaves open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from daskhpo.core.arguments import check_lines, shown
from daskhpo.core.errors import InvalidArgument

SHIPPED = {  # dask-jobqueue's own settings, which no user chose
    "death-timeout": 60,
    "name": "dask-worker",
    "worker-command": "distributed.cli.dask_worker",
}
FORMER = {  # former names of settings, which dask-jobqueue still reads
    "job-extra-directives": "job-extra",
    "job-script-prologue": "env-extra",
    "worker-extra-args": "extra",
    "job-directives-skip": "header-skip",
}
# options of daskhpo's workers that worker_extra_args may give; True: a value follows
WORKER_OPTIONS = {
    "--nthreads": True,
    "--memory-limit": True,
    "--death-timeout": True,
    "--local-directory": True,
    "--interface": True,
    "--protocol": True,
}


def configured(name: str, section: str = "slurm") -> Any:
    """Return a setting of ``jobqueue.yaml``; None: it is not set.

    Parameters
    ----------
    name : its name there, such as ``"job-extra-directives"``.
    section : the part of the file: ``config_name=`` of dask-jobqueue.
    """
    import dask  # reads the file

    for key in (name, FORMER.get(name, name)):
        value = dask.config.get(f"jobqueue.{section}.{key}", None)
        if value is not None and value != [] and value != {} and value != SHIPPED.get(name):
            return value
    return None


def configured_lines(name: str, section: str = "slurm") -> list[str]:
    """Return a setting that is a list of lines; empty: it is not set.

    Raises
    ------
    InvalidArgument : it is something else.
    """
    value = configured(name, section)
    return [] if value is None else check_lines(f"{name} of jobqueue.yaml", value, multiline=True)


def check_worker_arguments(given: Any) -> list[str]:
    """Return more arguments of the workers, which daskhpo's workers must know.

    Raises
    ------
    InvalidArgument : one of them is an option of ``dask worker`` alone.
    """
    lines = check_lines("worker_extra_args", given)
    words = [word for line in lines for word in line.split()]
    for word in words:
        option, _, _ = word.partition("=")
        if option.startswith("--") and option not in WORKER_OPTIONS:
            known = ", ".join(WORKER_OPTIONS)
            hint = "" if "lifetime" not in option else " (they leave before their job ends anyway)"
            raise InvalidArgument(
                f"worker_extra_args={shown(lines)}: daskhpo's workers have no {option}{hint}; they "
                f"have {known}. If it stands in jobqueue.yaml, give worker_extra_args=[]"
            )
    return lines


def check_skipped(given: Any, kept: Sequence[str]) -> list[str]:
    """Return texts whose lines dask-jobqueue leaves out of a job's script.

    Parameters
    ----------
    kept : lines of the script that must stay.

    Raises
    ------
    InvalidArgument : one of them would leave out what daskhpo counts on.
    """
    lines = check_lines("job_directives_skip", given)
    for text in lines:
        for line in kept:
            if text in line:
                raise InvalidArgument(
                    f"job_directives_skip={shown(lines)}: {text!r} would leave out {line!r}, by "
                    "which daskhpo counts the time of its jobs"
                )
    return lines
