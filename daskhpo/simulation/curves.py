"""Where learning curves come from: recorded ones, and ones that are made up.

A *source* is called with a configuration and gives its :class:`daskhpo.simulation.Curve`, so that a
study can be played through in virtual time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from daskhpo.core.objective import RESERVED, Mode, Objective
from daskhpo.core.random import rng
from daskhpo.core.space import Categorical, Space
from daskhpo.core.types import Config

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CurveTable", "RecordedCurve", "SyntheticCurves"]

CONFIG = "config/"


class RecordedCurve:
    """A recorded curve. Beyond its end the last value holds, and units take its mean time.

    Parameters
    ----------
    values : the metric after 1, 2, … units; NaN where training failed.
    seconds : of training up to the end of each of them.
    later : a unit's time as a share of the first one's, which may have a launch in it; asked for
        if there is no other unit.
    """

    __slots__ = ("_pace", "_seconds", "_values", "n_units")

    def __init__(
        self, values: Sequence[float], seconds: Sequence[float], later: float = 1.0
    ) -> None:
        self._values, self._seconds = values, seconds
        self.n_units = len(values)  #: units that were recorded
        self._pace = _pace(seconds) if seconds[1:] else later * seconds[0]

    def metric(self, resource: int) -> float:
        return self._values[min(resource, self.n_units) - 1]

    def seconds(self, resource: int) -> float:
        beyond = resource - self.n_units
        return (
            self._seconds[-1] + beyond * self._pace if beyond > 0 else self._seconds[resource - 1]
        )


@dataclass(frozen=True)
class CurveTable:
    """Recorded learning curves, each with its configuration.

    Parameters
    ----------
    objective : the metric that the curves are of.
    configs, curves : of each training; at least two.
    """

    objective: Objective
    configs: tuple[Config, ...]
    curves: tuple[RecordedCurve, ...]

    def __post_init__(self) -> None:
        if len(self.curves) < 2:
            raise ValueError(f"{len(self.curves)} learning curves: at least two are needed")

    def __len__(self) -> int:
        return len(self.curves)

    @property
    def max_t(self) -> int:
        """Units of the longest curve."""
        return max(curve.n_units for curve in self.curves)

    @property
    def best(self) -> float:
        """The best recorded value.

        Raises
        ------
        ValueError : there is no finite value.
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
        """The curves of a study's directory, or of a table: a CSV file, compressed or not.

        Parameters
        ----------
        metric : its column; None: the study's metric, or the only one of the table.
        mode : None: the study's, or ``"min"``.

        Raises
        ------
        FileNotFoundError : there is neither. ValueError : it is no such table.
        """
        path = Path(path)
        if path.is_dir():
            from daskhpo.results.result import load_study

            result = load_study(path)
            objective = Objective(metric or result.objective.metric, mode or result.objective.mode)
            return cls.of(result.curves(), objective.metric, objective.mode)
        if not path.is_file():
            raise FileNotFoundError(f"{path} is neither a study's directory nor a table of curves")
        import pandas as pd

        try:
            frame = pd.read_csv(path)
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is no CSV file: {error}") from None
        try:
            return cls.of(frame, metric or _only_metric(frame), mode or "min")
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    @classmethod
    def of(cls, frame: pd.DataFrame, metric: str, mode: Mode = "min") -> CurveTable:
        """The curves of a table like that of :meth:`daskhpo.Result.curves`.

        Raises
        ------
        ValueError : columns are missing, or a curve has gaps, or times that are none.
        """
        objective = Objective(metric, mode)
        if missing := [n for n in ("trial", "resource", "seconds", metric) if n not in frame]:
            raise ValueError(
                f"a table of curves needs a column {missing[0]!r}; it has {list(frame.columns)}"
            )
        for name in ("resource", "seconds", metric):
            if frame[name].dtype.kind not in "iuf":
                raise ValueError(f"the column {name!r} must hold numbers")
        names = [name for name in frame.columns if str(name).startswith(CONFIG)]
        configs, recorded = [], []
        for trial, part in frame.sort_values("resource", kind="stable").groupby(
            "trial", sort=False
        ):
            resources, seconds = part["resource"].tolist(), part["seconds"].tolist()
            if resources != list(range(1, len(resources) + 1)):
                raise ValueError(f"trial {trial}: resource must count 1, 2, 3, … without a gap")
            if not all(
                0 <= a <= b < math.inf for a, b in zip([0, *seconds], seconds, strict=False)
            ):
                raise ValueError(f"trial {trial}: seconds must be finite and never fall")
            if seconds[-1] == 0:
                raise ValueError(f"trial {trial}: its training took no time")
            recorded.append((part[metric].astype(float).tolist(), seconds))
            first = part.iloc[0]
            configs.append({name.removeprefix(CONFIG): _plain(first[name]) for name in names})
        shares = [_pace(times) / times[0] for _, times in recorded if times[1:] and times[0]]
        later = float(np.median(shares)) if shares else 1.0
        curves = (RecordedCurve(values, times, later) for values, times in recorded)
        return cls(objective, tuple(configs), tuple(curves))

    def frame(self) -> pd.DataFrame:
        """The table: one row a unit; see :meth:`daskhpo.Result.curves`."""
        import pandas as pd

        rows = []
        for trial, (config, curve) in enumerate(zip(self.configs, self.curves, strict=True)):
            named = {f"{CONFIG}{name}": value for name, value in config.items()}
            for r in range(1, curve.n_units + 1):
                row = {"trial": trial, "resource": r, "seconds": curve.seconds(r)}
                rows.append(row | {self.objective.metric: curve.metric(r)} | named)
        return pd.DataFrame(rows)

    def write(self, path: str | Path) -> None:
        """Write it as a CSV file (``.csv.gz``: compressed), which :meth:`read` reads."""
        self.frame().to_csv(path, index=False)

    def numbered(self, config: Config) -> RecordedCurve:
        """The source for ``{"curve": n}``: the n-th curve, as if there were nothing else."""
        return self.curves[config["curve"]]

    def nearest(self, space: Space) -> Callable[[Config], RecordedCurve]:
        """The source for a space: a configuration learns like the nearest one in the unit cube.

        Categories are equal or one apart.

        Raises
        ------
        ValueError : the table lacks a hyperparameter, or has a value that the space has not.
        """
        where = np.array([_place(space, config) for config in self.configs])

        def curve(config: Config) -> RecordedCurve:
            apart = where - np.array(_place(space, config))
            return self.curves[int(np.argmin(np.einsum("ij,ij->i", apart, apart)))]

        return curve


