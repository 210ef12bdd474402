"""What is looked at on the machine where the doctor runs."""

from __future__ import annotations

import os

import pytest

from daskhpo.cluster.doctor.checks import _check_interface, _check_writable
from daskhpo.cluster.doctor.finding import Verdict


@pytest.fixture
def as_nobody(tmp_path):
    """Root may do anything, so for a while this process is somebody else."""
    for folder in (tmp_path, *tmp_path.parents):  # pytest makes them for its own user
        if folder.owner() == tmp_path.owner() and "pytest" in str(folder):
            folder.chmod(0o755)
    if os.geteuid() == 0:
        os.seteuid(65534)
        yield
        os.seteuid(0)
    else:
        yield


@pytest.mark.parametrize(
    ("mode", "inside", "message"),
    [
        (0o555, "", "cannot be written here: Permission denied"),
        (0o000, "", "cannot be written here: Permission denied"),
        (0o000, "runs", "cannot be written here: Permission denied"),
    ],
)
def test_a_directory_without_permission_is_a_problem(request, tmp_path, mode, inside, message):
    (folder := tmp_path / "folder").mkdir()
    (folder / "runs").mkdir()
    folder.chmod(mode)
    request.getfixturevalue("as_nobody")
    finding = _check_writable(folder / inside)
    assert finding.verdict is Verdict.PROBLEM
    assert finding.message.endswith(message)
    assert "permissions" in finding.hint


def test_a_directory_that_can_be_written_is_well_and_left_as_it_was(tmp_path):
    assert _check_writable(tmp_path).verdict is Verdict.OK
    assert list(tmp_path.iterdir()) == []


def test_an_interface_that_is_named_comes_first_and_the_others_may_help():
    addresses, finding = _check_interface("lo", None)
    assert addresses[0] == ("lo", "127.0.0.1")
    assert not any(address.startswith("127.") for _, address in addresses[1:])
    assert (finding.verdict, finding.message) == (Verdict.OK, "lo, 127.0.0.1")


def test_an_interface_that_is_not_there_is_a_problem():
    addresses, finding = _check_interface("ib77", None)
    assert addresses == []
    assert finding.verdict is Verdict.PROBLEM
