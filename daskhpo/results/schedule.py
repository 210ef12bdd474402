"""Schedules: hyperparameters over training, e.g. found by a population."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from daskhpo.core.arguments import check_int, check_number, check_path, check_text, shown
from daskhpo.core.types import ScheduleSegment
from daskhpo.results.columns import config_columns
from daskhpo.results.multistep import MultiStep, fit

if TYPE_CHECKING:
    import pandas as pd


class Schedule(Sequence[ScheduleSegment]):
    """A sequence of pieces with constant hyperparameters.

    :meth:`Result.schedule` returns the one that a study has found. ``PBTReplay`` trains with it.

    Parameters
    ----------
    pieces : contiguous pieces from 0 on, all with the same names of hyperparameters.

    Attributes
    ----------
    names : hyperparameters that change, in the order of the configuration.

    Raises
    ------
    ValueError : no piece, pieces that are not contiguous, or different names of hyperparameters.

    Examples
    --------
    >>> first, second = ScheduleSegment(0, 6, {"lr": 0.1}), ScheduleSegment(6, 9, {"lr": 0.02})
    >>> schedule = Schedule([first, second])
    >>> schedule.at(6), schedule.at(7)
    ({'lr': 0.1}, {'lr': 0.02})
    >>> schedule.stretch(90)[0]
    ScheduleSegment(start=0, until=60, config={'lr': 0.1}, trial=None)
    """

    def __init__(self, pieces: Sequence[ScheduleSegment]) -> None:
        resource = 0
        for piece in pieces:
            if piece.start != resource or piece.until <= piece.start:
                raise ValueError(
                    "pieces of a schedule must be contiguous from 0 on, but after "
                    f"{resource} comes one from {piece.start} to {piece.until}"
                )
            if piece.config.keys() != pieces[0].config.keys():
                raise ValueError(
                    f"pieces of a schedule must name the same hyperparameters: "
                    f"{list(pieces[0].config)} and {list(piece.config)}"
                )
            resource = piece.until
        if not pieces:
            raise ValueError("a schedule needs at least one piece: nothing was trained")
        self._pieces = tuple(pieces)
        first = pieces[0].config
        self.names = tuple(
            name for name in first if any(piece.config[name] != first[name] for piece in pieces)
        )

    @overload
    def __getitem__(self, place: int) -> ScheduleSegment: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[ScheduleSegment]: ...
    def __getitem__(self, place: int | slice) -> ScheduleSegment | Sequence[ScheduleSegment]:
        return self._pieces[place]

    def __len__(self) -> int:
        return len(self._pieces)

    def __iter__(self) -> Iterator[ScheduleSegment]:
        return iter(self._pieces)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schedule) and self._pieces == other._pieces

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Schedule of {', '.join(self.names) or 'nothing'} until {self.max_t}"

    @property
    def max_t(self) -> int:
        """Total units of training."""
        return self._pieces[-1].until

    @property
    def initial(self) -> dict[str, Any]:
        """Configuration of the first piece: the space of a study that replays it."""
        return dict(self._pieces[0].config)

    def at(self, unit: int) -> dict[str, Any]:
        """Return the configuration for the ``unit``-th unit, from 1 to ``max_t``.

        Raises
        ------
        ValueError : there is no such unit.
        """
        if not 1 <= check_int("unit", unit) <= self.max_t:
            raise ValueError(f"unit={unit!r} must be an int from 1 to {self.max_t}")
        return next(dict(piece.config) for piece in self._pieces if unit <= piece.until)

    def only_name(self) -> str:
        """Return the only hyperparameter that changes.

        Raises
        ------
        ValueError : none or several change.
        """
        if len(self.names) != 1:
            changing = ", ".join(self.names) or "none"
            raise ValueError(f"give the name of a hyperparameter; these change: {changing}")
        return self.names[0]

    def values(self, name: str) -> list[Any]:
        """Return the values of one hyperparameter, one for each unit of training.

        Raises
        ------
        KeyError : there is no such hyperparameter.
        """
        name = self._known(name)
        return [p.config[name] for p in self._pieces for _ in range(p.start, p.until)]

    def _known(self, name: str) -> str:
        if check_text("name", name) not in self.initial:
            raise KeyError(f"name={shown(name)} is none of {', '.join(self.initial)}")
        return name

    def frame(self) -> pd.DataFrame:
        """Return a table: ``start``, ``until``, ``trial``, ``config/<name>`` per piece."""
        import pandas as pd

        rows = [
            {"start": piece.start, "until": piece.until, "trial": piece.trial}
            for piece in self._pieces
        ]
        configs = config_columns([piece.config for piece in self._pieces])
        return pd.concat([pd.DataFrame(rows), configs], axis=1)

    def stretch(self, max_t: int) -> Schedule:
        """Return the schedule for another length; drop pieces that become too short.

        Raises
        ------
        ValueError : ``max_t`` is below 1.
        """
        max_t = check_int("max_t", max_t, at_least=1)
        ends = [stretched(piece.until, self.max_t, max_t) for piece in self._pieces]
        pieces, resource = [], 0
        for piece, end in zip(self._pieces, ends, strict=True):
            if end > resource:
                pieces.append(replace(piece, start=resource, until=end))
                resource = end
        return Schedule(pieces)

    def fit_multistep(
        self, name: str | None = None, *, max_steps: int = 3, tolerance: float = 0.2
    ) -> MultiStep:
        """Fit a few steps to the values of one hyperparameter.

        The fit is piecewise constant least squares on the logarithm. All units of training have
        the same weight. Milestones lie where the schedule changes. The number of steps k minimises
        ``m log(max(r, tolerance^2)) + (2k + 1) log m``: Schwarz's criterion for k milestones
        and k + 1 levels. Here m is the number of pieces (units within one are not independent)
        and r the mean squared residual.

        Parameters
        ----------
        name : name of the hyperparameter; None: the only one that changes.
        max_steps : maximum number of milestones.
        tolerance : relative deviation that is not worth a step; population based training
            itself changes values by 0.2 at random.

        Raises
        ------
        ValueError : ``name`` is None and not exactly one hyperparameter changes; values that are
            not positive numbers; numbers out of range.
        KeyError : there is no such hyperparameter.

        References
        ----------
        Schwarz 1978, *Estimating the Dimension of a Model*; Yao 1988, *Estimating the number of
        change-points via Schwarz' criterion*.
        """
        name = self.only_name() if name is None else self._known(name)
        max_steps = check_int("max_steps", max_steps, at_least=0)
        tolerance = check_number("tolerance", tolerance, above=0)
        lengths = [piece.until - piece.start for piece in self._pieces]
        values = [piece.config[name] for piece in self._pieces]
        return fit(name, lengths, values, max_steps=max_steps, tolerance=tolerance)

    def save(self, path: str | Path) -> None:
        """Write the schedule to a JSON file."""
        pieces = [
            {"start": p.start, "until": p.until, "config": dict(p.config), "trial": p.trial}
            for p in self._pieces
        ]
        check_path("path", path).write_text(
            json.dumps({"pieces": pieces}, indent=1) + "\n", encoding="utf-8"
        )

    @classmethod
    def load(cls, path: str | Path) -> Schedule:
        """Read a schedule that :meth:`save` wrote.

        Raises
        ------
        ValueError : the file holds something else.
        """
        path = check_path("path", path)
        try:
            pieces = json.loads(path.read_text(encoding="utf-8"))["pieces"]
            for piece in pieces:
                piece["config"] = {name: _plain(value) for name, value in piece["config"].items()}
            return cls([ScheduleSegment(**piece) for piece in pieces])
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{path} holds no schedule: {error}") from error


def stretched(resource: int, max_t: int, new_max_t: int) -> int:
    """Return a resource scaled to another length; ``max_t`` becomes ``new_max_t``."""
    return round(resource * new_max_t / max_t)


def _plain(value: Any) -> Any:
    """Return a value as spaces hold it, with tuples where JSON has lists."""
    return tuple(map(_plain, value)) if isinstance(value, list) else value
