"""The limits of a study, as users write them."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from daskhpo.core.types import Limits

if TYPE_CHECKING:
    from daskhpo.engine.coordinator import Problem

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds_of(duration: float | str, name: str = "time_budget") -> float:
    """Seconds of a duration: a number, or text such as ``"8h"``, ``"1h30m"``, ``"90s"``.

    Raises
    ------
    ValueError : anything else, or a duration that is not positive.
    """
    if isinstance(duration, str):
        parts = re.findall(r"(\d+(?:\.\d+)?)\s*([smhd])", duration)
        seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
        rest = re.sub(r"(\d+(?:\.\d+)?)\s*([smhd])", "", duration).strip()
        if re.fullmatch(r"\d+(\.\d+)?", duration.strip()):
            seconds = float(duration)
        elif not parts or rest:
            raise ValueError(
                f"{name}={duration!r} is not understood; give seconds, or text like '8h', '1h30m'"
            )
    elif isinstance(duration, bool) or not isinstance(duration, (int, float)):
        raise ValueError(f"{name}={duration!r} must be a number of seconds, or text like '8h'")
    else:
        seconds = float(duration)
    if not seconds > 0 or math.isinf(seconds):
        raise ValueError(f"{name}={duration!r} must be positive and finite")
    return seconds


def check_limits(limits: Limits, time_budget: float | str | None, problem: Problem) -> Limits:
    """The limits with the time budget in seconds.

    Raises
    ------
    ValueError : numbers out of range, nothing that would ever end the study, or a population
        without a number of members.
    """
    if time_budget is not None:
        limits = replace(limits, time_budget=seconds_of(time_budget))
    n = limits.num_trials
    if n is not None and (not isinstance(n, int) or isinstance(n, bool) or n < 1):
        raise ValueError(f"num_trials={n!r} must be an int of at least 1, or None")
    if limits.max_failures < 0:
        raise ValueError(f"max_failures={limits.max_failures!r} must be 0 or more")
    if limits.target is not None and not math.isfinite(limits.target):
        raise ValueError(f"target={limits.target!r} must be finite")
    ends = (n, limits.time_budget, limits.target)
    if all(limit is None for limit in ends) and not problem.searcher.finite:
        raise ValueError(
            "nothing would end this study: give num_trials, time_budget or target (or several)"
        )
    if n is None and problem.scheduler.is_population and not problem.searcher.finite:
        raise ValueError(
            "give num_trials: a population is all trials of its study, and new ones would begin "
            "for ever, before any goes on"
        )
    return limits
