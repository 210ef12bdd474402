"""Schedulers: how far each trial trains."""

from daskhpo.core.scheduler import Scheduler
from daskhpo.schedulers.asha import ASHA, AsyncHyperband
from daskhpo.schedulers.fifo import FIFO
from daskhpo.schedulers.halving import Hyperband, SuccessiveHalving
from daskhpo.schedulers.median import MedianStopping
from daskhpo.schedulers.pbt import PBT

__all__ = [
    "ASHA",
    "FIFO",
    "PBT",
    "AsyncHyperband",
    "Hyperband",
    "MedianStopping",
    "Scheduler",
    "SuccessiveHalving",
]
