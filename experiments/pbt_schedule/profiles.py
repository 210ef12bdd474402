"""Two sizes of the experiment: which network, how long, and how many members."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from daskhpo.space import Real

LEARNING_RATES = Real(1e-3, 3e-2, log=True)


@dataclass(frozen=True)
class Profile:
    """One size; resource is counted in epochs.

    Attributes
    ----------
    data : profile of the adsorption experiment whose structures are used.
    population : members; the constant rates to compare with are as many.
    max_t, interval : epochs in all, and between two rankings.
    network : everything but the learning rate, held fixed.
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
        """The network with this learning rate, or these."""
        return {"lr": lr, **self.network, "profile": self.data}


PROFILES = {
    profile.name: profile
    for profile in (
        Profile("smoke", "smoke", population=4, max_t=8, interval=2),
        Profile("laptop", "laptop", population=12, max_t=54, interval=3),
    )
}
