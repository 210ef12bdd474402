"""`from ray import train`: the names of it that Tune's scripts use."""

from daskhpo.tune.analysis import Result
from daskhpo.tune.checkpoint import Checkpoint
from daskhpo.tune.configs import CheckpointConfig, FailureConfig, RunConfig, SyncConfig
from daskhpo.tune.session import get_checkpoint, get_context, report

__all__ = [
    "Checkpoint",
    "CheckpointConfig",
    "FailureConfig",
    "Result",
    "RunConfig",
    "SyncConfig",
    "get_checkpoint",
    "get_context",
    "report",
]
