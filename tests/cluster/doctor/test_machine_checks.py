"""Limits, scratch directory and Python of a machine, as they are found and as they are judged."""

from __future__ import annotations

import os
import resource
import sys

import pytest

from daskhpo.cluster.doctor.finding import Finding, Verdict
from daskhpo.cluster.doctor.machine_checks import (
    MODULES,
    check_limits,
    check_scratch,
    digest,
    judge_limit,
    judge_python,
    judge_scratch,
    judge_worker,
    type_of,
    versions,
)

VERSIONS = {"python": "3.11.9", "daskhpo": "0.1.0", "dask": "2026.1.0", "distributed": "2026.1.0"}
HERE = VERSIONS | {"numpy": "2.2.0"}


def python(versions=None, errors=None, same_files=True):
    return judge_python(HERE | (versions or {}), errors or {}, HERE, same_files)


def test_a_finding_is_the_same_after_its_way_as_json():
    finding = Finding("gpu", Verdict.WARNING, "one is missing", "ask for it")
    assert Finding.from_json(finding.to_json()) == finding


# -- Python --------------------------------------------------------------------------------------


def test_the_same_packages_are_well_though_a_patch_of_python_differs():
    finding = python({"python": "3.11.4"})
    assert finding.verdict is Verdict.OK
    packages = "daskhpo 0.1.0, dask 2026.1.0, distributed 2026.1.0"
    assert finding.message == f"{sys.executable} (3.11.4): {packages}"


@pytest.mark.parametrize(
    ("versions", "verdict", "message"),
    [
        ({"dask": "2024.12.0"}, Verdict.PROBLEM, "dask 2024.12.0 there, 2026.1.0 here"),
        ({"daskhpo": "0.0.9"}, Verdict.PROBLEM, "daskhpo 0.0.9 there, 0.1.0 here"),
        ({"python": "3.12.1"}, Verdict.PROBLEM, "python 3.12.1 there, 3.11.9 here"),
        ({"numpy": "1.26.0"}, Verdict.WARNING, "numpy 1.26.0 there, 2.2.0 here"),
    ],
)
def test_other_versions_are_shown_from_both_sides(versions, verdict, message):
    finding = python(versions)
    assert finding.verdict is verdict
    assert message in finding.message
    assert "--python" in finding.hint


def test_other_files_of_the_same_version_are_a_problem():
    finding = python(same_files=False)
    assert finding.verdict is Verdict.PROBLEM
    assert "daskhpo 0.1.0, but other files, in /" in finding.message


def test_what_cannot_be_imported_is_named_the_most_needed_first():
    errors = {"zarr": "ImportError: libz", "dask": "ModuleNotFoundError: No module named 'dask'"}
    finding = python(errors=errors)
    assert finding.verdict is Verdict.PROBLEM
    assert "cannot import dask: ModuleNotFoundError" in finding.message
    finding = python(errors={"zarr": "ImportError: libz"})
    assert "cannot import zarr: ImportError: libz" in finding.message


def test_a_slow_start_and_little_memory_are_warnings():
    slow, little = judge_worker(50.0, 50_000_000)
    assert (slow.check, slow.verdict) == ("import time", Verdict.WARNING)
    assert (little.check, little.verdict) == ("memory", Verdict.WARNING)
    assert "Dask pauses" in little.hint
    (enough,) = judge_worker(3.0, 32_000_000_000)
    assert (enough.verdict, enough.message) == (Verdict.OK, "a worker would have 32.0 GB")


@pytest.mark.slow
def test_this_python_can_import_all():
    found, errors = versions()
    assert set(found) == {"python", *MODULES}
    assert errors == {}
    assert len(digest()) == 10


# -- limits and scratch --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("soft", "hard", "verdict", "message", "hint"),
    [
        (1024, 4096, Verdict.OK, "1,024 at a time", ""),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, Verdict.OK, "no limit", ""),
        (256, 4096, Verdict.WARNING, "256 at a time; so it is", "run ulimit -n 1024"),
        (256, 512, Verdict.WARNING, "256 at a time; so it is", "run ulimit -n 512"),
        (256, resource.RLIM_INFINITY, Verdict.WARNING, "256 at a time", "run ulimit -n 1024"),
    ],
)
def test_limits_are_enough_or_how_to_raise_them(soft, hard, verdict, message, hint):
    finding = judge_limit("open files", (soft, hard), 1024, "so it is", "-n")
    assert (finding.verdict, finding.hint) == (verdict, hint)
    assert finding.message.startswith(message)


def test_a_limit_of_cpu_time_is_a_warning(monkeypatch):
    pairs = {resource.RLIMIT_CPU: (3600, 3600)}
    monkeypatch.setattr(resource, "getrlimit", lambda limit: pairs.get(limit, (4096, 4096)))
    assert [finding.verdict.value for finding in check_limits()] == ["ok", "ok", "warning"]
    *_, finding = check_limits()
    assert "inside a job" in finding.hint


@pytest.mark.parametrize(
    ("path", "free", "kind", "verdict", "message"),
    [
        ("/tmp", 50_000_000_000, "xfs", Verdict.OK, "/tmp, 50.0 GB free, xfs"),
        ("/l ($TMPDIR)", 50_000_000_000, "lustre", Verdict.WARNING, "50.0 GB free, lustre"),
        ("/tmp", 500_000_000, "tmpfs", Verdict.WARNING, "0.5 GB free"),
    ],
)
def test_scratch_has_room_on_a_disk_of_the_node(path, free, kind, verdict, message):
    finding = judge_scratch(path, free, kind)
    assert finding.verdict is verdict
    assert message in finding.message


def test_scratch_is_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.delenv("SLURM_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (finding,) = check_scratch()
    assert finding.message.startswith(f"{tmp_path} ($TMPDIR), ")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("TMPDIR", str(tmp_path / "no"))
    (finding,) = check_scratch()
    assert finding.verdict is Verdict.PROBLEM
    assert f"{tmp_path}/no ($TMPDIR) cannot be written: " in finding.message


def test_a_file_system_has_a_type_if_its_path_is_there(tmp_path):
    assert type_of("/proc") == "proc"
    assert type_of(os.fspath(tmp_path / "nosuch")) == ""
