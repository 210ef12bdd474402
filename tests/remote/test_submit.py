"""What is checked, and written, before a job is submitted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest

from daskhpo import Study
from daskhpo.atomic_files import write_private
from daskhpo.cluster.security import credentials
from daskhpo.cluster.times import parse_walltime
from daskhpo.core.errors import StudyExists, StudyLocked
from daskhpo.engine.options import RunOptions
from daskhpo.remote.allocation import step_command
from daskhpo.remote.script import controller_job_name, worker_job_name
from daskhpo.remote.submission import (
    ControllerAddress,
    ControllerJob,
    JobDirectory,
    Submission,
    WorkerJobs,
    WorkerSteps,
)
from daskhpo.schedulers import FIFO
from daskhpo.searchers import GridSearch
from daskhpo.space import Real
from daskhpo.study.study import load_source

FILE = """
from daskhpo import Study
from daskhpo.schedulers import ASHA, FIFO
from daskhpo.space import Real

def train(config, trial):
    for n in range(trial.resource, trial.max_t):
        trial.report({"loss": config["x"] + 1 / (n + 1)})

study = Study(train, {"x": Real(0, 1)}, "loss", scheduler=FIFO(3), storage="runs", name="first")
asked = Study(None, {"x": Real(0, 1)}, "loss", scheduler=FIFO(3), storage="runs", name="asked")
"""
WORKERS = {"jobs": 8, "queue": "gpu", "cores": 8, "memory": "32GB", "walltime": "04:00:00"}
HERE = {"gpus_per_job": 2, "cores": 8, "memory": "16GB"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder, in which we are, with a file that defines a study."""
    (tmp_path / "tune.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


@pytest.fixture
def study(folder):
    return load_source("tune.py:study")


def script(study, **words):
    return study.job_script(
        **{"num_trials": 50, "walltime": "12h", "workers": WORKERS, "queue": "cpu"} | words
    )


# -- the script ----------------------------------------------------------------------------------


def test_the_head_is_a_small_job_without_gpus(study, folder):
    text = script(
        study,
        account="m1",
        job_extra_directives=["--constraint=cpu", "#SBATCH --qos=long"],
        job_script_prologue=["module load conda"],
    )
    assert text == textwrap.dedent(
        f"""\
        #!/usr/bin/env bash
        #SBATCH --job-name=daskhpo-first
        #SBATCH --chdir={folder}
        #SBATCH --output={folder}/runs/first/job/%j.log
        #SBATCH --open-mode=append
        #SBATCH --time=0-12:00:00
        #SBATCH --partition=cpu
        #SBATCH --account=m1
        #SBATCH --nodes=1
        #SBATCH --ntasks=1
        #SBATCH --cpus-per-task=2
        #SBATCH --mem=3815M
        #SBATCH --constraint=cpu
        #SBATCH --qos=long
        module load conda
        exec {sys.executable} -m daskhpo.cli.submitted_job {folder}/runs/first
        """
    )
    assert not (folder / "runs").exists(), "a script was asked for, and nothing else"


def test_a_chain_is_an_array_of_which_one_job_runs_at_a_time(study):
    text = script(study, chain=5)
    assert "#SBATCH --array=1-5%1\n" in text
    assert "/job/%A_%a.log\n" in text
    assert "--array" not in script(study)


def test_one_allocation_has_all_that_the_workers_need(study):
    text = script(study, one_allocation=True, workers=HERE | {"jobs": 3})
    for line in ("--nodes=3", "--ntasks-per-node=2", "--cpus-per-task=4", "--gres=gpu:2"):
        assert f"#SBATCH {line}\n" in text
    assert "#SBATCH --mem=15258M\n" in text
    assert "--gres" not in script(
        study, one_allocation=True, workers=HERE | {"gpus_per_job": 0, "processes": 4}
    )


def test_names_and_folders_may_have_blanks(folder):
    (folder / "my dir").mkdir()
    (folder / "my dir" / "tune.py").write_text(FILE.replace('"first"', '"my 1st %study"'))
    text = script(load_source("my dir/tune.py:study"))
    path = f"{folder}/runs/my 1st %study"
    assert f'#SBATCH --output="{path.replace("%", "%%")}/job/%j.log"\n' in text
    assert "#SBATCH --job-name=daskhpo-my_1st__study\n" in text
    assert text.endswith(f" -m daskhpo.cli.submitted_job '{path}'\n")
    assert controller_job_name("a,b") == "daskhpo-a_b"
    assert worker_job_name("a b", "12") == "daskhpo-a_b-workers-12"


def test_a_step_is_a_worker_with_a_gpu_of_its_own(tmp_path):
    steps = WorkerSteps(nodes=2, per_node=4, gpus=1, processes=2, cores=8, megabytes=4000)
    argv = step_command(steps, JobDirectory(tmp_path), 3)
    assert argv[0] == "srun"
    for word in ("--ntasks=1", "--gres=gpu:1", "--exact", "--mem=4000M", "--cpus-per-task=8"):
        assert word in argv
    for word in ("--nworkers=2", "--nthreads=4", "--resources=GPU=0.5", "--memory-limit=2000MiB"):
        assert word in argv
    assert f"--tls-key={tmp_path}/job/tls/key.pem" in argv
    assert "--name=step-3" in argv


# -- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ({"walltime": "720"}, ValueError, "may mean minutes or seconds: write '720m'"),
        ({"walltime": "soon"}, ValueError, "walltime='soon' is not understood"),
        ({"walltime": "30s"}, ValueError, "at least a minute"),
        ({"num_trials": 0}, ValueError, "num_trials=0 must be"),
        ({"num_trials": None}, ValueError, "nothing would end this study"),
        ({"chain": 0}, ValueError, "chain=0 must be at least 1"),
        ({"memory": "much"}, ValueError, "memory='much' is not understood"),
        ({"cores": 0.5}, ValueError, "cores=0.5 must be an int of at least 1"),
        ({"workers": {"queue": "gpu"}}, ValueError, r"workers\['jobs'\]=None must be"),
        ({"workers": WORKERS | {"gpus": 1}}, ValueError, r"workers\['gpus'\] is not an option of"),
        (
            {"workers": WORKERS | {"job_name": "a"}},
            ValueError,
            "cannot be given: the controller job",
        ),
        ({"workers": WORKERS | {"walltime": "9"}}, ValueError, "may mean minutes or seconds"),
        ({"workers": {"jobs": 1}}, ValueError, r"workers\['cores'\] must be given"),
        ({"workers": WORKERS | {"gpus_per_job": 9}}, ValueError, r"cores'\]=8 must be at least 9"),
        ({"workers": WORKERS | {"security": print}}, TypeError, "must be plain data"),
        ({"job_extra_directives": "--qos=x"}, TypeError, "must be a list of lines"),
        ({"callbacks": []}, TypeError, "study.attach"),
        ({"client": None}, TypeError, "submit.. has no client="),
        ({"num_workers": 3}, TypeError, "it takes num_trials, time_budget"),
        ({"checkpoint": "sometimes"}, ValueError, "checkpoint='sometimes' must be one of"),
        ({"resources": {"gpu": 2}}, ValueError, "asks for 2 GPUs per trial, but a worker has 1"),
        ({"resources": {"cpu": 9}}, ValueError, "asks for 9 CPUs per trial, but a worker has 8"),
        ({"one_allocation": True}, ValueError, r"workers\['queue'\] cannot be given with"),
        ({"one_allocation": True, "workers": {}}, ValueError, r"workers\['memory'\] must be given"),
        ({"one_allocation": True, "workers": HERE, "cores": 2}, ValueError, "per node in workers="),
        (
            {"one_allocation": True, "workers": HERE | {"cores": 1}},
            ValueError,
            "must be at least 2: one for each worker",
        ),
    ],
    ids=str,
)
def test_a_mistake_is_named_before_anything_is_written(study, folder, words, error, message):
    with pytest.raises(error, match=message):
        script(study, **words)
    assert not (folder / "runs").exists()


