"""The searcher that uses Optuna's samplers."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Sequence
from typing import Any, Literal, get_args

from daskhpo.core.arguments import check_choice
from daskhpo.core.domains import Categorical, Domain, Integer, Ordinal, Real
from daskhpo.core.libraries import need
from daskhpo.core.space import Space
from daskhpo.core.types import Config
from daskhpo.searchers.external.adapter import (
    AskTellSearcher,
    Optimiser,
    TrialOutcome,
    one_torch_thread,
    place,
    seed_below,
)

Sampler = Literal["tpe", "gp", "cmaes"]
N_EARLIER = 10  # earlier trials that CMA-ES needs to start from the best tenth of them


class OptunaSearch(AskTellSearcher):
    """Optuna's samplers; ``pip install 'daskhpo[optuna]'``.

    Parameters
    ----------
    sampler : ``"tpe"``, tree-structured Parzen estimators: fast, good for mixed spaces;
        ``"gp"``, a Gaussian process: better on smooth problems with few trials, slower, needs
        torch; ``"cmaes"``, an evolution strategy: for many trials of numbers; categories are drawn
        at random.
    points_to_evaluate : configurations to try first, in this order.

    Notes
    -----
    ``Real`` and ``Integer`` become Optuna's float and int, ``Ordinal`` an int: the value's index.
    For the TPE, a trial that is not trained to the end is pruned, with its running best at its
    current resource. The TPE ranks pruned trials below all complete ones, and by resource first.
    The other samplers have no pruned trials; for them such a trial is complete. A failed trial has
    the state ``FAIL``, from which no sampler learns. CMA-ES learns from its own proposals only; in
    a resumed study it starts near the best tenth of the earlier trials, if there are at least ten.

    Raises
    ------
    MissingLibrary : Optuna is not installed, or a library that the sampler needs.

    References
    ----------
    Akiba et al. 2019, *Optuna: A Next-generation Hyperparameter Optimization Framework*.
    """

    def __init__(
        self, sampler: Sampler = "tpe", points_to_evaluate: Sequence[Config] | None = None
    ) -> None:
        super().__init__(points_to_evaluate)
        self.sampler: Sampler = check_choice("sampler", sampler, get_args(Sampler))
        need("optuna", "optuna")
        match self.sampler:
            case "gp":
                need("torch", "torch")
            case "cmaes":
                need("cmaes", "optuna")

    def described(self) -> list[str]:
        return [f"sampler={self.sampler!r}"]

    def optimiser(self, space: Space, seed: int) -> Optimiser:
        return _Optuna(self.sampler, space, seed)


class _Optuna(Optimiser):
    """An Optuna study in memory; handles are trial numbers."""

    def __init__(self, sampler: Sampler, space: Space, seed: int) -> None:
        import optuna

        class Storage(optuna.storages.InMemoryStorage):  # type: ignore[misc]
            """A storage in which outcomes may change, for trials that resume."""

            def replace(self, number: int, trial: Any) -> None:
                with self._lock:
                    self._set_trial(number, trial)  # with one study, trial ids equal numbers

        self._seed = seed_below(2**32, seed)
        self._storage = Storage()
        level = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # no message for each study
        try:
            self._study = optuna.create_study(storage=self._storage)
        finally:
            optuna.logging.set_verbosity(level)
        self._study.sampler = _made(sampler, self._seed)
        self._sampler, self._n_asked = sampler, 0
        self._space = space
        self._prunes = sampler == "tpe"
        self._distributions = {
            name: _distribution(optuna.distributions, domain)
            for name, domain in space.domains.items()
        }
        self._create, self._states = optuna.trial.create_trial, optuna.trial.TrialState

    def ask(self) -> tuple[int, dict[str, Any]]:
        if self._sampler == "cmaes" and self._n_asked == 0:
            self._study.sampler = _made(self._sampler, self._seed, self._numbers_only())
        self._n_asked += 1
        with one_torch_thread() if self._sampler == "gp" else contextlib.nullcontext():
            trial = self._study.ask(self._distributions)
        domains = self._space.domains
        return trial.number, {name: _value(domains[name], v) for name, v in trial.params.items()}

    def add(self, config: Config) -> int:
        number = len(self._study.get_trials(deepcopy=False))
        self._study.add_trial(self._frozen(config, self._states.RUNNING))
        return number

    def tell(self, handle: int | None, config: Config, outcome: TrialOutcome) -> int:
        number = self.add(config) if handle is None else handle
        known = self._study.get_trials(deepcopy=False)[number]
        told = self._frozen(config, self._states.RUNNING)
        told.state = self._states.FAIL
        if outcome.loss is not None:
            told.state, told.value = self._states.COMPLETE, outcome.loss
            if self._prunes and not outcome.complete:
                told.state = self._states.PRUNED
                told.intermediate_values = {outcome.resource: outcome.loss}
        if not known.state.is_finished():  # `Study.tell` runs the sampler's `after_trial`
            is_complete = told.state == self._states.COMPLETE
            self._study.tell(number, told.value if is_complete else None, told.state)
            known = self._study.get_trials(deepcopy=False)[number]
        now = copy.copy(known)
        now.state, now.value = told.state, told.value
        now.params, now.distributions = told.params, told.distributions
        now.intermediate_values = told.intermediate_values
        self._storage.replace(number, now)
        return number

    def _numbers_only(self) -> list[Any]:
        """Return the trials with a loss for CMA-ES, without their categories."""
        kept = {n for n, d in self._space.domains.items() if not isinstance(d, Categorical)}
        return [
            self._create(
                value=trial.value,
                params={name: v for name, v in trial.params.items() if name in kept},
                distributions={name: self._distributions[name] for name in kept},
            )
            for trial in self._study.get_trials(deepcopy=False)
            if trial.state == self._states.COMPLETE
        ]

    def _frozen(self, config: Config, state: Any) -> Any:
        domains = self._space.domains
        return self._create(
            state=state,
            params={name: _param(domain, config[name]) for name, domain in domains.items()},
            distributions=self._distributions,
        )


def _made(sampler: Sampler, seed: int, earlier: Sequence[Any] = ()) -> Any:
    """Create the sampler; CMA-ES starts from earlier trials if there are enough."""
    from optuna import exceptions, samplers

    with warnings.catch_warnings():
        # These options are experimental: source_trials, and constant_liar before Optuna 5.0.
        warnings.simplefilter("ignore", exceptions.ExperimentalWarning)
        match sampler:
            case "tpe":
                return samplers.TPESampler(seed=seed, constant_liar=True)
            case "gp":
                return samplers.GPSampler(seed=seed)
            case "cmaes":
                return samplers.CmaEsSampler(
                    seed=seed,
                    warn_independent_sampling=False,
                    source_trials=earlier if len(earlier) >= N_EARLIER else None,
                )


def _distribution(distributions: Any, domain: Domain) -> Any:
    match domain:
        case Real(low, high, log):
            return distributions.FloatDistribution(low, high, log=log)
        case Integer(low, high, log):
            return distributions.IntDistribution(low, high, log=log)
        case Ordinal(values=values):
            return distributions.IntDistribution(0, len(values) - 1)
        case Categorical(values=values):
            return distributions.CategoricalDistribution(range(len(values)))
    raise ValueError(f"Optuna cannot search {domain!r}")


def _param(domain: Domain, value: Any) -> Any:
    """Convert a value for Optuna: the index if the domain is a list of values."""
    return value if isinstance(domain, (Real, Integer)) else place(domain, value)


def _value(domain: Domain, param: Any) -> Any:
    return domain.values[param] if isinstance(domain, (Ordinal, Categorical)) else param
