"""Learning curves for studies in virtual time: recorded and synthetic ones.

A *source* is called with a configuration and returns its :class:`daskhpo.simulation.Curve`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from daskhpo.core.arguments import check_choice, check_each, check_int, check_list, check_number
from daskhpo.core.cells import decode_cell, encode_cell
from daskhpo.core.domains import Categorical
from daskhpo.core.errors import InvalidArgument
from daskhpo.core.objective import RESERVED, Mode, Objective
from daskhpo.core.random import rng
from daskhpo.core.space import Space
from daskhpo.core.study_folders import nearby_studies
from daskhpo.core.types import Config
from daskhpo.results.columns import column, config_columns
from daskhpo.virtual.recorded import RecordedCurve, recorded_curves

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CurveTable", "RecordedCurve", "SyntheticCurves"]

CONFIG = "config/"


@dataclass(frozen=True)
class CurveTable:
    """Recorded learning curves and their configurations.

    Parameters
    ----------
    objective : the metric of the curves.
    configs, curves : configuration and curve of each trial; at least two.
    """

    objective: Objective
    configs: tuple[Config, ...]
    curves: tuple[RecordedCurve, ...]

    def __post_init__(self) -> None:
        if len(self.curves) < 2:
            raise ValueError(f"got {len(self.curves)} learning curves: at least two are needed")

    def __len__(self) -> int:
        return len(self.curves)

    @property
    def max_t(self) -> int:
        """Number of units of the longest curve."""
        return max(curve.n_units for curve in self.curves)

    @property
    def best(self) -> float:
        """The best recorded value.

        Raises
        ------
        ValueError : no value is finite.
        """
        losses = [
            self.objective.loss({self.objective.metric: curve.metric(resource)})
            for curve in self.curves
            for resource in range(1, curve.n_units + 1)
        ]
        if (least := min(losses)) == math.inf:
            raise ValueError(f"no curve has a finite value of {self.objective.metric!r}")
        return self.objective.value(least)

    @classmethod
    def read(
        cls, path: str | Path, metric: str | None = None, mode: Mode | None = None
    ) -> CurveTable:
        """Read curves from a study's directory, or from a CSV file, compressed or not.

        Parameters
        ----------
        metric : name of the metric's column; None: the study's metric, or the table's only one.
        mode : ``"min"`` or ``"max"``; None: the study's mode, or ``"min"`` for a file.

        Raises
        ------
        FileNotFoundError : ``path`` is no directory or file. ValueError : the file is no table of
            curves.
        """
        path = Path(path)
        if path.is_dir():
            from daskhpo.results.result import load_study

            result = load_study(path)
            objective = Objective(metric or result.objective.metric, mode or result.objective.mode)
            return cls.of(result.curves(), objective.metric, objective.mode)
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} is neither a study's directory nor a table of curves. "
                f"{nearby_studies(path)}"
            )
        import pandas as pd

        try:
            frame = pd.read_csv(path)
            names = [name for name in frame.columns if str(name).startswith(CONFIG)]
            cells = pd.read_csv(path, usecols=names, dtype=str, na_filter=False)
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{path} is not a valid CSV file: {reason}") from None
        for name in names:
            frame[name] = column([decode_cell(text) for text in cells[name].tolist()])
        try:
            return cls.of(frame, metric or _only_metric(frame), mode or "min")
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    @classmethod
    def of(cls, frame: pd.DataFrame, metric: str, mode: Mode = "min") -> CurveTable:
        """Make a table from a frame like that of :meth:`daskhpo.Result.curves`.

        Raises
        ------
        ValueError : a column is missing or not numeric, or a curve has gaps or impossible times.
        """
        objective = Objective(metric, mode)
        if missing := [n for n in ("trial", "resource", "seconds", metric) if n not in frame]:
            raise ValueError(
                f"a table of curves needs a column {missing[0]!r}; this one has "
                f"{list(frame.columns)}"
            )
        for name in ("resource", "seconds", metric):
            if frame[name].dtype.kind not in "iuf":
                raise ValueError(f"the column {name!r} must hold numbers")
        names = [name for name in frame.columns if str(name).startswith(CONFIG)]
        configs, recorded = [], []
        frame = frame.sort_values("resource", kind="stable", ignore_index=True)
        settings = {name: frame[name].tolist() for name in names}  # a row would have one type
        for trial, part in frame.groupby("trial", sort=False):
            resources, seconds = part["resource"].tolist(), part["seconds"].tolist()
            if resources != list(range(1, len(resources) + 1)):
                raise ValueError(f"trial {trial}: resource must count 1, 2, 3, … without gaps")
            if not all(
                0 <= a <= b < math.inf for a, b in zip([0, *seconds], seconds, strict=False)
            ):
                raise ValueError(
                    f"trial {trial}: seconds must be finite, at least 0, and never decrease"
                )
            if seconds[-1] == 0:
                raise ValueError(f"trial {trial}: the seconds of its last unit must be above 0")
            recorded.append((part[metric].astype(float).tolist(), seconds))
            first = part.index[0]
            configs.append({name.removeprefix(CONFIG): settings[name][first] for name in names})
        return cls(objective, tuple(configs), recorded_curves(recorded))

    def frame(self) -> pd.DataFrame:
        """Return the table, with one row per unit; see :meth:`daskhpo.Result.curves`."""
        import pandas as pd

        rows, configs = [], []
        for trial, (config, curve) in enumerate(zip(self.configs, self.curves, strict=True)):
            for r in range(1, curve.n_units + 1):
                row = {"trial": trial, "resource": r, "seconds": curve.seconds(r)}
                rows.append(row | {self.objective.metric: curve.metric(r)})
                configs.append(config)
        return pd.concat([pd.DataFrame(rows), config_columns(configs)], axis=1)

    def write(self, path: str | Path) -> None:
        """Write a CSV file (``.csv.gz``: compressed), for :meth:`read`.

        Values of hyperparameters are JSON; text stands as it is, unless it could be taken for
        another value.
        """
        frame = self.frame()
        for name in frame.columns:
            if str(name).startswith(CONFIG):
                frame[name] = [encode_cell(value) for value in frame[name].tolist()]
        frame.to_csv(path, index=False)

    def numbered(self, config: Config) -> RecordedCurve:
        """Return the n-th curve for a configuration ``{"curve": n}``; usable as a source."""
        return self.curves[config["curve"]]

    def nearest(self, space: Space) -> Callable[[Config], RecordedCurve]:
        """Return a source for a space: it returns the curve of the nearest configuration.

        Distances are Euclidean in the unit cube; different categories have the distance 1.

        Raises
        ------
        ValueError : the table lacks a hyperparameter, or has a value outside the space.
        """
        where = np.array([_place(space, config) for config in self.configs])

        def curve(config: Config) -> RecordedCurve:
            apart = where - np.array(_place(space, config))
            return self.curves[int(np.argmin(np.einsum("ij,ij->i", apart, apart)))]

        return curve


@dataclass(frozen=True)
class SyntheticCurves:
    """A source of curves for planning, with given times and synthetic losses.

    Each configuration draws an early and a late loss: normal numbers with a given correlation. The
    curve moves from the early loss to the late one with the logarithm of the resource. A downward
    trend, which all configurations share, is added.

    Schedulers that compare trials at the same resource use ranks only, so neither the shape nor the
    scale matters to them. The correlation matters a little: a forecast depends on how many trials
    survive.

    Parameters
    ----------
    seconds_per_unit : seconds of a unit; of several numbers each configuration draws one.
    max_t : units of a fully trained trial.
    mode : ``"min"`` or ``"max"``; for ``"max"`` the signs are reversed.
    rank_correlation : of early with late losses, from 0 (early losses predict nothing) to 1.
    trend : fall of the shared trend over a whole training, in standard deviations of late losses.
    seed : another seed gives each configuration another curve.
    """

    seconds_per_unit: tuple[float, ...]
    max_t: int
    mode: Mode = "min"
    rank_correlation: float = 0.5
    trend: float = 10.0
    seed: int = 0

    def __post_init__(self) -> None:
        paces = check_list("seconds_per_unit", self.seconds_per_unit, of="numbers above 0")
        if not paces:
            raise InvalidArgument("seconds_per_unit=() must be one or more numbers above 0")
        check_each("seconds_per_unit", paces, check_number, above=0)
        check_int("max_t", self.max_t, at_least=1)
        check_choice("mode", self.mode, ("min", "max"))
        check_number("rank_correlation", self.rank_correlation, at_least=0, at_most=1)
        check_number("trend", self.trend)
        check_int("seed", self.seed, at_least=0)

    def __call__(self, config: Config) -> _SyntheticCurve:
        key = f"curve {sorted(config.items(), key=repr)!r}"  # equal configs: the same curve
        generator = rng(self.seed, key)
        late, other = generator.normal(size=2).tolist()
        early = self.rank_correlation * late + math.sqrt(1 - self.rank_correlation**2) * other
        pace = self.seconds_per_unit[int(generator.integers(len(self.seconds_per_unit)))]
        return _SyntheticCurve(self, early, late, pace)


class _SyntheticCurve:
    __slots__ = ("_early", "_fall", "_late", "_log", "_pace", "_sign")

    def __init__(self, source: SyntheticCurves, early: float, late: float, pace: float) -> None:
        self._early, self._late, self._pace = early, late, pace
        self._log = math.log(max(source.max_t, 2))
        self._fall, self._sign = source.trend, 1.0 if source.mode == "min" else -1.0

    def metric(self, resource: int) -> float:
        progress = math.log(resource) / self._log
        loss = self._early + progress * (self._late - self._early) + self._fall * (1 - progress)
        return self._sign * loss

    def seconds(self, resource: int) -> float:
        return self._pace * resource


def _only_metric(frame: pd.DataFrame) -> str:
    names = [str(name) for name in frame.columns]
    metrics = [name for name in names if not name.startswith(CONFIG) and name not in RESERVED]
    if len(metrics) != 1:
        raise ValueError(f"name the metric: the table has {metrics or 'no metrics'}")
    return metrics[0]


def _place(space: Space, config: Config) -> list[float]:
    """Return a configuration's point in the unit cube; categories have the distance 1."""
    place = []
    for name, domain in space.domains.items():
        if name not in config:
            raise ValueError(f"the curves have no {CONFIG}{name}; they have {list(config)}")
        try:
            place.append(domain.to_unit(config[name]))
        except (ValueError, TypeError):
            raise ValueError(f"{name}={config[name]!r} of a curve is not in {domain}") from None
        if isinstance(domain, Categorical):
            n = len(domain.values)
            chosen = round(place.pop() * n - 0.5)
            place += [math.sqrt(0.5) * (i == chosen) for i in range(n)]
    return place
