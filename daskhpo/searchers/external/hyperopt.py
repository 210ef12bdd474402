"""The searcher that uses HyperOpt's tree-structured Parzen estimators."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

from daskhpo.core.arguments import check_int
from daskhpo.core.domains import Categorical, Domain, Integer, Ordinal, Real
from daskhpo.core.libraries import need
from daskhpo.core.space import Space
from daskhpo.core.types import Config
from daskhpo.searchers.external.adapter import (
    AskTellSearcher,
    Optimiser,
    TrialOutcome,
    nearest,
    place,
    seed_below,
)


class HyperOptSearch(AskTellSearcher):
    """HyperOpt's TPE; ``pip install 'daskhpo[hyperopt]'``.

    Parameters
    ----------
    n_startup_trials : number of random trials before the model is used; at least 1.
    points_to_evaluate : configurations to try first, in this order.

    Notes
    -----
    ``Real`` becomes ``hp.uniform`` or ``hp.loguniform``; ``Integer`` becomes ``hp.quniform``, or
    ``hp.qloguniform`` if logarithmic; ``Ordinal`` becomes ``hp.quniform`` over its values' indices;
    ``Categorical`` becomes ``hp.choice``. A trial's loss is its running best, at any resource. A
    failed trial has ``STATUS_FAIL``; HyperOpt counts failed and running trials as bad.

    Raises
    ------
    MissingLibrary : HyperOpt is not installed.

    References
    ----------
    Bergstra et al. 2011, *Algorithms for Hyper-Parameter Optimization*.
    """

    def __init__(
        self, n_startup_trials: int = 20, points_to_evaluate: Sequence[Config] | None = None
    ) -> None:
        super().__init__(points_to_evaluate)
        self.n_startup_trials = check_int("n_startup_trials", n_startup_trials, at_least=1)
        need("hyperopt", "hyperopt")

    def described(self) -> list[str]:
        return [f"n_startup_trials={self.n_startup_trials}"]

    def optimiser(self, space: Space, seed: int) -> Optimiser:
        return _HyperOpt(self.n_startup_trials, space, seed)


class _HyperOpt(Optimiser):
    """HyperOpt's trial documents; handles are their ids."""

    def __init__(self, n_startup_trials: int, space: Space, seed: int) -> None:
        import hyperopt

        self._hyperopt = hyperopt
        self._space, self._seed, self._n_startup = space, seed, n_startup_trials
        labels = {name: _label(hyperopt.hp, name, domain) for name, domain in space.domains.items()}
        self._domain = hyperopt.base.Domain(_never_called, labels)
        self._trials = hyperopt.Trials()

    def ask(self) -> tuple[int, dict[str, Any]]:
        [number] = self._trials.new_trial_ids(1)
        [document] = self._hyperopt.tpe.suggest(
            [number],
            self._domain,
            self._trials,
            seed_below(2**31, self._seed, number),
            n_startup_jobs=self._n_startup,
            verbose=False,
        )
        values = document["misc"]["vals"]
        config = {name: _value(d, values[name][0]) for name, d in self._space.domains.items()}
        # Record the configuration after rounding, which is the one to train.
        self._insert(number, config)
        return number, config

    def add(self, config: Config) -> int:
        [number] = self._trials.new_trial_ids(1)
        self._insert(number, config)
        return int(number)

    def tell(self, handle: int | None, config: Config, outcome: TrialOutcome) -> int:
        number = self.add(config) if handle is None else handle
        document = self._document(number)
        document["misc"]["vals"] = self._vals(config)
        document["state"] = self._hyperopt.JOB_STATE_DONE
        document["result"] = (
            {"status": self._hyperopt.STATUS_FAIL}
            if outcome.loss is None
            else {"status": self._hyperopt.STATUS_OK, "loss": outcome.loss}
        )
        self._trials.refresh()
        return number

    def __deepcopy__(self, memo: Any) -> _HyperOpt:  # modules in `_domain` cannot be copied
        twin = _HyperOpt(self._n_startup, self._space, self._seed)
        twin._trials = copy.deepcopy(self._trials, memo)
        return twin

    def _insert(self, number: int, config: Config) -> None:
        misc = {
            "tid": number,
            "cmd": self._domain.cmd,
            "workdir": None,
            "idxs": {name: [number] for name in self._space.domains},
            "vals": self._vals(config),
        }
        [document] = self._trials.new_trial_docs([number], [None], [{"status": "new"}], [misc])
        self._trials.insert_trial_doc(document)
        self._trials.refresh()

    def _vals(self, config: Config) -> dict[str, list[Any]]:
        domains = self._space.domains
        return {name: [_param(domain, config[name])] for name, domain in domains.items()}

    def _document(self, number: int) -> Any:
        return self._trials._dynamic_trials[number]


def _never_called(config: Any) -> float:
    raise AssertionError("daskhpo runs the trials")


def _label(hp: Any, name: str, domain: Domain) -> Any:
    # Each int has half a unit on both sides, else the ends would be half as likely as the others.
    match domain:
        case Real(low, high, True):
            return hp.loguniform(name, math.log(low), math.log(high))
        case Real(low, high):
            return hp.uniform(name, low, high)
        case Integer(low, high, True):
            return hp.qloguniform(name, math.log(low - 0.5), math.log(high + 0.5), 1)
        case Integer(low, high):
            return hp.quniform(name, low - 0.5, high + 0.5, 1)
        case Ordinal(values=values):
            return hp.quniform(name, -0.5, len(values) - 0.5, 1)
        case Categorical(values=values):
            return hp.choice(name, list(range(len(values))))
    raise ValueError(f"HyperOpt cannot search {domain!r}")


def _param(domain: Domain, value: Any) -> Any:
    match domain:
        case Ordinal():
            return float(place(domain, value))
        case Categorical():
            return place(domain, value)
        case _:
            return float(value)


def _value(domain: Domain, param: Any) -> Any:
    if isinstance(domain, Ordinal):  # the number is an index
        return domain.values[min(max(round(float(param)), 0), len(domain.values) - 1)]
    return nearest(domain, param)
