"""Learning curves of a study's trials, as one table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from daskhpo.core.types import Status, TrialId
from daskhpo.results.columns import config_columns
from daskhpo.results.lineage import Generation
from daskhpo.results.progress import TrialRecord

if TYPE_CHECKING:
    import pandas as pd


def curve_frame(
    reports: pd.DataFrame,
    launches: Sequence[tuple[TrialId, int, float]],
    generations: Sequence[Generation],
    trials: Mapping[TrialId, TrialRecord],
) -> pd.DataFrame:
    """Return the table of :meth:`daskhpo.Result.curves`.

    Parameters
    ----------
    reports : reports in order of arrival, with columns ``trial``, ``attempt``, ``resource``,
        ``seconds`` since the study began, and the metrics.
    launches : trial, attempt and time (seconds since the study began) of each launch.
    generations : all generations of the study.
    trials : trials by id.

    Raises
    ------
    ValueError : trials changed their configurations or took over states.
    """
    import pandas as pd

    first = {generation.trial: generation.config for generation in reversed(generations)}
    if any(trial.n_exploits for trial in trials.values()) or any(
        generation.config != first[generation.trial] for generation in generations
    ):
        raise ValueError(
            "trials of this study took over states or changed their configurations, as in "
            "population based training: it has no learning curves of single configurations. Use "
            "history() or training() instead"
        )
    launched = {(trial, attempt): seconds for trial, attempt, seconds in launches}
    before = reports.groupby(["trial", "attempt"])["seconds"].shift().tolist()
    attempts = zip(reports["trial"], reports["attempt"], strict=True)
    began = [
        launched[attempt] if math.isnan(last) else last
        for attempt, last in zip(attempts, before, strict=True)
    ]
    frame = reports.assign(seconds=reports["seconds"] - began)
    frame = frame.drop_duplicates(["trial", "resource"], keep="first").drop(columns="attempt")
    frame = frame.sort_values(["trial", "resource"], ignore_index=True)
    frame["seconds"] = frame.groupby("trial")["seconds"].cumsum()
    if any(trial.status is Status.FAILED for trial in trials.values()):
        frame = pd.concat([frame, _failures(frame, trials)], ignore_index=True)
        frame = frame.sort_values(["trial", "resource"], ignore_index=True)
    configs = [first[trial] for trial in frame["trial"]]
    return pd.concat([frame, config_columns(configs, frame.index)], axis=1)


def _failures(frame: pd.DataFrame, trials: Mapping[TrialId, TrialRecord]) -> pd.DataFrame:
    """Return a row for each failed trial: the unit that it did not finish."""
    import pandas as pd

    units = zip(frame["resource"].tolist(), frame["seconds"].tolist(), strict=True)
    last = dict(zip(frame["trial"].tolist(), units, strict=True))  # keeps each trial's last unit
    rows = []
    for trial in trials.values():
        if trial.status is Status.FAILED:
            resource, seconds = last.get(trial.id, (0, 0.0))
            rows.append((trial.id, resource + 1, max(seconds, trial.seconds)))
    return pd.DataFrame(rows, columns=["trial", "resource", "seconds"])
