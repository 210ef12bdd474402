"""Callbacks, which follow a study while it runs."""

from daskhpo.callbacks.base import Callback
from daskhpo.callbacks.console import ConsoleProgress
from daskhpo.callbacks.csv import CSVLogger
from daskhpo.callbacks.json import JSONLogger
from daskhpo.callbacks.mlflow import MLflowLogger
from daskhpo.callbacks.optuna import OptunaJournal
from daskhpo.callbacks.tensorboard import TensorBoardLogger
from daskhpo.callbacks.values import FrozenReport, FrozenTrial, StudyInfo, StudySummary
from daskhpo.callbacks.wandb import WandbLogger

__all__ = [
    "CSVLogger",
    "Callback",
    "ConsoleProgress",
    "FrozenReport",
    "FrozenTrial",
    "JSONLogger",
    "MLflowLogger",
    "OptunaJournal",
    "StudyInfo",
    "StudySummary",
    "TensorBoardLogger",
    "WandbLogger",
]
