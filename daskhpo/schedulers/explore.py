"""Exploration: new configurations for members that exploited."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

from daskhpo.core.domains import Domain
from daskhpo.core.random import rng
from daskhpo.core.types import Config, Report, Trial, TrialId


class Explorer(ABC):
    """Base class of explorers, which choose configurations of members that exploited.

    A configuration may be near the source's or not. The hooks notify the explorer of events in the
    population; most explorers do not need them.
    """

    @abstractmethod
    def setup(self, domains: Mapping[str, Domain], seed: int) -> None:
        """Set up for the domains that may change; called before any other method.

        Raises
        ------
        ValueError : it cannot use these domains.
        """

    @abstractmethod
    def candidates(
        self, member: TrialId, n_exploits: int, config: Config, source: TrialId | None
    ) -> Iterator[dict[str, Any]]:
        """Yield configurations for a member that exploits, without end.

        It must not change the explorer. The first configuration is used, unless another member
        already continued from the same state with it.

        Parameters
        ----------
        n_exploits : number of earlier exploits of this member; with ``member`` the key of random
            draws.
        config : the source's configuration, in which the domains of ``setup`` may change.
        source : member whose newest state is taken over; None: not known.
        """

    def on_report(self, trial: Trial, report: Report, loss: float) -> None:
        """Note that a member reported; it is ranked by ``loss``."""

    def on_exploit(self, trial: Trial, source: TrialId) -> None:
        """Note that a member took over another one's newest state; see ``trial.config``."""

    def on_failure(self, trial: Trial) -> None:
        """Note that a member failed or was rolled back; it has to exploit another one."""

    def on_end(self, trial: Trial) -> None:
        """Note that a member ended."""

    def on_extend(self, trial: Trial, loss: float) -> None:
        """Note that a member that had ended continues; it is ranked by ``loss``."""


class Perturb(Explorer):
    """Explorer that perturbs or resamples each hyperparameter.

    Parameters
    ----------
    resample_probability : probability that a hyperparameter is drawn from its domain again,
        instead of being perturbed.

    References
    ----------
    Jaderberg et al. 2017, App. A.
    """

    def __init__(self, resample_probability: float) -> None:
        self._resample = resample_probability
        self._domains: dict[str, Domain] = {}
        self._seed = 0

    def setup(self, domains: Mapping[str, Domain], seed: int) -> None:
        self._domains, self._seed = dict(domains), seed

    def candidates(
        self, member: TrialId, n_exploits: int, config: Config, source: TrialId | None
    ) -> Iterator[dict[str, Any]]:
        generator = rng(self._seed, "explore", member, n_exploits)
        while True:
            explored = dict(config)
            for name, domain in self._domains.items():
                if generator.random() < self._resample or not domain.contains(config.get(name)):
                    explored[name] = domain.sample(generator)
                else:
                    explored[name] = domain.perturb(config[name], generator)
            yield explored
