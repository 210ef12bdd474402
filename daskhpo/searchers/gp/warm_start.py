"""What another study found, for a searcher to begin with."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from daskhpo.core.space import Space
from daskhpo.core.types import Config
from daskhpo.searchers.gp.dataset import Observation


class Past(NamedTuple):
    """One result: resource 0 stands for full training, a loss that is not finite for a failure."""

    config: Config
    loss: float
    resource: int = 0


WarmStart = str | Path | Iterable[tuple[Config, float]]


def checked_past(warm_start: WarmStart | None) -> Path | list[Past] | None:
    """The user's argument; results are checked, a path is read at set-up.

    Raises
    ------
    TypeError : neither a path nor pairs of a dict and a number.
    """
    if warm_start is None or isinstance(warm_start, (str, Path)):
        return None if warm_start is None else Path(warm_start)
    results = []
    for pair in warm_start:
        match pair:
            case (Mapping() as config, int() | float() as loss):
                results.append(Past(dict(config), float(loss)))
            case _:
                raise TypeError(
                    f"warm_start: {pair!r} is no pair of a configuration and its loss; give the "
                    "directory of a study, or such pairs (the negative of a metric to maximise)"
                )
    return results


def described_past(past: Path | list[Past] | None) -> list[str]:
    """The argument as it stands in a searcher's ``repr``: results by number and digest."""
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
    """The results as rows, and the points that failed.

    Results with a value outside its present domain are left out. Names that the space does not
    have must be constant in the past study.

    Raises
    ------
    ValueError : the names differ, nothing lies in the space, or the path holds no study.
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
            f"{where}: its configurations lack {missing} and vary {unknown}; they must have the "
            f"hyperparameters of this space, {list(space.domains)}"
        )
    rows, failed = [], []
    for config, loss, resource in results:
        if all(domain.contains(config[name]) for name, domain in space.domains.items()):
            unit = tuple(space.to_unit(config))
            if math.isfinite(loss):
                rows.append(Observation(unit, resource, loss, past=True))
            else:
                failed.append(unit)
    if not rows and not failed:
        raise ValueError(f"{where}: none of its {len(results)} results lies in {space!r}")
    return rows, failed


def _read(directory: Path) -> list[Past]:
    """The results in a study's directory: a loss wherever a trial was judged, and its last."""
    try:
        manifest = json.loads((directory / "study.json").read_text())
        lines = (directory / "journal.jsonl").read_text().splitlines()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"warm_start={str(directory)!r} cannot be read as a study's directory: {error}"
        ) from error
    sign = 1.0 if manifest["mode"] == "min" else -1.0
    configs: dict[int, dict[str, Any]] = {}
    since: dict[int, list[tuple[int, float]]] = {}  # (resource, loss) since a trial was judged
    results: list[Past] = []

    def judged(trial: int) -> None:
        if steps := since.pop(trial, []):
            results.append(Past(configs[trial], min(loss for _, loss in steps), steps[-1][0]))

    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            break  # a line that is being written, or was torn
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
    """JSON's lists as the tuples that they were."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
