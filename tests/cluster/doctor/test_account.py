"""Accounts and qualities of service, as ``sacctmgr --parsable2`` prints them."""

from __future__ import annotations

import pytest

from daskhpo.cluster.doctor.account import Accounts, check_account, check_qos
from daskhpo.cluster.doctor.finding import Verdict
from daskhpo.cluster.doctor.job_request import JobRequest
from daskhpo.cluster.doctor.partition import parse_partitions

# format=Account,Partition,QOS,DefaultQOS,MaxWall
ASSOCIATIONS = """\
m1234||debug,premium,regular|regular|
m1234_g||gpu_debug,gpu_regular|gpu_regular|
m77|gpu|gpu_regular||12:00:00
"""
USER = "me|m1234\n"
QUALITIES = "regular|2-00:00:00\ndebug|00:30:00\npremium|\ngpu_regular|1-00:00:00\nsite|06:00:00\n"


def partition(name="gpu", **fields):
    fields = {"State": "UP", "QoS": "N/A", **fields}
    return parse_partitions(
        " ".join([f"PartitionName={name}", *(f"{key}={value}" for key, value in fields.items())])
    )


def accounts(associations=ASSOCIATIONS, user=USER, enforce="associations,limits,qos,safe"):
    return Accounts.read(associations, user, QUALITIES, enforce)


@pytest.mark.parametrize(
    ("account", "there", "verdict", "message", "hint"),
    [
        (None, {}, Verdict.OK, "m1234 (your default) may be charged", ""),
        ("m1234_g", {}, Verdict.OK, "m1234_g may be charged", ""),
        ("M1234_G", {}, Verdict.OK, "M1234_G may be charged", ""),  # the database has no capitals
        ("m77", {}, Verdict.OK, "m77 may be charged", ""),
        (
            "m77",
            {"name": "cpu"},
            Verdict.PROBLEM,
            "m77 may be charged only in partition gpu",
            "another --partition",
        ),
        (
            "m9999",
            {},
            Verdict.PROBLEM,
            "m9999 is not one of your accounts",
            "your accounts are m1234, m1234_g, m77",
        ),
        (
            None,
            {"AllowAccounts": "m1234_g,m5"},
            Verdict.PROBLEM,
            "partition gpu does not allow m1234 (your default); it allows m1234_g, m5",
            "m1234_g",
        ),
        (
            "m77",
            {"DenyAccounts": "m77"},
            Verdict.PROBLEM,
            "partition gpu does not allow m77",
            "m1234",
        ),
    ],
)
def test_an_account_may_be_charged_in_the_partition(account, there, verdict, message, hint):
    finding = check_account(accounts(), partition(**there), account)
    assert finding.verdict is verdict, finding
    assert message in finding.message
    assert hint in finding.hint


def test_where_accounts_are_not_enforced_an_unknown_one_is_a_warning():
    finding = check_account(accounts(enforce="none"), partition(), "m9999")
    assert finding.verdict is Verdict.WARNING


def test_a_user_without_any_account_is_told_so():
    nobody = accounts(associations="", user="")
    finding = check_account(nobody, partition(), None)
    assert (finding.verdict, finding.hint) == (Verdict.PROBLEM, "ask your administrator for one")
    finding = check_account(nobody, partition(), "m1234")
    assert "you have none" in finding.hint
    free = check_account(accounts(associations="", user="", enforce=""), partition(), None)
    assert (free.verdict, free.message) == (Verdict.OK, "no account is needed")


@pytest.mark.parametrize(
    ("asked", "there", "check", "verdict", "message"),
    [
        ({}, {}, "qos", Verdict.OK, "regular, at most 2-00:00:00"),
        ({"job_extra_directives": ["-q premium"]}, {}, "qos", Verdict.OK, "premium"),
        (
            {"job_extra_directives": ["-q gpu_regular"]},
            {},
            "qos",
            Verdict.PROBLEM,
            "you may not use the QOS gpu_regular",
        ),
        (
            {},
            {"AllowQos": "debug"},
            "qos",
            Verdict.PROBLEM,
            "partition gpu does not allow the QOS regular",
        ),
        (
            {"job_extra_directives": ["-q debug"], "walltime": "31m"},
            {},
            "walltime",
            Verdict.PROBLEM,
            "00:31:00 is more than the 00:30:00 that debug allows",
        ),
        (
            {"walltime": "8h"},
            {"QoS": "site"},
            "walltime",
            Verdict.PROBLEM,
            "08:00:00 is more than the 06:00:00 that site allows",
        ),
        (
            {"account": "m77", "walltime": "13h"},
            {},
            "walltime",
            Verdict.PROBLEM,
            "13:00:00 is more than the 12:00:00 that your account allows",
        ),
        ({"account": "m77", "walltime": "11h"}, {}, "qos", Verdict.SKIPPED, "no QOS was given"),
    ],
)
def test_a_quality_of_service_may_be_used_for_so_long(asked, there, check, verdict, message):
    finding = check_qos(accounts(), partition(**there), JobRequest(**asked))
    assert (finding.check, finding.verdict) == (check, verdict), finding
    assert message in finding.message
