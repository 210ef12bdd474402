"""A piece of a schedule: what a training went through, as plain values."""

from __future__ import annotations

from dataclasses import dataclass

from daskhpo.core.types import Config, TrialId


@dataclass(frozen=True, slots=True)
class Piece:
    """Hyperparameters that held while a training went from one resource to another.

    Attributes
    ----------
    start, until : units of training done before and after it; ``start < until``.
    config : the whole configuration.
    trial : whose training it was, or None.
    """

    start: int
    until: int
    config: Config
    trial: TrialId | None = None
