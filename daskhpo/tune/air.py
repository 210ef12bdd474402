"""`from ray import air`: the names of it that Tune's scripts used until 2023."""

from daskhpo.tune import session
from daskhpo.tune.analysis import Result
from daskhpo.tune.checkpoint import Checkpoint
from daskhpo.tune.configs import CheckpointConfig, FailureConfig, RunConfig

__all__ = ["Checkpoint", "CheckpointConfig", "FailureConfig", "Result", "RunConfig", "session"]
