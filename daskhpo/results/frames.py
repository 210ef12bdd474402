"""Tables of a study's trials, of their generations and of the best ones over time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from daskhpo.core.objective import Objective
from daskhpo.core.types import PeakMemory, TrialId
from daskhpo.results.columns import config_columns, metric_columns
from daskhpo.results.lineage import Generation
from daskhpo.results.progress import TrialRecord
from daskhpo.results.reports import Reports

if TYPE_CHECKING:
    import pandas as pd


def trial_frame(
    trials: Sequence[TrialRecord], objective: Objective, *, of_best: bool
) -> pd.DataFrame:
    """Return the table of :meth:`daskhpo.Result.trials`.

    Parameters
    ----------
    of_best : True: with the metrics of each trial's best report, else of its last one.
    """
    import pandas as pd

    times = [trial.time for trial in trials]
    columns: dict[str, list[Any]] = {
        "trial": [trial.id for trial in trials],
        "status": [trial.status.value for trial in trials],
        "resource": [trial.resource for trial in trials],
        "seconds": [time.seconds for time in times],
        "seconds/useful": [time.useful for time in times],
        "seconds/lost": [time.lost for time in times],
        "seconds/saving": [time.saving for time in times],
        "seconds/queued": [time.queued for time in times],
        "bracket": [trial.bracket for trial in trials],
    }
    for name in PeakMemory._fields:  # a study without GPUs has no column of them
        n_bytes = [getattr(trial.memory, name) or math.nan for trial in trials]
        if any(map(math.isfinite, n_bytes)):
            columns[f"peak_memory/{name}"] = n_bytes
    frame = pd.DataFrame(columns)
    values = [objective.value(trial.best_loss) for trial in trials]
    ends = {
        f"best/{objective.metric}": [v if math.isfinite(v) else math.nan for v in values],
        "reason": [trial.reason for trial in trials],
    }
    shown = [trial.best_metrics if of_best else trial.metrics for trial in trials]
    parts_of_it = [
        frame,
        config_columns([trial.config for trial in trials]),
        metric_columns(shown, {*frame.columns, *ends}, frame.index),
        pd.DataFrame(ends, index=frame.index),
    ]
    return pd.concat(parts_of_it, axis=1)


def lineage_frame(reports: Reports, objective: Objective) -> pd.DataFrame:
    """Return the table of :meth:`daskhpo.Result.lineage`."""
    import pandas as pd

    rows, generations = [], reports.lineage.generations
    for generation, own in zip(generations, reports.by_generation(), strict=True):
        best = objective.value(min((loss for _, loss in own), default=math.inf))
        row: dict[str, Any] = {
            "life": generation.number,
            "trial": generation.trial,
            "start": generation.start,
            "until": own[-1][0] if own else generation.start,
            "parent": generation.parent,
            "seconds": generation.seconds,
            f"best/{objective.metric}": best if math.isfinite(best) else math.nan,
        }
        rows.append(row)
    columns = ["life", "trial", "start", "until", "parent", "seconds"]
    frame = pd.DataFrame(rows) if rows else pd.DataFrame(columns=columns)
    configs = config_columns([generation.config for generation in generations])
    return pd.concat([frame.astype({"parent": "Int64"}), configs], axis=1)


def training_frame(reports: Reports, ancestry: Iterable[tuple[Generation, int]]) -> pd.DataFrame:
    """Return the table of :meth:`daskhpo.Result.training`.

    Parameters
    ----------
    ancestry : generations, oldest first, each with the last unit that led on from it.
    """
    import pandas as pd

    parts = []
    frame, numbers = reports.frame(), np.array(reports.generation)
    for generation, until in ancestry:
        inside = (numbers == generation.number) & (frame["resource"] <= until)
        parts.append(frame[inside].drop_duplicates("resource", keep="last"))
    together: pd.DataFrame = pd.concat(parts)
    return together.sort_values("resource", ignore_index=True)


def top_k_frame(reports: Reports, objective: Objective, k: int) -> pd.DataFrame:
    """Return the table of :meth:`daskhpo.Result.top_k_curve`."""
    import pandas as pd

    top: list[tuple[float, int]] = []  # the k best, sorted
    trials: set[TrialId] = set()
    rows = []
    for seconds, trial, loss in reports.improvements():
        trials.add(trial)
        entry = [pair for pair in top if pair[1] != trial] + [(loss, trial)]
        top_now = sorted(entry)[:k]
        if top_now != top or len(trials) == k:
            top = top_now
            if len(top) == k:
                values = np.array([objective.value(pair[0]) for pair in top])
                rows.append((seconds, values.mean(), values.std(), len(trials)))
    return pd.DataFrame(rows, columns=["seconds", "mean", "std", "num_trials"])
