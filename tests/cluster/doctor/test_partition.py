"""Partitions and nodes, as several versions of Slurm and several sites print them."""

from __future__ import annotations

import math

import pytest

from daskhpo.cluster.doctor.finding import Verdict
from daskhpo.cluster.doctor.job_request import JobRequest
from daskhpo.cluster.doctor.partition import (
    check_devices,
    check_partition,
    check_walltime,
    parse_nodes,
    parse_partitions,
)

# `scontrol --oneliner show partition`. 20.11 has no TRES line, and defaults in other places.
V20_11 = (
    "PartitionName=normal AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL AllocNodes=ALL "
    "Default=YES QoS=N/A DefaultTime=01:00:00 DisableRootJobs=NO ExclusiveUser=NO GraceTime=0 "
    "Hidden=NO MaxNodes=UNLIMITED MaxTime=2-00:00:00 MinNodes=0 LLN=NO MaxCPUsPerNode=UNLIMITED "
    "Nodes=c[001-040] PriorityJobFactor=1 PriorityTier=1 RootOnly=NO ReqResv=NO OverSubscribe=NO "
    "OverTimeLimit=NONE PreemptMode=OFF State=UP TotalCPUs=1280 TotalNodes=40 "
    "SelectTypeParameters=NONE JobDefaults=(null) DefMemPerCPU=4000 MaxMemPerNode=UNLIMITED"
)
# 22.05, of a university's cluster
V22_05 = (
    "PartitionName=ampere AllowGroups=ALL AllowAccounts=ALL "
    "AllowQos=sys0,sys1,support-gpu,intr,gpu0,gpul,gpu1,gpu2,gpu3 AllocNodes=ALL Default=NO "
    "QoS=N/A DefaultTime=00:10:00 DisableRootJobs=NO ExclusiveUser=NO GraceTime=0 Hidden=NO "
    "MaxNodes=UNLIMITED MaxTime=7-00:00:00 MinNodes=0 LLN=NO MaxCPUsPerNode=UNLIMITED "
    "MaxCPUsPerSocket=UNLIMITED Nodes=gpu-q-[48-60,64,73-80] PriorityJobFactor=1 PriorityTier=1 "
    "RootOnly=NO ReqResv=NO OverSubscribe=NO OverTimeLimit=NONE PreemptMode=OFF State=UP "
    "TotalCPUs=2816 TotalNodes=22 SelectTypeParameters=NONE JobDefaults=(null) DefMemPerCPU=8000 "
    "MaxMemPerCPU=8000 TRES=cpu=2816,mem=22000G,node=22,billing=2816,gres/gpu=88 "
    "ResumeTimeout=GLOBAL SuspendTimeout=GLOBAL SuspendTime=1800 PowerDownOnIdle=NO"
)
# 24.05, with typed devices and weights
V24_05 = (
    "PartitionName=gpu2 AllowGroups=lab,staff DenyAccounts=guests AllowQos=ALL AllocNodes=ALL "
    "Default=NO QoS=gpu2_limits DefaultTime=NONE DisableRootJobs=NO ExclusiveUser=NO "
    "ExclusiveTopo=NO GraceTime=0 Hidden=NO MaxNodes=UNLIMITED MaxTime=UNLIMITED MinNodes=0 LLN=NO "
    "MaxCPUsPerNode=UNLIMITED MaxCPUsPerSocket=UNLIMITED NodeSets=ALL Nodes=gpu[001-003] "
    "PriorityJobFactor=1 PriorityTier=1 RootOnly=NO ReqResv=NO OverSubscribe=NO OverTimeLimit=NONE "
    "PreemptMode=OFF State=DRAIN TotalCPUs=272 TotalNodes=3 SelectTypeParameters=NONE "
    "JobDefaults=DefCpuPerGPU=8 DefMemPerNode=UNLIMITED MaxMemPerNode=UNLIMITED TRES=cpu=266,"
    "mem=1500G,node=3,billing=773,gres/gpu=20,gres/gpu:nvidia_a100_80gb_pcie=4 "
    "TRESBillingWeights=CPU=1.0,Mem=0.25G,GRES/gpu=1 ResumeTimeout=GLOBAL SuspendTimeout=GLOBAL "
    "SuspendTime=GLOBAL PowerDownOnIdle=NO"
)
ALL = parse_partitions("\n".join([V20_11, V22_05, V24_05]))
NORMAL, AMPERE, GPU2 = ALL

# `sinfo --format=%P|%D|%T|%G|%N`
SINFO = """\
normal*|38|allocated|(null)|c[001-038]
normal*|2|idle|(null)|c[039-040]
ampere|1|idle~|gpu:a100:4(S:0-1)|gpu-q-48
ampere|20|mixed|gpu:a100:4(S:0-1)|gpu-q-[49-60,64,73-79]
ampere|1|down*|gpu:a100:4|gpu-q-80
gpu2|1|mixed|gpu:nvidia_a100_80gb_pcie:4(S:0,1),shard:nvidia_a100_80gb_pcie:16|gpu001
gpu2|2|drained|gpu:nvidia_geforce_rtx_3090:8(S:0-1)|gpu[002-003]
old|2|drained|gpu:k80:4|old[1-2]
old|1|draining|gpu:k80:4|old3
full|4|allocated|gpu:v100:2,nvme:1|f[1-4]
void|0|n/a||
"""
NODES = parse_nodes(SINFO)


