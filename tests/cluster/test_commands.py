"""Slurm's commands get no option that nobody gave to them."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from daskhpo.cluster.commands import query_environment, submission_environment, user_name
from daskhpo.cluster.shell import (
    CommandError,
    CommandFailed,
    CommandMissing,
    CommandTimedOut,
    call,
    in_thread,
)

OUTER_JOB = {
    "SLURM_JOB_ID": "77",
    "SLURM_GPUS_PER_NODE": "2",
    "SLURM_MEM_PER_CPU": "4000",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_TRES_PER_TASK": "cpu:1",
    "SRUN_CPUS_PER_TASK": "4",
}
ALIASES = {
    "SQUEUE_PARTITION": "debug",
    "SQUEUE_FORMAT": "%i",
    "SACCT_FORMAT": "x",
    "SCANCEL_QOS": "q",
}
SITE = {"SLURM_CONF": "/etc/slurm/slurm.conf", "SLURM_CLUSTERS": "c2", "SLURM_JWT": "token"}
OWN = {f"SBATCH_{name}": "x" for name in ("ACCOUNT", "PARTITION", "QOS", "RESERVATION")}
OTHERS = {"PATH": "/bin", "HOME": "/home/me", "SLURMLIKE": "1", "MY_SLURM_VAR": "2"}


def test_queries_see_no_options_of_others() -> None:
    environ = query_environment(OUTER_JOB | ALIASES | SITE | OTHERS | {"SBATCH_ACCOUNT": "a"})
    assert environ == SITE | OTHERS | {"SLURM_TIME_FORMAT": "standard"}


def test_a_submission_inherits_nothing_of_the_job_around_it() -> None:
    environ = submission_environment(OUTER_JOB | ALIASES | SITE | OTHERS, "#!/bin/sh\n")
    assert environ == SITE | OTHERS


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("", set(OWN)),
        ("#SBATCH -p gpu", {"SBATCH_ACCOUNT", "SBATCH_QOS", "SBATCH_RESERVATION"}),
        ("#SBATCH --account=b -q x", {"SBATCH_PARTITION", "SBATCH_RESERVATION"}),
        (
            "# SBATCH -p gpu",
            {"SBATCH_ACCOUNT", "SBATCH_PARTITION", "SBATCH_QOS", "SBATCH_RESERVATION"},
        ),
    ],
)
def test_a_users_own_choice_holds_unless_the_script_says_otherwise(
    line: str, kept: set[str]
) -> None:
    counted = {f"SBATCH_{name}": "x" for name in ("TIMELIMIT", "JOB_NAME", "ARRAY_INX", "WAIT")}
    assert set(submission_environment(OWN | counted, f"#!/bin/sh\n{line}\ntrue\n")) == kept


def test_the_user_is_the_owner_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    name = user_name()
    monkeypatch.setenv("LOGNAME", "somebody")
    monkeypatch.setenv("USER", "somebody")
    assert user_name() == name != "somebody"


# -- one family of errors ------------------------------------------------------------------------


def program(folder: Path, text: str, mode: int = 0o755) -> list[str]:
    path = folder / "program"
    path.write_text(text)
    path.chmod(mode)
    return [str(path)]


@pytest.mark.parametrize(
    ("text", "mode", "error", "message"),
    [
        ("#!/bin/sh\necho no >&2; exit 3\n", 0o755, CommandFailed, "ended with code 3: no"),
        ("#!/bin/sh\nkill -9 $$\n", 0o755, CommandFailed, "ended with code -9"),
        ("#!/no/such/interpreter\n", 0o755, CommandMissing, "was not found"),
        ("\x7fELF nonsense", 0o755, CommandFailed, "could not be started"),
        ("#!/bin/sh\nsleep 60 & echo half; sleep 60\n", 0o755, CommandTimedOut, "in time: half"),
    ],
)
def test_whatever_goes_wrong_is_a_command_error(
    tmp_path: Path, text: str, mode: int, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as raised:
        call(program(tmp_path, text, mode), timeout=0.3)
    assert isinstance(raised.value, CommandError)


def test_arguments_that_no_program_can_have_are_a_command_error() -> None:
    with pytest.raises(CommandError):
        call(["true", "a" * 5_000_000])
    with pytest.raises(CommandError):
        call(["true", "a\0b"])


def test_bytes_that_are_no_text_are_replaced(tmp_path: Path) -> None:
    argv = program(tmp_path, "#!/bin/sh\nprintf 'Gr\\374\\337e\\n'\n")
    assert call(argv) == "Gr\ufffd\ufffde\n"


def test_a_loop_can_close_while_its_thread_still_runs() -> None:
    go_on, ended = threading.Event(), threading.Event()

    def slow() -> None:
        go_on.wait(30)
        ended.set()

    async def main() -> None:
        task = asyncio.ensure_future(in_thread(slow))
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(main())  # with an executor's thread this would wait for it
    assert not ended.is_set()
    go_on.set()
    assert ended.wait(30)


def test_a_thread_returns_its_result_and_its_error() -> None:
    def fails() -> None:
        raise OSError("no")

    assert asyncio.run(in_thread(len, "abc")) == 3
    with pytest.raises(OSError, match="no"):
        asyncio.run(in_thread(fails))
