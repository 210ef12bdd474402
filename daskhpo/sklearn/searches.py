"""The searches: which candidates there are, and how far each of them trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

from daskhpo.core.arguments import check_int
from daskhpo.core.errors import InvalidArgument
from daskhpo.core.rungs import Level, hyperband_brackets, milestones
from daskhpo.core.searcher import Searcher
from daskhpo.schedulers.asha import ASHA
from daskhpo.schedulers.fifo import FIFO
from daskhpo.schedulers.halving import Hyperband, SuccessiveHalving
from daskhpo.sklearn.base import BaseSearch, Plan
from daskhpo.sklearn.trial import SAMPLES


def _calls(levels: tuple[Level, ...]) -> int:
    """Return the units that a bracket trains."""
    more = [level.n_trials for level in levels[1:]] + [0]
    return sum((a.n_trials - n) * a.resource for a, n in zip(levels, more, strict=True))


# Estimators are equal if they are the same one, and have a repr of scikit-learn's.
@dataclass(eq=False, repr=False)
class ASHASearchCV(BaseSearch):
    """Asynchronous successive halving of candidates drawn from distributions.

    A candidate that is worse than most others at the same resource stops. Nothing waits for others,
    so with several workers the decisions depend on which is faster, whatever ``random_state`` is.

    Parameters
    ----------
    estimator : with ``fit`` or ``partial_fit``, such as a pipeline; its parameters are searched.
    param_distributions : for each parameter a list of values, or a distribution of scipy; or a
        list of such dicts.
    n_iter : number of candidates.
    max_iter : units of training of a candidate that is trained to the end.
    factor : about ``1/factor`` of the candidates survive each milestone.
    min_iter : units before the first milestone.
    resource : what a unit is. ``"partial_fit"``: one call, on all training rows or on one chunk of
        a Dask array. ``"n_samples"``: the training rows grow up to all. The name of an integer
        parameter, such as ``"n_estimators"``: it grows up to the estimator's own value, with
        ``warm_start`` if there is one. ``"auto"``: the first that the estimator has of
        ``partial_fit`` and ``n_samples``.
    cv : a number of folds, or scikit-learn's splitter; None: one random split.
    test_size : share of the rows that the random split holds out; None: 0.2, or one chunk of a
        Dask array if that is less.
    scoring : as in scikit-learn; of several scores the one named by ``refit`` counts.
    refit : fit the best candidate to all rows, on a worker. False: with one split,
        ``best_estimator_`` is the best candidate as it was trained in the search.
    error_score : score of a candidate that failed, or ``"raise"``.
    patience : units after which a candidate is complete if its score has not grown by more than
        ``tol``; True: a third of ``max_iter``; False: no limit.
    searcher : proposes candidates in the place of random draws, such as
        :class:`daskhpo.searchers.GPSearch`.
    storage : directory of the study; fitting again with the same arguments and data continues it.
        None: a temporary one. Workers on other machines need one that they see.
    n_jobs : worker processes, if there is no Dask client; None: one for each CPU.
    random_state : of draws, splits and samples. An int repeats them.
    verbose : show the study's progress.

    References
    ----------
    Li et al. 2020, *A System for Massively Parallel Hyperparameter Tuning*.
    """

    estimator: Any
    param_distributions: Any
    _: KW_ONLY
    n_iter: int = 30
    max_iter: int = 27
    factor: int = 3
    min_iter: int = 1
    resource: str = "auto"
    cv: Any = None
    test_size: float | None = None
    scoring: Any = None
    refit: Any = True
    error_score: Any = float("nan")
    patience: bool | int = False
    tol: float | None = 1e-3
    searcher: Searcher | None = None
    storage: str | Path | None = None
    n_jobs: int | None = None
    random_state: Any = None
    verbose: bool | int = False

    @property
    def _distributions(self) -> Any:
        return self.param_distributions

    def _plan(self) -> Plan:
        n = check_int("n_iter", self.n_iter, at_least=1)
        max_iter = check_int("max_iter", self.max_iter, at_least=1)
        first = check_int("min_iter", self.min_iter, at_least=1, at_most=max_iter)
        factor = check_int("factor", self.factor, at_least=2)
        due = frozenset(milestones(max_iter, first, factor))
        return Plan(n, ASHA(max_iter, first, factor), due)


@dataclass(eq=False, repr=False)
class RandomizedSearchCV(BaseSearch):
    """Random candidates, each fitted once to every fold, on Dask workers.

    Parameters are those of :class:`sklearn.model_selection.RandomizedSearchCV`, and ``searcher``
    and ``storage`` of :class:`ASHASearchCV`. ``cv=None`` is one random split.
    """

    resource = SAMPLES
    patience, tol, test_size = False, None, None

    estimator: Any
    param_distributions: Any
    _: KW_ONLY
    n_iter: int = 10
    scoring: Any = None
    n_jobs: int | None = None
    refit: Any = True
    cv: Any = 5
    verbose: bool | int = False
    random_state: Any = None
    error_score: Any = float("nan")
    searcher: Searcher | None = None
    storage: str | Path | None = None

    @property
    def _distributions(self) -> Any:
        return self.param_distributions

    def _plan(self) -> Plan:
        return Plan(check_int("n_iter", self.n_iter, at_least=1), FIFO(1))


@dataclass(eq=False, repr=False)
class _Incremental(BaseSearch):
    """The searches of dask-ml, and the arguments that they have here only."""

    _: KW_ONLY
    resource: str = "auto"
    cv: Any = None
    refit: Any = True
    error_score: Any = float("nan")
    searcher: Searcher | None = None
    storage: str | Path | None = None
    n_jobs: int | None = None

    def _max_iter(self) -> int:
        return check_int("max_iter", self.max_iter, at_least=1)

    def _aggressiveness(self) -> int:
        return check_int("aggressiveness", self.aggressiveness, at_least=2)


@dataclass(eq=False, repr=False)
class HyperbandSearchCV(_Incremental):
    """Hyperband: brackets of halving, from many short trials to few long ones.

    Parameters
    ----------
    estimator, parameters : as ``estimator, param_distributions`` of :class:`ASHASearchCV`.
    max_iter : units of training of the best candidates, such as calls of ``partial_fit``. It and
        ``aggressiveness`` give the number of candidates: see ``metadata``.
    aggressiveness : about one in so many candidates survives each decision.
    prefix : as in dask-ml, where it begins lines of a log; it has no effect here.
    patience, tol, test_size, random_state, scoring, verbose, resource, cv, refit, error_score,
        searcher, storage, n_jobs : as of :class:`ASHASearchCV`.

    Attributes
    ----------
    metadata : what a search will do, before ``fit``: ``n_models``, ``partial_fit_calls``,
        ``brackets``. ``metadata_`` is what it did.

    References
    ----------
    Li et al. 2018, *Hyperband*. The brackets have the sizes of its Table 1.
    """

    estimator: Any
    parameters: Any
    max_iter: int = 81
    aggressiveness: int = 3
    patience: bool | int = False
    tol: float | None = 1e-3
    test_size: float | None = None
    random_state: Any = None
    scoring: Any = None
    verbose: bool | int = False
    prefix: str = ""

    @property
    def metadata(self) -> dict[str, Any]:
        """Number of models, calls of ``partial_fit``, and brackets of the search."""
        brackets = []
        for number, levels in enumerate(self._brackets()):
            bracket = self._bracket(number)
            brackets.append(
                {
                    "bracket": bracket,
                    "n_models": levels[0].n_trials,
                    "partial_fit_calls": _calls(levels),
                    "decisions": [level.resource for level in levels],
                    "SuccessiveHalvingSearchCV params": self._halving(levels),
                }
            )
        return self._totals(brackets)

    def _metadata(self, models: Mapping[Any, list[dict[str, Any]]]) -> dict[str, Any]:
        brackets = self.metadata["brackets"]
        for bracket in brackets:
            own = [rows for rows in models.values() if rows[0]["bracket"] == bracket["bracket"]]
            ends = {rows[-1]["partial_fit_calls"] for rows in own}
            bracket["n_models"] = len(own)
            bracket["partial_fit_calls"] = sum(rows[-1]["partial_fit_calls"] for rows in own)
            bracket["decisions"] = sorted(ends)
        return self._totals(brackets)

    @staticmethod
    def _totals(brackets: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "n_models": sum(bracket["n_models"] for bracket in brackets),
            "partial_fit_calls": sum(bracket["partial_fit_calls"] for bracket in brackets),
            "brackets": sorted(brackets, key=lambda bracket: int(bracket["bracket"])),
        }

    def _halving(self, levels: tuple[Level, ...]) -> dict[str, Any]:
        """Return the arguments of the SuccessiveHalvingSearchCV that is one bracket."""
        own = {"n_initial_parameters": levels[0].n_trials, "n_initial_iter": levels[0].resource}
        shared = self.get_params(deep=False)
        return own | {
            name: v for name, v in shared.items() if name not in ("estimator", "parameters")
        }

    def _brackets(self) -> tuple[tuple[Level, ...], ...]:
        return hyperband_brackets(self._max_iter(), 1, self._aggressiveness())

    def _bracket(self, number: int) -> int:
        return len(self._brackets()) - 1 - number

    def _plan(self) -> Plan:
        brackets = self._brackets()
        due = frozenset(level.resource for levels in brackets for level in levels)
        n = sum(levels[0].n_trials for levels in brackets)
        return Plan(n, Hyperband(self._max_iter(), 1, self._aggressiveness()), due)


@dataclass(eq=False, repr=False)
class SuccessiveHalvingSearchCV(_Incremental):
    """Successive halving: of all candidates the best continue, until few are left.

    Parameters
    ----------
    estimator, parameters : as ``estimator, param_distributions`` of :class:`ASHASearchCV`.
    n_initial_parameters : number of candidates.
    n_initial_iter : units of training before the first decision.
    max_iter : units of training of the best candidate, at most; None: as many as leave one.
    aggressiveness : about one in so many candidates survives each decision.
    patience, tol, test_size, random_state, scoring, verbose, prefix, resource, cv, refit,
        error_score, searcher, storage, n_jobs : as of :class:`HyperbandSearchCV`.

    References
    ----------
    Jamieson and Talwalkar 2016, *Non-stochastic Best Arm Identification and Hyperparameter
    Optimization*.
    """

    estimator: Any
    parameters: Any
    n_initial_parameters: int = 10
    n_initial_iter: int | None = None
    max_iter: int | None = None
    aggressiveness: int = 3
    test_size: float | None = None
    patience: bool | int = False
    tol: float | None = 1e-3
    random_state: Any = None
    scoring: Any = None
    verbose: bool | int = False
    prefix: str = ""

    @property
    def metadata(self) -> dict[str, Any]:
        """Number of models, calls of ``partial_fit``, and the longest training."""
        levels, max_iter = self._levels()
        return {
            "n_models": levels[0].n_trials,
            "partial_fit_calls": _calls(levels),
            "max_iter": max_iter,
        }

    def _levels(self) -> tuple[tuple[Level, ...], int]:
        n = check_int("n_initial_parameters", self.n_initial_parameters, at_least=1)
        if self.n_initial_iter is None:
            raise InvalidArgument(
                "n_initial_iter is not given: how many units are trained before the first decision?"
            )
        first = check_int("n_initial_iter", self.n_initial_iter, at_least=1)
        eta, levels = self._aggressiveness(), [Level(n, first)]
        most = None if self.max_iter is None else self._max_iter()
        if most is not None and most < first:
            raise InvalidArgument(f"max_iter={most} is below n_initial_iter={first}")
        while (left := levels[-1].n_trials // eta) and (
            most is None or levels[-1].resource * eta <= most
        ):
            levels.append(Level(left, levels[-1].resource * eta))
        return tuple(levels), levels[-1].resource

    def _plan(self) -> Plan:
        levels, max_iter = self._levels()
        n, first = levels[0].n_trials, levels[0].resource
        scheduler = SuccessiveHalving(max_iter, first, self._aggressiveness(), n)
        return Plan(n, scheduler, frozenset(level.resource for level in levels))


@dataclass(eq=False, repr=False)
class IncrementalSearchCV(_Incremental):
    """Random candidates, or a grid, each trained until its score grows no more.

    Parameters
    ----------
    estimator, parameters : as ``estimator, param_distributions`` of :class:`ASHASearchCV`.
    n_initial_parameters : number of candidates; ``"grid"``: all combinations of the listed values.
    max_iter : units of training, at most.
    patience, tol, test_size, random_state, scoring, verbose, prefix, resource, cv, refit,
        error_score, searcher, storage, n_jobs : as of :class:`HyperbandSearchCV`.
    """

    estimator: Any
    parameters: Any
    n_initial_parameters: int | str = 10
    test_size: float | None = None
    patience: bool | int = False
    tol: float | None = 1e-3
    max_iter: int = 100
    random_state: Any = None
    scoring: Any = None
    verbose: bool | int = False
    prefix: str = ""

    def _plan(self) -> Plan:
        n = self.n_initial_parameters
        if n != "grid":
            n = check_int("n_initial_parameters", n, at_least=1)
        return Plan(None if n == "grid" else int(n), FIFO(self._max_iter()))
