"""`ray.tune.integration` and `ray.air.integrations`: loggers."""

from daskhpo.tune.logger import MLflowLoggerCallback, WandbLoggerCallback

__all__ = ["MLflowLoggerCallback", "WandbLoggerCallback"]
