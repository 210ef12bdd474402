"""GPUs of the workers of users' clusters: each has its own."""

from __future__ import annotations

import itertools

import pytest

from daskhpo.cluster.gpus import Gpus, visible_gpus
from daskhpo.executors.dask.devices import UNKNOWN, GpuShares, NoGpu, SeenGpus, seen_gpus


def see(*ids: str, job: str = "") -> SeenGpus:
    return SeenGpus(ids, tuple(f"cuda:{n}" for n in range(len(ids))), job)


def physical(workers: list[SeenGpus], offered: float = 1.0) -> list[str]:
    """The GPU of each worker, if all of them told before the first one chose."""
    shares = GpuShares(range(100))  # type: ignore[arg-type]
    for number, seen in enumerate(workers):
        shares.learn(number, "host", seen, offered)  # type: ignore[arg-type]
    chosen = [shares.choose(number) for number in range(len(workers))]  # type: ignore[arg-type]
    return [seen.ids[int(one.split(":")[1])] for seen, one in zip(workers, chosen, strict=True)]


def rotated(n: int) -> list[SeenGpus]:
    return [see(*(str((first + k) % n) for k in range(n))) for first in range(n)]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_workers_of_dask_cuda_have_their_own_gpu_first(order: tuple[int, ...]) -> None:
    lists = rotated(4)
    assert physical([lists[n] for n in order]) == [str(n) for n in order]


def test_workers_that_see_the_same_list_take_it_in_turns() -> None:
    assert physical([see("4", "7", "2")] * 3) == ["4", "7", "2"]


def test_workers_that_see_one_gpu_each_have_that() -> None:
    assert physical([see("3"), see("GPU-8a"), see("MIG-1")]) == ["3", "GPU-8a", "MIG-1"]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_worker_with_a_choice_leaves_their_only_gpu_to_others(order: tuple[int, ...]) -> None:
    lists = [see("0", "1", "2"), see("0"), see("1", "0")]
    assert sorted(physical([lists[n] for n in order])) == ["0", "1", "2"]


def test_workers_that_share_gpus_spread_over_them() -> None:
    assert sorted(physical([see("0", "1")] * 4, offered=0.5)) == ["0", "0", "1", "1"]
    assert sorted(physical([see("0", "1")] * 2, offered=0.5)) == ["0", "1"]


def test_workers_with_two_gpus_each_have_the_first_of_their_two() -> None:
    assert physical([see("0", "1", "2", "3")] * 2, offered=2) == ["0", "2"]
    four = rotated(4)
    assert physical([four[0], four[2]], offered=2) == ["0", "2"]


def test_jobs_that_number_their_gpus_from_0_do_not_get_in_each_others_way() -> None:
    jobs = [see("0", "1", job="7")] * 2 + [see("0", "1", job="8")] * 2
    assert physical(jobs) == ["0", "1", "0", "1"]


def test_more_workers_than_gpus_share_them_evenly() -> None:
    assert sorted(physical([see("0", "1")] * 4)) == ["0", "0", "1", "1"]


def test_a_gpu_of_a_worker_that_went_is_free_and_other_hosts_have_their_own() -> None:
    alive = {"a", "b"}
    shares = GpuShares(alive)
    for worker, host in (("a", "one"), ("b", "one"), ("c", "two")):
        shares.learn(worker, host, see("0", "1"), 1)
    assert [shares.choose("a"), shares.choose("b")] == ["cuda:0", "cuda:1"]
    alive |= {"c", "d"}
    shares.learn("c", "two", see("0", "1"), 1)
    assert shares.choose("c") == "cuda:0"
    alive.discard("b")
    shares.learn("d", "one", see("0", "1"), 1)
    assert shares.choose("d") == "cuda:1"
    assert shares.choose("a") == "cuda:0"  # asked again, it keeps its own


def test_workers_of_which_nothing_is_known_are_numbered() -> None:
    unknown = seen_gpus(Gpus(), "")
    assert unknown.ids == UNKNOWN
    assert physical([unknown] * 3) == ["0", "1", "2"]


@pytest.mark.parametrize("text", ["", "-1", "NoDevFiles", "2,2"])
def test_a_worker_that_is_shown_no_gpu_says_so(text: str) -> None:
    with pytest.raises(NoGpu, match=f"sees none: CUDA_VISIBLE_DEVICES={text}"):
        seen_gpus(visible_gpus({"CUDA_VISIBLE_DEVICES": text}, lambda argv: None), "")


def test_devices_are_named_as_torch_names_them() -> None:
    ask = lambda argv: None  # noqa: E731
    intel = seen_gpus(visible_gpus({"ZE_AFFINITY_MASK": "3,1"}, ask), "5")
    assert intel == SeenGpus(("3", "1"), ("xpu:0", "xpu:1"), "5")
    amd = seen_gpus(visible_gpus({"ROCR_VISIBLE_DEVICES": "3,1"}, ask), "")
    assert amd.devices == ("cuda:0", "cuda:1")


def test_workers_of_a_machine_know_the_same_gpu_by_the_same_name() -> None:
    shares = GpuShares(range(9))  # type: ignore[arg-type]
    for number, seen in enumerate([see("0", "1"), see("1"), see("0", "1", job="7")]):
        shares.learn(number, "host", seen, 1.0)  # type: ignore[arg-type]
    first, second, in_job = ([shares.choose(n), shares.ids_of(n)][1] for n in range(3))  # type: ignore[arg-type]
    assert (len(first), len(second), len(in_job)) == (1, 1, 1)
    assert first != second
    assert in_job[0] not in first + second, "in another job the same index may be another GPU"
    assert shares.ids_of("nobody") == ()
