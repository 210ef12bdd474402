"""No process of a DataLoader outlives its worker, wherever that is and whatever is killed."""

from __future__ import annotations

import pytest

from tests.executors.dask import loader_kills

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(400)]


@pytest.mark.parametrize("form", loader_kills.FORMS)
@pytest.mark.parametrize("place", ["embedded", "local", "elsewhere"])
def test_no_process_is_left_of_loaders_that_are_killed(place: str, form: str) -> None:
    pytest.importorskip("torch")
    with loader_kills.cluster_of(place) as client:
        campaign = loader_kills.run(client, form, kills=3, seed=1, window=1.0)
    assert len(campaign.hits) == 3
