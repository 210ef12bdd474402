"""A request and what Slurm says of it, as several versions and several sites print it."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from daskhpo.cluster.doctor.finding import Verdict
from daskhpo.cluster.doctor.job_request import JobRequest
from daskhpo.cluster.doctor.slurm_checks import (
    Accounts,
    check_access,
    check_forecast,
    check_nodes,
    check_partition,
    check_refusal,
    check_walltime,
    parse_sinfo,
)

# `sinfo --format=%P|%a|%l|%L|%D|%T|%G`, of several sites
NODES = parse_sinfo(
    """\
normal*|up|2-00:00:00|1:00:00|38|allocated|(null)
normal*|up|2-00:00:00|1:00:00|2|idle|(null)
ampere|up|7-00:00:00|10:00|1|idle~|gpu:a100:4(S:0-1)
ampere|up|7-00:00:00|10:00|20|mixed|gpu:a100:4(S:0-1)
ampere|up|7-00:00:00|10:00|1|down*|gpu:a100:4
gpu2|drain|infinite|n/a|1|mixed|gpu:nvidia_a100_80gb_pcie:4(S:0,1),shard:nvidia_a100_80gb_pcie:16
gpu2|drain|infinite|n/a|2|drained|gpu:nvidia_geforce_rtx_3090:8(S:0-1)
old|up|2-00:00:00|1:00:00|2|drained|gpu:k80:4
old|up|2-00:00:00|1:00:00|1|draining|gpu:k80:4
full|up|2-00:00:00|1:00:00|4|allocated|gpu:v100:2,nvme:1
void|up|2-00:00:00|1:00:00|0|n/a|
"""
)


def test_nodes_are_read_and_a_motto_of_the_site_is_not():
    (group,) = parse_sinfo("Welcome to the cluster!\nlong*|up|infinite|n/a|3|idle|(null)\n")
    assert (group.name, group.size, group.gres) == ("long", 3, "(null)")


@pytest.mark.parametrize(
    ("state", "works"),
    [
        ("idle", True),
        ("idle~", True),  # powered down, and powered up when asked
        ("mixed-", True),  # planned for a job of higher priority
        ("mixed@", True),  # to be rebooted
        ("allocated", True),
        ("completing", True),
        ("planned", True),
        ("reserved", True),
        ("idle*", False),  # does not answer
        ("down", False),
        ("drained", False),
        ("draining", False),
        ("drained*", False),
        ("mixed+drain", False),
        ("maint", False),
        ("inval", False),
        ("unknown", False),
        ("fail", False),
    ],
)
def test_a_state_says_whether_a_node_runs_jobs(state, works):
    (group,) = parse_sinfo(f"gpu|up|infinite|n/a|1|{state}|gpu:1\n")
    assert group.is_working is works


@pytest.mark.parametrize(
    ("queue", "verdict", "message", "hint"),
    [
        (None, Verdict.OK, "normal (the default) is up", ""),
        ("ampere", Verdict.OK, "ampere is up", ""),
        ("normal,ampere", Verdict.OK, "normal,ampere is up", ""),
        ("ampre", Verdict.PROBLEM, "no partition 'ampre'", "did you mean ampere?"),
        ("normal,x", Verdict.PROBLEM, "no partition 'x'", "choose one of normal, ampere, gpu2"),
        ("gpu2", Verdict.PROBLEM, "gpu2 is in state drain", "choose a --partition: normal"),
    ],
)
def test_a_partition_is_there_and_up(queue, verdict, message, hint):
    finding = check_partition(NODES, queue)
    assert finding.verdict is verdict
    assert message in finding.message
    assert hint in finding.hint


def test_without_a_default_a_partition_must_be_named():
    finding = check_partition([group for group in NODES if group.name == "ampere"], None)
    assert finding.verdict is Verdict.PROBLEM
    assert finding.hint == "choose a --partition: ampere"


@pytest.mark.parametrize(
    ("queue", "walltime", "verdict", "message"),
    [
        ("normal", "2-00:00:00", Verdict.OK, "2-00:00:00 of at most 2-00:00:00"),
        ("normal", "2-00:00:01", Verdict.PROBLEM, "more than the 2-00:00:00 that normal allows"),
        ("normal,ampere", "3-00:00:00", Verdict.OK, "3-00:00:00 of at most 7-00:00:00"),
        ("gpu2", "30-00:00:00", Verdict.OK, "30-00:00:00; gpu2 has no time limit"),
        (None, None, Verdict.OK, "jobs in normal get 01:00:00 by default, and at most 2-00:00:00"),
        ("gpu2", None, Verdict.OK, "no walltime was given; jobs in gpu2 have no time limit"),
    ],
)
def test_a_walltime_is_within_the_limit(queue, walltime, verdict, message):
    finding = check_walltime(NODES, JobRequest(queue=queue, walltime=walltime), {})
    assert finding.verdict is verdict
    assert message in finding.message


@pytest.mark.parametrize(
    ("queue", "asked", "check", "verdict", "message", "hint"),
    [
        (
            "ampere",
            {"gpus_per_job": 4},
            "gres",
            Verdict.OK,
            "gpu:4: 22 nodes (20 mixed, 1 idle~, 1 down*)",
            "",
        ),
        ("ampere", {"gres": "gpu:A100:1"}, "gres", Verdict.OK, "gpu:A100:1: 22 nodes", ""),
        ("normal", {"gpus_per_job": 0}, "nodes", Verdict.OK, "40 nodes (38 allocated, 2 idle)", ""),
        (
            "gpu2",
            {"gres": "gpu:nvidia_a100_80gb_pcie:1"},
            "gres",
            Verdict.OK,
            "1 node (1 mixed)",
            "",
        ),
        ("full", {"gres": "gpu:2,nvme:1"}, "nodes", Verdict.WARNING, "all are busy", "wait"),
        (
            "normal",
            {"gpus_per_job": 1},
            "gres",
            Verdict.PROBLEM,
            "no node of normal has gpu:1; available: none on 40 nodes",
            "gpu:1 is in ampere, full, gpu2, old",
        ),
        (
            "ampere",
            {"gpus_per_job": 8},
            "gres",
            Verdict.PROBLEM,
            "has gpu:8; available: gpu:a100:4 on 22 nodes",
            "gpu:8 is in gpu2",
        ),
        ("ampere", {"gres": "gpu:h100:1"}, "gres", Verdict.PROBLEM, "has gpu:h100:1", "sinfo"),
        (
            "old",
            {"gpus_per_job": 1},
            "nodes",
            Verdict.PROBLEM,
            "gpu:1: 3 nodes (2 drained, 1 draining): none runs jobs",
            "sinfo --list-reasons",
        ),
        ("void", {"gpus_per_job": 1}, "gres", Verdict.PROBLEM, "void has no nodes", "another"),
    ],
)
def test_nodes_have_what_is_wanted(queue, asked, check, verdict, message, hint):
    finding = check_nodes(NODES, JobRequest(queue=queue, **asked))
    assert (finding.check, finding.verdict) == (check, verdict), finding
    assert message in finding.message
    assert hint in finding.hint


# `sacctmgr show user withassoc`: default account, account, QOS, default QOS, longest walltime
ACCOUNTS = Accounts.parse(
    """\
