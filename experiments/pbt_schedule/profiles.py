"""Two sizes of the experiment: network, epochs and number of members."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from daskhpo.space import Real

LEARNING_RATES = Real(1e-3, 3e-2, log=True)


@dataclass(frozen=True)
class Profile:
    """One size of the experiment; the unit of resource is an epoch.

    Attributes
    ----------
    data : profile of the adsorption experiment that provides the structures.
    population : number of members, and of constant rates to compare with.
    max_t, interval : total number of epochs; epochs between rankings.
    network : all hyperparameters except the learning rate; constant.
    """

    name: str
    data: str
    population: int
    max_t: int
    interval: int
    network: dict[str, Any] = field(
        default_factory=lambda: {
            "batch_size": 61,
            "embedding": 16,
            "conv_layers": 2,
            "fc_size": 32,
            "fc_layers": 2,
        }
    )

    def space(self, lr: Any = LEARNING_RATES) -> dict[str, Any]:
        """Return the space: the network with a learning rate, or a domain of rates."""
        return {"lr": lr, **self.network, "profile": self.data}


PROFILES = {
    profile.name: profile
    for profile in (
        Profile("smoke", "smoke", population=4, max_t=8, interval=2),
        Profile("laptop", "laptop", population=12, max_t=54, interval=3),
    )
}