def test_a_study_without_a_trainable_is_refused(folder):
    with pytest.raises(TypeError, match="no trainable"):
        script(load_source("tune.py:asked"))


def test_a_study_that_no_file_defines_is_refused(tmp_path):
    made = Study(lambda c, t: None, {"x": Real(0, 1)}, "loss", scheduler=FIFO(1), storage=tmp_path)
    with pytest.raises(ValueError, match="not a global variable of a Python file"):
        script(made)


def python(*arguments):
    """Run Python with the packages that this process sees."""
    path = os.pathsep.join(p for p in sys.path if p)
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": path},
    )


@pytest.mark.parametrize("call", ["submit(3, walltime='1h')", "run(3)"])
def test_a_file_that_begins_its_study_while_it_is_imported_is_refused(folder, call):
    (folder / "tune.py").write_text(f"{FILE}study.{call}")
    with pytest.raises(ValueError, match=r"while it is imported: put the call under `if __name"):
        load_source("tune.py:study")
    assert not (folder / "runs").exists()


@pytest.mark.slow
def test_a_study_that_depends_on_who_imports_its_file_is_refused(folder):
    text = FILE.replace("scheduler=FIFO(3)", "scheduler=FIFO(3 + (__name__ == '__main__'))")
    text += "if __name__ == '__main__':\n"
    text += "    study.job_script(3, walltime='1h', workers=dict(jobs=1, cores=1, memory='1GB'))\n"
    (folder / "tune.py").write_text(text)
    done = python("tune.py")
    assert done.returncode == 1
    assert "is another study when the file is imported again" in done.stderr