def part(name):
    """Another partition of this name, like the first."""
    return parse_partitions(V20_11.replace("=normal", f"={name}").replace("=YES", "=NO"))[0]


def test_partitions_of_all_versions_are_read():
    assert [p.name for p in ALL] == ["normal", "ampere", "gpu2"]
    assert [p.state for p in ALL] == ["UP", "UP", "DRAIN"]
    assert [p.max_seconds for p in ALL] == [2 * 86400, 7 * 86400, math.inf]
    assert [p.default_seconds for p in ALL] == [3600, 600, None]
    assert [p.is_default for p in ALL] == [True, False, False]
    assert [p.qos for p in ALL] == ["", "", "gpu2_limits"]
    assert AMPERE.allowed["accounts"] is None
    assert "gpu0" in AMPERE.allowed["qos"]
    assert GPU2.allowed["groups"] == {"lab", "staff"}
    assert GPU2.denied == {"guests"}


def test_nodes_are_read_with_their_devices():
    assert [group.count for group in NODES] == [38, 2, 1, 20, 1, 1, 2, 2, 1, 4, 0]
    assert NODES[0].gres == ()
    assert [str(gres) for gres in NODES[2].gres] == ["gpu:a100:4"]
    assert [gres.name for gres in NODES[5].gres] == ["gpu", "shard"]


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
    (group,) = parse_nodes(f"gpu|1|{state}|gpu:1|n1\n")
    assert group.is_working is works


@pytest.mark.parametrize(
    ("queue", "groups", "verdict", "message", "hint"),
    [
        (None, [], Verdict.OK, "normal (the default) is up", ""),
        ("ampere", [], Verdict.OK, "ampere is up", ""),
        ("normal,ampere", [], Verdict.OK, "normal,ampere is up", ""),
        ("ampre", [], Verdict.PROBLEM, "no partition 'ampre'", "did you mean ampere?"),
        ("normal,x", [], Verdict.PROBLEM, "no partition 'x'", "choose one of normal, ampere, gpu2"),
        ("gpu2", ["lab"], Verdict.PROBLEM, "gpu2 is in state DRAIN", "choose another --partition"),
    ],
)
def test_a_partition_is_there_and_up(queue, groups, verdict, message, hint):
    finding = check_partition(ALL, queue, groups)
    assert finding.verdict is verdict
    assert message in finding.message
    assert hint in finding.hint


def test_a_partition_for_other_groups_is_a_problem():
    (theirs,) = parse_partitions(V24_05.replace("State=DRAIN", "State=UP"))
    assert check_partition([theirs], "gpu2", ["users", "lab"]).verdict is Verdict.OK
    finding = check_partition([theirs], "gpu2", ["users"])
    assert finding.verdict is Verdict.PROBLEM
    assert "allows only the groups lab, staff, and you are in users" in finding.message


def test_without_a_default_a_partition_must_be_named():
    finding = check_partition([AMPERE, GPU2], None, [])
    assert finding.verdict is Verdict.PROBLEM
    assert finding.hint == "choose a --partition: ampere, gpu2"


@pytest.mark.parametrize(
    ("queue", "walltime", "verdict", "message"),
    [
        ("normal", "2-00:00:00", Verdict.OK, "2-00:00:00 of at most 2-00:00:00"),
        ("normal", "2-00:00:01", Verdict.PROBLEM, "more than the 2-00:00:00 that normal allows"),
        ("normal,ampere", "3-00:00:00", Verdict.OK, "3-00:00:00 of at most 7-00:00:00"),
        ("gpu2", "30-00:00:00", Verdict.OK, "30-00:00:00; gpu2 has no time limit"),
        (None, None, Verdict.OK, "jobs in normal get 01:00:00 by default, and at most 2-00:00:00"),
        ("gpu2", None, Verdict.OK, "no walltime was given, and gpu2 has no time limit"),
    ],
)
def test_a_walltime_is_within_the_limit(queue, walltime, verdict, message):
    finding = check_walltime(ALL, JobRequest(queue=queue, walltime=walltime))
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
        ("empty", {"gpus_per_job": 1}, "gres", Verdict.PROBLEM, "empty has no nodes", "another"),
    ],
)
def test_nodes_have_what_is_wanted(queue, asked, check, verdict, message, hint):
    partitions = [*ALL, *map(part, ("old", "full", "empty"))]
    finding = check_devices(NODES, partitions, JobRequest(queue=queue, **asked))
    assert (finding.check, finding.verdict) == (check, verdict), finding
    assert message in finding.message
    assert hint in finding.hint
