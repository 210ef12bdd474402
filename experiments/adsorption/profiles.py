"""Four sizes of the experiment: search space, epochs and amount of data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from daskhpo.space import Integer, Ordinal, Real
from experiments.adsorption.generate import Shape

SMALL = Shape(repeat=2, layers=3)
LEARNING_RATES = Real(1e-3, 1e-1, log=True)
BATCH_SIZES = Ordinal([40, 61, 79, 97, 119, 140, 158, 178, 199, 219, 238])


@dataclass(frozen=True)
class Profile:
    """One size of the experiment; the unit of resource is an epoch.

    Attributes
    ----------
    domains : the six hyperparameters.
    n_structures : number of structures to generate; None: use the committed fixture.
    shape : size of the slabs.
    max_t, grace_period, eta : full training, first rung and reduction factor of ASHA.
    seed : seed of the generated structures.
    """

    name: str
    domains: Mapping[str, Any]
    max_t: int
    grace_period: int
    n_structures: int | None
    shape: Shape = SMALL
    eta: int = 3
    seed: int = 0

    def space(self, **constants: Any) -> dict[str, Any]:
        """Return the search space of a study, with the profile's name and ``constants``.

        Trials use the constants ``data`` and ``geometry``, see :func:`data.load`.

        Examples
        --------
        >>> sorted(PROFILES["smoke"].space(geometry="initial"))[:4]
        ['batch_size', 'conv_layers', 'embedding', 'fc_layers']
        """
        return {**self.domains, "profile": self.name, **constants}


PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            "smoke",
            {
                "lr": LEARNING_RATES,
                # 210 structures for training: with batches of 238 an epoch would be a single step.
                "batch_size": Ordinal([10, 20, 40]),
                "embedding": Integer(4, 16),
                "conv_layers": Integer(1, 2),
                "fc_size": Integer(8, 32),
                "fc_layers": Integer(1, 3),
            },
            max_t=9,
            grace_period=1,
            n_structures=None,
        ),
        Profile(
            "laptop",
            {
                "lr": LEARNING_RATES,
                "batch_size": BATCH_SIZES,
                "embedding": Integer(4, 32),
                "conv_layers": Integer(1, 4),
                "fc_size": Integer(8, 64),
                "fc_layers": Integer(1, 8),
            },
            max_t=27,
            grace_period=3,
            n_structures=2_000,
        ),
        Profile(
            "short",
            {
                "lr": LEARNING_RATES,
                # 560 structures for training: as many steps per epoch as `laptop` has.
                "batch_size": Ordinal([20, 40, 61, 79, 97]),
                "embedding": Integer(4, 16),
                "conv_layers": Integer(1, 2),
                "fc_size": Integer(8, 64),
                "fc_layers": Integer(1, 8),
            },
            max_t=27,
            grace_period=3,  # after one epoch ranks carry no information yet
            n_structures=800,
        ),
        Profile(
            "gpu",
            {
                "lr": LEARNING_RATES,
                "batch_size": BATCH_SIZES,
                "embedding": Integer(1, 100),
                "conv_layers": Integer(1, 40),
                "fc_size": Integer(1, 150),
                "fc_layers": Integer(1, 40),
            },
            max_t=81,
            grace_period=3,
            n_structures=30_000,
            shape=Shape(repeat=3, layers=4),
        ),
    )
}


def profile_named(name: str) -> Profile:
    """Look up a profile by name."""
    if name not in PROFILES:
        raise ValueError(f"profile={name!r} must be one of {sorted(PROFILES)}")
    return PROFILES[name]