@pytest.mark.slow
def test_a_script_that_submits_the_study_it_defines_is_found(folder):
    text = FILE + (
        "if __name__ == '__main__':\n"
        "    workers = dict(jobs=1, cores=1, memory='1GB')\n"
        "    print(study.job_script(3, walltime='1h', workers=workers))\n"
    )
    (folder / "tune.py").write_text(text)
    done = python("tune.py")
    assert done.returncode == 0, done.stderr
    assert "-m daskhpo.cli.submitted_job" in done.stdout


@pytest.mark.cluster
def test_a_study_that_runs_or_has_nothing_left_to_do_is_refused(folder):
    text = FILE + "import daskhpo.searchers\n"
    (folder / "tune.py").write_text(text)
    study = load_source("tune.py:study")
    study.run(2, progress=False)
    with pytest.raises(StudyExists, match="nothing left to do: it has 2 trials"):
        script(study, num_trials=2)
    assert script(study, num_trials=3)
    (study.path / "lock.json").write_text('{"token": "a", "host": "elsewhere", "pid": 1}')
    with pytest.raises(StudyLocked, match="process 1 on elsewhere"):
        script(study, num_trials=3)


@pytest.mark.cluster
def test_no_number_of_trials_means_the_last_one(study):
    study.run(2, progress=False)
    with pytest.raises(StudyExists, match="nothing left to do"):
        script(study, num_trials=None)


@pytest.mark.parametrize(
    ("walltime", "seconds"),
    [
        ("12h", 43200),
        ("1h30m", 5400),
        (90, 90),
        ("1-12:00:00", 129600),
        ("04:00:00", 14400),
        ("90:00", 5400),
    ],
)
def test_a_walltime_is_said_as_here_or_as_in_slurm(walltime, seconds):
    assert parse_walltime(walltime) == seconds


# -- what lies in the directory ------------------------------------------------------------------


@pytest.mark.parametrize(
    "workers",
    [WorkerJobs({"jobs": 3, "queue": "gpu"}), WorkerSteps(1, 2, 1, 1, 4, 8000)],
    ids=lambda workers: type(workers).__name__,
)
def test_a_submission_comes_back_from_its_directory(tmp_path, workers):
    options = RunOptions(
        num_trials=5,
        time_budget=3600.0,
        target=0.5,
        checkpoint="every:3",
        resources={"gpu": 0.5},
        max_concurrent=7,
        worker_timeout=60.0,
        max_failures=2,
        reuse_actors=False,
    )
    job = ControllerJob(3600.0, "cpu", None, 2, "4096M", ("--qos=x",), ("module load a",), 3)
    given = Submission("/a/tune.py:study", options, job, workers, 12.5, "/a", "login")
    folder = JobDirectory(tmp_path / "runs" / "first")
    assert folder.submission() is folder.number() is folder.address() is None
    folder.create()
    folder.write(given)
    folder.write_number("12")
    folder.write_address(ControllerAddress("13", "n1", 4000))
    assert folder.submission() == given
    assert (folder.number(), folder.address()) == ("12", ControllerAddress("13", "n1", 4000))
    for path in folder.path.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
        assert json.loads(path.read_text())
    for path in (folder.path, folder.study):
        assert path.stat().st_mode & 0o777 == 0o700


def test_a_private_file_is_private_from_its_first_byte(tmp_path):
    path = tmp_path / "key.pem"
    path.write_text("of an earlier job")
    path.chmod(0o644)
    before = os.umask(0)
    try:
        write_private(path, "secret")
    finally:
        os.umask(before)
    assert path.read_text() == "secret"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["key.pem"]


def test_credentials_are_for_their_owner_only_and_new_each_time(tmp_path):
    security = credentials(tmp_path / "tls")
    files = {path.name: path for path in (tmp_path / "tls").iterdir()}
    assert set(files) == {"certificate.pem", "key.pem"}
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in files.values())
    assert (tmp_path / "tls").stat().st_mode & 0o777 == 0o700
    assert security.require_encryption
    assert security.tls_worker_key == str(files["key.pem"])
    key = files["key.pem"].read_text()
    credentials(tmp_path / "tls")
    assert files["key.pem"].read_text() != key


def test_the_tunnel_goes_by_way_of_the_login_node():
    assert (
        ControllerAddress("1", "n1", 4000).tunnel("login")
        == "ssh -N -L 8787:127.0.0.1:4000 -J login n1"
    )
    assert ControllerAddress("1", "n1", 4000).tunnel("n1") == "ssh -N -L 8787:127.0.0.1:4000 n1"


def test_a_finite_search_may_be_submitted_without_a_limit(folder):
    text = FILE.replace("scheduler=FIFO(3)", "scheduler=FIFO(3), searcher=GridSearch(2)")
    (folder / "tune.py").write_text("from daskhpo.searchers import GridSearch\n" + text)
    assert GridSearch(2).finite
    assert script(load_source("tune.py:study"), num_trials=None)
