"""Suggestions made ahead, in a thread beside the coordinator, so that no slot waits for a model."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial

from daskhpo.core.random import rng
from daskhpo.core.searcher import Searcher
from daskhpo.core.space import Space
from daskhpo.core.types import Config, Report, Suggestion, Trial, TrialId

logger = logging.getLogger("daskhpo")

DEADLINE_SECONDS = 0.05  # how long free slots wait for a suggestion, all of them together
REFILL_RATE = 0.05  # of real time, by which their patience grows again
N_PREFETCH = 8
DECAY = 1 / 32  # about one suggestion in so many may come late
CLOSE_SECONDS = 5.0  # how long the end of a session waits for a suggestion in the making


class PrefetchingSearcher(Searcher):
    """A slow searcher as one that answers at once.

    The searcher moves to a thread of its own. What it shall learn goes there in order. Suggestions
    are made before they are wanted: one, and more while some come too late, but ``n_prefetch``
    at most. A slot that finds none ready waits a little, unless the last one took too long for
    that, and then gets a random configuration, a *fallback*, of which the searcher is told as of
    any other trial.

    Two kinds of suggestions are waited for, however long: points to evaluate, which need no model,
    and those of a ``finite`` searcher, since a random one would not be of its list.

    A suggestion keeps the number that it was asked for with. The searcher therefore knows some
    trials by other numbers than the study does; no two trials share one.

    What the searcher raises is raised again by the next call of any method.

    Parameters
    ----------
    searcher : set up, and told of the study's trials so far. Nobody else may use it until
        :meth:`close` has returned.
    space, seed : of the study.
    n_trials : trials of the study so far; the searcher knows them by their own numbers.
    n_points : how many of its first suggestions are points to evaluate.
    n_prefetch : most suggestions to have ready.
    deadline : seconds that free slots wait, all of them together. Of the time that passes a
        twentieth is added again, up to this much.
    """

    def __init__(
        self,
        searcher: Searcher,
        space: Space,
        seed: int,
        *,
        n_trials: int = 0,
        n_points: int = 0,
        n_prefetch: int = N_PREFETCH,
        deadline: float = DEADLINE_SECONDS,
    ) -> None:
        if n_prefetch < 1 or not deadline >= 0:
            raise ValueError(
                f"n_prefetch={n_prefetch!r} must be at least 1 and deadline={deadline!r} at least 0"
            )
        self.finite = searcher.finite
        self._searcher, self._space, self._seed = searcher, space, seed
        self._n_points, self._n_prefetch = n_points, n_prefetch
        self._budget, self._unlimited = WaitBudget(deadline), WaitBudget(math.inf)
        self._changed = threading.Condition()  # guards all that follows
        self._ready: deque[tuple[TrialId, Config]] = deque()  # by the searcher's numbers
        self._pending_updates: list[
            Callable[[], None]
        ] = []  # what the searcher has not been told yet
        self._searcher_ids: dict[TrialId, TrialId] = {}  # of living trials: the study's to its own
        self._next = n_trials  # the first number that the searcher has not heard of
        self._asked: TrialId | None = None  # the number of the suggestion in the making
        self._asked_at = self._last_seconds = (
            0.0  # since when it is made; how long the last one took
        )
        self._wanted = 1.0  # suggestions to have ready
        self._exhausted = self._closing = self._told = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="daskhpo-search", daemon=True)
        self._thread.start()

    def setup(self, space: Space, seed: int) -> None:
        """Nothing: the searcher was set up before."""

    # -- in the coordinator's thread -------------------------------------------------------------

    def suggest(self, trial: TrialId) -> Config | None:
        suggestion = self.next_suggestion(trial)
        return None if suggestion is None else suggestion.config

    def next_suggestion(self, trial: TrialId) -> Suggestion | None:
        """The next suggestion, and what it took to have one; None when there is none left."""
        with self._changed:
            self._check()
            waited, fallback = 0.0, False
            if not self._ready and not self._exhausted:
                self._wanted = min(self._wanted + 1, self._n_prefetch)
                waited = self._wait()
            else:
                self._wanted = max(self._wanted - DECAY, 1.0)
            if self._ready:
                number, config = self._ready.popleft()
            elif self._exhausted:
                return None
            else:
                number, fallback = self._new_id(), True
                config = self._space.sample(rng(self._seed, "fallback", trial))
            self._searcher_ids[trial] = number
            self._changed.notify_all()
        return Suggestion(config, waited, fallback)

    def on_start(self, trial: TrialId, config: Config) -> None:
        self._enqueue(partial(self._searcher.on_start, self._searcher_id(trial), config))

    def observe(self, trial: Trial, report: Report) -> None:
        renamed = trial._replace(id=self._searcher_id(trial.id))
        self._enqueue(partial(self._searcher.observe, renamed, report))

    def on_end(self, trial: Trial) -> None:
        renamed = trial._replace(id=self._searcher_id(trial.id))
        self._searcher_ids.pop(trial.id, None)
        self._enqueue(partial(self._searcher.on_end, renamed))

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """End the thread; a suggestion in the making is awaited for so long, then left behind."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(seconds)
        if self._thread.is_alive():
            what = "the searcher %r still works; what it finds is not used any more"
            logger.warning(what, self._searcher)
        if self._error is not None and not self._told:
            what = "the searcher %r raised, when nothing was wanted of it any more"
            logger.warning(what, self._searcher, exc_info=self._error)

    def _wait(self) -> float:
        """Wait until a suggestion is there or patience is at an end; the seconds that it took."""
        due = self._next if self._asked is None else self._asked
        must_come = self.finite or due < self._n_points
        patience = self._unlimited if must_come else self._budget
        began = time.monotonic()
        left = patience.remaining(began)
        elapsed = 0.0 if self._asked is None else began - self._asked_at
        if self._last_seconds - elapsed > left:
            return 0.0  # it would come too late
        self._changed.notify_all()  # more are wanted
        self._changed.wait_for(
            lambda: self._ready or self._exhausted or self._error is not None,
            None if left == math.inf else left,
        )
        waited = time.monotonic() - began
        patience.spend(waited)
        self._check()
        return waited

    def _check(self) -> None:
        if self._error is not None:
            self._told = True
            raise self._error

    def _enqueue(self, news: Callable[[], None]) -> None:
        with self._changed:
            self._check()
            self._pending_updates.append(news)
            self._changed.notify_all()

    def _searcher_id(self, trial: TrialId) -> TrialId:
        """The searcher's number of a trial; trials of earlier sessions have kept theirs."""
        return self._searcher_ids.get(trial, trial)

    def _new_id(self) -> TrialId:
        self._next += 1
        return self._next - 1

    # -- in its own thread -----------------------------------------------------------------------

    def _run(self) -> None:
        try:
            with contextlib.closing(self._searcher):
                while self._step():
                    pass
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _step(self) -> bool:
        """Pass on the news, then make one suggestion if one is wanted; False when all is over."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closing or self._pending_updates or self._needs_more()
            )
            news, self._pending_updates = self._pending_updates, []
        for tell in news:
            if self._closing:
                return False
            tell()
        with self._changed:
            if self._closing or not self._needs_more():
                return not self._closing
            number = self._asked = self._new_id()
            began = self._asked_at = time.monotonic()
        config = self._searcher.suggest(number)
        with self._changed:
            self._asked, self._last_seconds = None, time.monotonic() - began
            if config is None:
                self._exhausted = True
            else:
                self._ready.append((number, config))
            self._changed.notify_all()
        return True

    def _needs_more(self) -> bool:
        return not self._exhausted and len(self._ready) < math.ceil(self._wanted)


class WaitBudget:
    """How long may still be waited, over all waits.

    So long at once, and a twentieth of the time that passes is added again: whatever comes, of
    ``t`` seconds no more than ``most + t / 20`` are spent waiting.
    """

    def __init__(self, most: float) -> None:
        self._most = self._left = most
        self._at = -math.inf

    def remaining(self, now: float) -> float:
        """Seconds that may be waited now."""
        self._left = min(self._most, self._left + REFILL_RATE * (now - self._at))
        self._at = now
        return max(self._left, 0.0)

    def spend(self, seconds: float) -> None:
        """So long was waited."""
        self._left -= seconds
