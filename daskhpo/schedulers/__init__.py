"""Schedulers, which decide how far each trial trains."""

from daskhpo.core.scheduler import Scheduler
from daskhpo.schedulers.asha import ASHA, AsyncHyperband
from daskhpo.schedulers.fifo import FIFO
from daskhpo.schedulers.guarded import GuardedASHA
from daskhpo.schedulers.halving import Hyperband, SuccessiveHalving
from daskhpo.schedulers.median import MedianStopping
from daskhpo.schedulers.pasha import PASHA
from daskhpo.schedulers.pb2 import PB2
from daskhpo.schedulers.pbt import PBT
from daskhpo.schedulers.replay import PBTReplay

__all__ = [
    "ASHA",
    "FIFO",
    "PASHA",
    "PB2",
    "PBT",
    "AsyncHyperband",
    "GuardedASHA",
    "Hyperband",
    "MedianStopping",
    "PBTReplay",
    "Scheduler",
    "SuccessiveHalving",
]
