"""Quotas, as ``quota`` and ``lfs quota`` print them at various sites."""

from __future__ import annotations

import pytest

from daskhpo.cluster.doctor.finding import Verdict
from daskhpo.cluster.doctor.quota import Quota, check_room, parse_quota

QUOTA = """\
Disk quotas for user alice (uid 20384): \n\
     Filesystem  blocks   quota   limit   grace   files   quota   limit   grace
      /dev/sdb1 12994560 20971520 31457280       0  161000       0       0       0
"""
QUOTA_WITHOUT_GRACE = """\
Disk quotas for user ali (uid 1002): \n\
     Filesystem  blocks   quota   limit   grace   files   quota   limit   grace
      /dev/sda1      36       0  500000              10       0       0        \n\
"""
QUOTA_OVER = """\
Disk quotas for user username (uid 501): \n\
   Filesystem  blocks   quota   limit   grace   files   quota   limit   grace
     /dev/sda1    1000*   1000    2000   6days       0       0       0
"""
QUOTA_WRAPPED = """\
Disk quotas for user bob (uid 501): \n\
     Filesystem  blocks   quota   limit   grace   files   quota   limit   grace
server.example.org:/export/home
                   5000   10000   20000               7     100     200
"""
LFS = """\
Disk quotas for usr me (uid 1000):
     Filesystem  kbytes   quota   limit   grace   files   quota   limit   grace
   /lustre/work 1048576 4194304 8388608       -    1024   10000   20000       -
uid 1000 is using default block quota setting
uid 1000 is using default file quota setting
"""
LFS_WRAPPED = """\
Disk quotas for usr normand (uid 1471600598):
     Filesystem  kbytes   quota   limit   grace   files   quota   limit   grace
/home/m/n/normand
                95747836       0 104857600       -  908722       0 1048576       -
"""
LFS_OVER = """\
Disk quotas for usr xux (uid 129052):
     Filesystem    kbytes   quota   limit   grace   files   quota   limit   grace
       /project  [7041187840]     0k      0k       - 1000000*      0 1000000       -
"""
LFS_NONE = """\
Disk quotas for usr auser (uid 68826):
     Filesystem  kbytes   quota   limit   grace   files   quota   limit   grace
              . 6202720       0       0       -   51652       0       0       -
"""


@pytest.mark.parametrize(
    ("text", "quotas"),
    [
        (QUOTA, [("/dev/sdb1", "bytes", 12994560 * 1024, 20971520 * 1024)]),
        (QUOTA_WITHOUT_GRACE, [("/dev/sda1", "bytes", 36 * 1024, 500000 * 1024)]),
        (QUOTA_OVER, [("/dev/sda1", "bytes", 1000 * 1024, 1000 * 1024)]),
        (
            QUOTA_WRAPPED,
            [
                ("server.example.org:/export/home", "bytes", 5000 * 1024, 10000 * 1024),
                ("server.example.org:/export/home", "files", 7, 100),
            ],
        ),
        (
            LFS,
            [
                ("/lustre/work", "bytes", 1048576 * 1024, 4194304 * 1024),
                ("/lustre/work", "files", 1024, 10000),
            ],
        ),
        (
            LFS_WRAPPED,
            [
                ("/home/m/n/normand", "bytes", 95747836 * 1024, 104857600 * 1024),
                ("/home/m/n/normand", "files", 908722, 1048576),
            ],
        ),
        (LFS_OVER, [("/project", "files", 1000000, 1000000)]),
        (LFS_NONE, []),
        ("Disk quotas for user root (uid 0): none\n", []),
        ("", []),
        ("quota: Cannot stat() mounted device: permission denied\n", []),
    ],
)
def test_quotas_with_a_limit_are_read(text, quotas):
    assert parse_quota(text) == [Quota(f"user on {place}", *rest) for place, *rest in quotas]


@pytest.mark.parametrize(
    ("n_bytes", "n_files", "verdict", "message"),
    [
        (10**13, 10**7, Verdict.OK, "10,000.0 GB, 10,000,000 files free"),
        (10**13, None, Verdict.OK, "10,000.0 GB free"),
        (10**9, 10**7, Verdict.WARNING, "1.0 GB, 10,000,000 files free"),
        (10**13, 99, Verdict.WARNING, "99 files free"),
        (0, 10**7, Verdict.PROBLEM, "0.0 GB"),
        (10**13, 0, Verdict.PROBLEM, ", 0 files"),
    ],
)
def test_room_for_bytes_and_for_files(n_bytes, n_files, verdict, message):
    (finding,) = check_room(n_bytes, n_files, [])
    assert finding.verdict is verdict
    assert message in finding.message


@pytest.mark.parametrize(
    ("used", "verdict"), [(50, Verdict.OK), (90, Verdict.WARNING), (100, Verdict.PROBLEM)]
)
def test_a_quota_that_is_nearly_used_is_a_warning_and_a_full_one_a_problem(used, verdict):
    _, finding = check_room(10**13, None, [Quota("user on /home", "files", used, 100)])
    assert (finding.check, finding.verdict) == ("quota", verdict)
    assert finding.message == f"user on /home: {used} files of 100 files are used"
    assert "CheckpointPolicy" in finding.hint or verdict is Verdict.OK
