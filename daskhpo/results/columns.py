"""Columns of tables that keep the types of their values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from daskhpo.core.types import Config

if TYPE_CHECKING:
    import pandas as pd


def config_columns(configs: Sequence[Config], index: Any = None) -> pd.DataFrame:
    """Return a table with a column ``config/<name>`` for each hyperparameter."""
    import pandas as pd

    names = dict.fromkeys(name for config in configs for name in config)
    index = range(len(configs)) if index is None else index
    columns = {f"config/{name}": column([c.get(name) for c in configs], index) for name in names}
    return pd.DataFrame(columns, index=index)


def metric_columns(metrics: Sequence[Mapping[str, float]], taken: Any, index: Any) -> pd.DataFrame:
    """Return a table with a column for each metric whose name is not ``taken``.

    Reports with such a name are refused today, but older studies may have some.
    """
    import pandas as pd

    names = dict.fromkeys(name for report in metrics for name in report)
    free = [name for name in names if name not in taken and not name.startswith("config/")]
    missing = float("nan")
    columns = {name: [report.get(name, missing) for report in metrics] for name in free}
    return pd.DataFrame(columns, index=index)


def column(values: Sequence[Any], index: Any = None) -> pd.Series[Any]:
    """Return values as a column: of numbers if all have one type, else of the objects."""
    import numpy as np
    import pandas as pd

    kinds = {type(value) for value in values}
    if len(kinds) == 1 and kinds <= {bool, int, float}:
        numbers = np.array(values)
        if numbers.dtype.kind in "bif":  # else too large for 64 bits
            return pd.Series(numbers, index=index)
    objects = np.empty(len(values), object)
    for i, value in enumerate(values):  # at once, a tuple would become a row
        objects[i] = value
    return pd.Series(objects, index=index, dtype=object)  # else pandas may choose text
