"""Results of another study, as initial data of a searcher."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from daskhpo.atomic_files import open_plain, read_small
from daskhpo.core.arguments import check_list, check_path, plain_number, shown
from daskhpo.core.errors import InvalidArgument
from daskhpo.core.plain import to_python
from daskhpo.core.space import Space
from daskhpo.core.study_folders import MANIFEST, no_study
from daskhpo.core.types import Config
from daskhpo.searchers.gp.dataset import Observation


class Past(NamedTuple):
    """One result of another study.

    Attributes
    ----------
    loss : not finite: the trial failed.
    resource : units of training; 0: full training.
    """

    config: Config
    loss: float
    resource: int = 0


PAIRS = "pairs of a configuration and its loss, such as [({'lr': 0.1}, 0.5)]"
WarmStart = str | Path | Iterable[tuple[Config, float]]


def checked_past(warm_start: WarmStart | None) -> Path | list[Past] | None:
    """Check the argument ``warm_start``; a path is read later, in ``setup``.

    Raises
    ------
    TypeError : it is neither a path nor pairs of a dict and a number.
    """
    if warm_start is None:
        return None
    if isinstance(warm_start, (str, os.PathLike)):
        return check_path("warm_start", warm_start)
    results = []
    for pair in check_list("warm_start", warm_start, of=PAIRS):
        match pair:
            case (Mapping() as config, loss) if (number := plain_number(loss)) is not None:
                plain = {name: to_python(value) for name, value in config.items()}
                results.append(Past(plain, float(number)))
            case _:
                raise InvalidArgument(
                    f"warm_start: {shown(pair)} is no pair of a configuration and its loss; give "
                    f"the directory of a study, or {PAIRS} (negate a metric that is maximised)"
                )
    return results


def described_past(past: Path | list[Past] | None) -> list[str]:
    """Format the argument for a searcher's ``repr``: results as count and digest."""
    match past:
        case None:
            return []
        case Path():
            return [f"warm_start={str(past)!r}"]
        case _:
            digest = blake2b(repr(past).encode(), digest_size=4).hexdigest()
            return [f"warm_start=<{len(past)} results, {digest}>"]


def past_rows(
    past: Path | list[Past], space: Space
) -> tuple[list[Observation], list[tuple[float, ...]]]:
    """Return the results as observations, and the points of failed trials.

    Results with a value outside its domain in ``space`` are ignored, and so are those with another
    value of a constant: they say nothing about this space. Hyperparameters that are not in
    ``space`` must be constant in the results.

    Raises
    ------
    ValueError : names differ, no result lies in the space, or the path holds no study.
    """
    results = _read(past) if isinstance(past, Path) else past
    where = f"warm_start={str(past)!r}" if isinstance(past, Path) else "warm_start"
    names = {name for result in results for name in result.config}
    missing = [n for n in space.domains if any(n not in result.config for result in results)]
    unknown = [
        name
        for name in sorted(names - set(space))
        if len({repr(result.config.get(name)) for result in results}) > 1
    ]
    if missing or unknown:
        raise ValueError(
            f"{where}: its configurations lack {missing} and vary {unknown}; they must vary only "
            f"the hyperparameters of this space and have all of them: {list(space.domains)}"
        )
    rows, failed = [], []
    for config, loss, resource in results:
        try:
            own = space.complete({name: value for name, value in config.items() if name in space})
        except ValueError:
            continue
        unit = tuple(space.to_unit(own))
        if math.isfinite(loss):
            rows.append(Observation(unit, resource, loss, past=True))
        else:
            failed.append(unit)
    if not rows and not failed:
        raise ValueError(f"{where}: none of its {len(results)} results lies in {space!r}")
    return rows, failed


def _read(directory: Path) -> list[Past]:
    """Read results of a study: a loss at each decision on a trial, and at its end."""
    if not (directory / MANIFEST).exists():
        raise ValueError(f"warm_start={str(directory)!r}: {no_study(directory)}")
    try:
        manifest = json.loads(read_small(directory / "study.json"))
        with open_plain(directory / "journal.jsonl") as file:
            lines = file.read().decode().splitlines()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"warm_start={str(directory)!r} cannot be read as a study's directory: {error}"
        ) from error
    sign = 1.0 if manifest["mode"] == "min" else -1.0
    configs: dict[int, dict[str, Any]] = {}
    since: dict[int, list[tuple[int, float]]] = {}  # (resource, loss) since the last decision
    results: list[Past] = []

    def judged(trial: int) -> None:
        if steps := since.pop(trial, []):
            results.append(Past(configs[trial], min(loss for _, loss in steps), steps[-1][0]))

    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            break  # the line is incomplete: it is being written, or a write was interrupted
        match record:
            case {"record": "suggested" | "exploited", "trial": trial, "config": config}:
                judged(trial)
                configs[trial] = {name: _tuples(value) for name, value in config.items()}
            case {"record": "reported", "trial": trial, "steps": steps}:
                since.setdefault(trial, []).extend(
                    (resource, sign * metrics[manifest["metric"]]) for resource, _, metrics in steps
                )
                if record.get("decision"):
                    judged(trial)
            case {"record": "ended", "trial": trial, "status": status}:
                judged(trial)
                if status == "failed":
                    results.append(Past(configs[trial], math.inf))
    for trial in list(since):
        judged(trial)
    return results


def _tuples(value: Any) -> Any:
    """Convert JSON's lists back to tuples."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
