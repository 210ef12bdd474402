"""The default rule on clusters with costs: what is counted, and the table."""

from __future__ import annotations

from dataclasses import replace

import pytest

from experiments.default_rule import cluster
from experiments.default_rule.cluster import COMPARED, SITES, Key, keys, read, run, run_all, text
from tests.experiments.test_default_rule import folder  # noqa: F401

SITE = "16 slots without costs"


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("method", ["AHB", "GuardedASHA"])
def test_each_site_can_be_played_and_again_alike(folder, site, method):  # noqa: F811
    first, again = (run(Key(site, "LCBench 1", method, 0), folder) for _ in range(2))
    assert 0 < first.hours <= SITES[site].horizon
    assert replace(first, cpu=0.0) == replace(again, cpu=0.0)
    assert first.units >= first.trials > 0


def test_without_states_paused_trials_train_again(folder):  # noqa: F811
    counts = {
        site: run(Key(site, "LCBench 1", "GuardedASHA", 0), folder)
        for site in (SITE, "trials have no state")
    }
    assert counts[SITE].again == 0 < counts[SITE].resumed
    assert counts["trials have no state"].again > 0


def test_the_table_compares_the_studies_that_all_methods_have(folder, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(cluster, "SITES", {SITE: SITES[SITE]})
    path, todo = tmp_path / "cluster.csv", list(keys(folder, 2))
    run_all(todo[:-1], folder, path)
    assert f"{SITE} (1 studies each)" in text(read(path))
    run_all(todo, folder, path)
    assert [key for key, _ in read(path)] == todo
    assert len(todo) == 2 * len(COMPARED)
