"""The kernel's counters of processes that it killed for want of memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from daskhpo.executors.dask.oom_kills import MACHINE, kill_counter, read_kills


@pytest.fixture
def machine(tmp_path: Path):
    """Makes a machine of files, and returns the counter of its process relative to the root."""

    def make(cgroup: str, **files: str) -> str:
        process = tmp_path / "proc/self"
        process.mkdir(parents=True)
        (process / "cgroup").write_text(cgroup)
        for name, text in files.items():
            path = tmp_path / "sys/fs/cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return kill_counter(process, tmp_path).removeprefix(f"{tmp_path}/sys/fs/cgroup/")

    return make


V1 = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"
V2 = "low 0\nhigh 0\nmax 4\noom 3\noom_kill 2\noom_group_kill 0\n"


def test_version_two(machine):
    step = "system.slice/slurmstepd.scope/job_7/step_0"
    found = machine(f"0::/{step}\n", **{f"{step}/memory.events": V2, "memory.events": V2})
    assert found == f"{step}/memory.events"


def test_version_one(machine):
    found = machine(
        "4:memory:/slurm/job_7\n0::/\n", **{"memory/slurm/job_7/memory.oom_control": V1}
    )
    assert found == "memory/slurm/job_7/memory.oom_control"


def test_a_container_sees_its_own_group_as_the_root(machine):
    assert machine("0::/\n", **{"memory.events": V2}) == "memory.events"


def test_a_container_may_not_see_the_path_of_its_group(machine):
    found = machine("4:cpu,memory:/docker/abc\n", **{"memory/memory.oom_control": V1})
    assert found == "memory/memory.oom_control"


@pytest.mark.parametrize("cgroup", ["", "0::/\n", "4:memory:/gone\n"])
def test_without_a_group_the_machine_counts(cgroup, machine):
    assert machine(cgroup) == MACHINE


def test_a_counter_is_read(tmp_path):
    path = tmp_path / "memory.events"
    path.write_text(V2)
    assert read_kills(str(path)) == 2
    path.write_text("oom_kill_disable 0\n")
    assert read_kills(str(path)) is None
    assert read_kills(str(tmp_path / "none")) is None


def test_this_process_has_a_counter():
    assert read_kills(kill_counter()) is not None