@dataclass(frozen=True)
class SyntheticCurves:
    """A source for planning: times as they are stated, and losses that are made up.

    Each configuration has a quality, which shows at the end, and draws how well it seems to learn
    at the beginning. Both are normal numbers with a stated correlation; in between the curve moves
    from one to the other with the logarithm of the resource, on top of a fall that all share.

    Schedulers that compare trials at the same resource see ranks only, so that neither the shape
    nor the scale matters to them; the correlation does, a little, and how often it lets a trial
    survive is what a forecast depends on.

    Parameters
    ----------
    seconds_per_unit : one number, or several: each configuration draws one of them.
    max_t : units of a fully trained trial.
    mode : of the metric.
    rank_correlation : of early with late losses, from 0 (early ones say nothing) to 1.
    trend : fall of the shared curve over a whole training, in standard deviations of quality.
    seed : other seeds give all configurations other curves.
    """

    seconds_per_unit: tuple[float, ...]
    max_t: int
    mode: Mode = "min"
    rank_correlation: float = 0.5
    trend: float = 10.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.seconds_per_unit or not all(0 < s < math.inf for s in self.seconds_per_unit):
            raise ValueError(
                f"seconds_per_unit={self.seconds_per_unit!r} must be one or more numbers above 0"
            )
        if not 0 <= self.rank_correlation <= 1:
            raise ValueError(f"rank_correlation={self.rank_correlation!r} must be between 0 and 1")

    def __call__(self, config: Config) -> _SyntheticCurve:
        key = f"curve {sorted(config.items(), key=repr)!r}"  # the same whenever it is asked
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


def _pace(seconds: Sequence[float]) -> float:
    """Mean time of a unit after the first."""
    return (seconds[-1] - seconds[0]) / (len(seconds) - 1)


def _only_metric(frame: pd.DataFrame) -> str:
    names = [str(name) for name in frame.columns]
    metrics = [name for name in names if not name.startswith(CONFIG) and name not in RESERVED]
    if len(metrics) != 1:
        raise ValueError(f"name the metric: the table has {metrics or 'none'}")
    return metrics[0]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _place(space: Space, config: Config) -> list[float]:
    """A configuration's place in the unit cube, with categories one apart."""
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