m1234|m1234|debug,premium,regular|regular|
m1234|m1234_g|gpu_debug,gpu_regular|gpu_regular|
m1234|m77|gpu_regular||12:00:00
""",
    "regular|2-00:00:00\ndebug|00:30:00\npremium|\ngpu_regular|1-00:00:00\nsite|06:00:00\n",
)


@pytest.mark.parametrize(
    ("asked", "partition_qos", "limits"),
    [
        ({}, [], {"regular": 2 * 86400}),
        ({"account": "M1234_G"}, [], {"gpu_regular": 86400}),  # the database has no capitals
        ({"account": "m77"}, [], {"your account": 12 * 3600}),
        ({"account": "m9999"}, [], {}),
        ({"job_extra_directives": ["-q debug"]}, ["N/A"], {"debug": 1800}),
        ({"job_extra_directives": ["-q premium"]}, ["site"], {"site": 6 * 3600}),
    ],
)
def test_a_walltime_has_limits_of_account_and_quality_of_service(asked, partition_qos, limits):
    assert ACCOUNTS.limits(JobRequest(**asked), partition_qos) == limits
    assert Accounts().limits(JobRequest(**asked), partition_qos) == {}


def test_the_smallest_limit_of_a_walltime_counts():
    limits = {"regular": 2 * 86400.0, "your account": 12 * 3600.0}
    finding = check_walltime(NODES, JobRequest(queue="ampere", walltime="13h"), limits)
    assert finding.verdict is Verdict.PROBLEM
    assert finding.message == "13:00:00 is more than the 12:00:00 that your account allows"
    assert "set --walltime 12:00:00 or less" in finding.hint
    enough = check_walltime(NODES, JobRequest(queue="ampere", walltime="12h"), limits)
    assert (enough.verdict, enough.message) == (Verdict.OK, "12:00:00 of at most 12:00:00")


def test_a_job_has_the_default_account_and_its_quality_of_service():
    assert ACCOUNTS.account(JobRequest()) == "m1234"
    assert ACCOUNTS.qos(JobRequest()) == "regular"
    assert ACCOUNTS.qos(JobRequest(account="m1234_g")) == "gpu_regular"
    assert ACCOUNTS.qos(JobRequest(job_extra_directives=["-q debug"])) == "debug"
    assert Accounts().account(JobRequest()) == Accounts().qos(JobRequest()) == ""


@pytest.mark.parametrize(
    ("fields", "check", "message", "hint"),
    [
        ({}, None, "", ""),
        ({"AllowAccounts": "ALL", "AllowQos": "ALL"}, None, "", ""),
        ({"AllowAccounts": "M1234,m5", "AllowQos": "debug,regular"}, None, "", ""),
        (
            {"AllowAccounts": "m1234_g,m5"},
            "account",
            "partition gpu does not allow the account m1234",
            "it allows m1234_g,m5",
        ),
        (
            {"DenyAccounts": "m1234", "AllowQos": "ALL"},
            "account",
            "partition gpu does not allow the account m1234",
            "it denies m1234",
        ),
        (
            {"AllowQos": "debug"},
            "qos",
            "partition gpu does not allow the qos regular",
            "it allows debug",
        ),
    ],
)
def test_a_partition_is_open_to_the_account_and_quality_of_service(fields, check, message, hint):
    finding = check_access({"PartitionName": "gpu"} | fields, "m1234", "regular")
    if check is None:
        assert finding is None
    else:
        assert (finding.check, finding.verdict) == (check, Verdict.PROBLEM)
        assert (finding.message, finding.hint) == (message, hint)


def test_where_no_account_is_known_a_partition_is_not_judged():
    assert check_access({"PartitionName": "gpu", "AllowAccounts": "m1"}, "", "") is None


NOW = datetime(2026, 3, 1, 10, 0).timestamp()


@pytest.mark.parametrize(
    ("wait", "verdict", "message"),
    [
        (timedelta(seconds=1), Verdict.OK, "start it at once, on n1"),
        (timedelta(minutes=20), Verdict.OK, "start it in about 20 minutes, on n1"),
        (timedelta(hours=30), Verdict.WARNING, "start it in about 30 hours"),
        (timedelta(days=700 * 365), Verdict.OK, "cannot predict its start"),
    ],
)
def test_a_forecast_is_told(wait, verdict, message):
    start = datetime.fromtimestamp(NOW) + wait
    printed = f"sbatch: Job 9 to start at {start.isoformat()} using 1 processors on nodes n1 "
    finding = check_forecast(f"{printed}in partition gpu", NOW)
    assert finding.verdict is verdict
    assert message in finding.message


def test_a_site_that_says_something_else_takes_the_job_all_the_same():
    assert check_forecast("Welcome to the cluster!", NOW).message == "Slurm would accept this job"


def test_a_job_that_is_accepted_is_told_what_it_is_charged_to():
    finding = check_forecast("", NOW, "lab", "normal")
    assert finding.message == "Slurm would accept this job (account lab, QOS normal)"
    assert check_forecast("", NOW, "lab").message == "Slurm would accept this job (account lab)"


@pytest.mark.parametrize(
    ("printed", "check", "message", "hint"),
    [
        (
            "sbatch: error: invalid partition specified: x\nallocation failure: Invalid partition "
            "name specified",
            "partition",
            "invalid partition specified: x; allocation failure: Invalid partition name",
            "--partition",
        ),
        (
            "allocation failure: Invalid account or account/partition combination specified",
            "account",
            "Invalid account",
            "choose another --account, or --partition; yours are m1234, m1234_g, m77",
        ),
        (
            "allocation failure: User's group not permitted to use this partition",
            "partition",
            "User's group not permitted",
            "scontrol show partition lists the groups",
        ),
        (
            "allocation failure: Invalid qos specification",
            "qos",
            "Invalid qos",
            "remove the QOS, or choose another one; you may use debug, premium, regular, gpu_debug",
        ),
        (
            "allocation failure: Job violates accounting/QOS policy (job submit limit, user's size "
            "and/or time limits)",
            "qos",
            "Job violates accounting/QOS policy",
            "sacctmgr show qos",
        ),
        (
            "allocation failure: Requested time limit is invalid (missing or exceeds some limit)",
            "walltime",
            "Requested time limit",
            "--walltime",
        ),
        (
            "sbatch: error: Memory specification can not be satisfied",
            "request",
            "this job: Memory specification",
            "--memory",
        ),
        (
            "allocation failure: Requested node configuration is not available",
            "request",
            "node configuration",
            "%m",
        ),
        ("", "request", "it gives no reason", ""),
    ],
)
def test_a_refusal_is_told_with_what_to_do(printed, check, message, hint):
    finding = check_refusal(printed, ACCOUNTS)
    assert (finding.check, finding.verdict) == (check, Verdict.PROBLEM)
    assert message in finding.message
    assert hint in finding.hint


def test_where_accounts_are_not_known_a_refusal_says_how_to_list_them():
    finding = check_refusal("allocation failure: Invalid qos specification", Accounts())
    assert finding.hint == "remove the QOS, or choose another one; sacctmgr show qos lists them"
