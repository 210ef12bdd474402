"""`ray.tune.search.sample`: what the space functions return, and these functions."""

from daskhpo.tune.space import (
    Function,
    choice,
    grid_search,
    lograndint,
    loguniform,
    qlograndint,
    qloguniform,
    qrandint,
    qrandn,
    quniform,
    randint,
    randn,
    sample_from,
    uniform,
)
from daskhpo.tune.space import Parameter as Domain

__all__ = [
    "Domain",
    "Function",
    "choice",
    "grid_search",
    "lograndint",
    "loguniform",
    "qlograndint",
    "qloguniform",
    "qrandint",
    "qrandn",
    "quniform",
    "randint",
    "randn",
    "sample_from",
    "uniform",
]
