from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.conda import standin


@pytest.fixture(scope="session", autouse=True)
def package_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No package of another build, with the same name, is taken from a cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RATTLER_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def channel() -> Path:
    """All that daskhpo needs, as packages of conda: this interpreter, and wheels."""
    return standin.channel_of_requirements(standin.ROOT / ".conda")
