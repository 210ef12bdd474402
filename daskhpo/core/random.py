"""Random numbers by key: replay and order of arrival do not change them."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence


def rng(seed: int, purpose: str, trial: int = 0, step: int = 0) -> np.random.Generator:
    """Return the generator of a key.

    The same key gives the same numbers; different keys give independent ones. It is a PCG64 whose
    whole initial state is a hash of the key, and takes microseconds to make.
    """
    digest = blake2b(f"{seed}|{purpose}|{trial}|{step}".encode(), digest_size=32).digest()
    return np.random.Generator(np.random.PCG64(_Hashed(digest)))  # type: ignore[arg-type]


def trial_seed(seed: int, trial: int) -> int:
    """Return a seed in [0, 2**31) for a trial's own code.

    It depends only on the study's seed and the trial.
    """
    digest = blake2b(f"{seed}|trial|{trial}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") >> 1


class _Hashed(ISeedSequence):
    """Seed sequence that gives PCG64 a state of 32 bytes."""

    def __init__(self, digest: bytes) -> None:
        self._digest = digest

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> Any:
        return np.frombuffer(self._digest, dtype=dtype)[:n_words]
