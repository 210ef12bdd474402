"""What ``slurm_cluster`` refuses before anything is submitted, and how it loads what it needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from daskhpo.cluster.directives import check_directives
from daskhpo.cluster.job_shape import JobShape
from daskhpo.cluster.security import check_private
from daskhpo.cluster.slurm import _directives, slurm_cluster


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ({"jobs": 0}, ValueError, "jobs=0 must be at least 1"),
        ({"gpus_per_job": -1}, ValueError, "gpus_per_job=-1"),
        ({"trials_per_gpu": 0.5}, ValueError, "trials_per_gpu=0.5"),
        ({"processes": 4}, ValueError, "processes=4 is for jobs without GPUs"),
        ({"gpus_per_job": 0, "processes": 0}, ValueError, "processes=0"),
        ({"gpus_per_job": 4, "cores": 2}, ValueError, "cores=2 must be at least 4"),
        ({"gpus_per_trial": 2, "trials_per_gpu": 2}, ValueError, "have several GPUs, or share"),
        ({"gpus_per_trial": 2, "gpus_per_job": 3}, ValueError, "=3 must be a multiple of .*=2"),
        ({"gpus_per_trial": 2, "gpus_per_job": 0}, ValueError, "=0 must be a multiple of"),
        ({"nodes_per_trial": 2, "gpus_per_job": 4}, ValueError, "give gpus_per_trial=4"),
        ({"nodes_per_trial": 2, "gpus_per_trial": 3}, ValueError, "must be a multiple of nodes_"),
        (
            {"nodes_per_trial": 2, "gpus_per_job": 0, "processes": 2},
            ValueError,
            "this one would have 2: .*no processes=",
        ),
        ({"walltime": "soon"}, ValueError, "walltime='soon' is not understood"),
        ({"walltime": "30"}, ValueError, "may mean minutes or seconds"),
        ({"max_gpu_hours": 0}, ValueError, "max_gpu_hours=0 must be above 0"),
        ({"idle_timeout": "never"}, ValueError, "idle_timeout='never'"),
        ({"n_workers": 3}, TypeError, "does not take n_workers=: give jobs="),
        ({"asynchronous": True}, TypeError, "does not take asynchronous="),
        ({"job_extra_directives": "-C gpu"}, TypeError, "must be a list of lines"),
        ({"job_extra_directives": ["-t 5"]}, ValueError, "'-t 5' cannot be given: give walltime="),
        ({"job_extra_directives": ["-G 2"]}, ValueError, "give gpus_per_job=2"),
        ({"worker_extra_args": ["--lifetime 50m"]}, ValueError, "have no --lifetime .they leave"),
        ({"worker_extra_args": ["--preload=x"]}, ValueError, "have no --preload"),
        ({"job_directives_skip": ["-t"]}, ValueError, "'-t' would leave out '#SBATCH -t 0-00:30"),
        ({"job_directives_skip": ["-J daskhpo"]}, ValueError, "would leave out '#SBATCH -J"),
        (
            {"interface": "ib99"},
            ValueError,
            "interface='ib99' is not one of this machine's interfaces: .*lo",
        ),
    ],
)
def test_what_cannot_be_is_refused(
    words: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    usual = {
        "jobs": 1,
        "cores": 4,
        "memory": "1GB",
        "log_directory": str(tmp_path / "logs"),
        "shared_temp_directory": str(tmp_path),
    }
    with pytest.raises(error, match=message):
        slurm_cluster(**usual | words)  # type: ignore[arg-type]
    assert not list(tmp_path.glob("tls-*"))


@pytest.mark.parametrize(
    "line", ["-G 1", "--gpus=1", "--gres=gpu:a100:1", "--gpus-per-task=1", "--gpus-per-node 4"]
)
def test_a_directive_that_asks_for_gpus_replaces_ours(line: str, tmp_path: Path) -> None:
    given = check_directives(["-C gpu", f"#SBATCH {line}"])
    lines = _directives(given, JobShape(1, 1, 1, 1, 1), tmp_path, "w")
    assert lines[1:] == ["--no-requeue", "-C gpu", line]
    several = _directives([], JobShape(8, 1, 8, 2, 1), tmp_path, "w")
    assert several[1:] == ["--nodes=2", "--ntasks-per-node=1", "--gres=gpu:4", "--no-requeue"]
    assert "--gres=gpu:2" in _directives(["-C gpu"], JobShape(2, 1, 1, 1, 2), tmp_path, "w")


def test_requeue_is_the_users_choice_and_a_path_may_have_blanks(tmp_path: Path) -> None:
    log, requeue = _directives(
        ["--requeue"], JobShape(0, 1, 1, 1, 1), tmp_path / "my 100% logs", "w"
    )
    assert log == f'--output="{tmp_path}/my 100%% logs/w-%j.log"'
    assert requeue == "--requeue"


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def test_importing_the_package_of_clusters_loads_none_of_them() -> None:
    code = "import sys, daskhpo.cluster; print('distributed' in sys.modules)"
    assert run(code).strip() == "False"


def test_control_c_is_left_as_it_was() -> None:
    code = """
import signal
from daskhpo.cluster.job_shape import JobShape
from daskhpo.cluster.slurm import cluster_class
mine = lambda *_: None
signal.signal(signal.SIGINT, mine)
assert cluster_class().__mro__[1].__name__ == "SLURMCluster"
print(signal.getsignal(signal.SIGINT) is mine)
"""
    assert run(code).strip() == "True"


def test_in_a_thread_it_says_what_to_do() -> None:
    code = """
import threading
from daskhpo.cluster.job_shape import JobShape
from daskhpo.cluster.slurm import cluster_class
def call():
    try:
        cluster_class()
    except RuntimeError as error:
        print(error)
thread = threading.Thread(target=call)
thread.start()
thread.join()
"""
    assert "`import dask_jobqueue` there first" in run(code)


def test_a_folder_that_others_may_look_into_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with pytest.raises(PermissionError, match=r"has mode 755.*`chmod go="):
        check_private(tmp_path, "storage=")
    tmp_path.chmod(0o700)
    check_private(tmp_path, "storage=")
