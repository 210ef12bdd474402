"""Prefetched suggestions, and random ones for slots when none is ready in time."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from daskhpo.core.random import rng
from daskhpo.core.searcher import Searcher
from daskhpo.core.space import Space
from daskhpo.core.types import Choose, Config, Report, Suggestion, Trial, TrialId

logger = logging.getLogger("daskhpo")

DEADLINE_SECONDS = 0.05  # wait budget of all free slots together
REFILL_RATE = 0.05  # seconds added to the wait budget per second
N_PREFETCH = 8
DECAY = 1 / 32  # about one suggestion in 32 may be late
CLOSE_SECONDS = 5.0  # wait for a suggestion in progress at the end of a session


class PrefetchingSearcher(Searcher):
    """A slow searcher that answers at once, because its suggestions are prefetched.

    The searcher runs in a separate thread, which receives all updates in order. One suggestion is
    prefetched, and more while some come too late, at most ``n_prefetch``. If none is ready, a slot
    waits briefly, or not at all if the last one took too long. It then gets a random configuration
    (a *fallback*), which is reported to the searcher like any other trial.

    Two kinds of suggestions are always waited for: points to evaluate, which need no model, and
    those of a ``finite`` searcher, because a random configuration would not be in its list.

    A suggestion keeps the trial id with which it was requested. The searcher therefore knows some
    trials by other ids than the study does; each id belongs to one trial.

    An error of the searcher is raised by the next method call; :meth:`close` logs it instead.

    Parameters
    ----------
    searcher : set up, and informed of the study's trials so far. No other code may use it until
        :meth:`close` has returned.
    space, seed : the study's.
    n_trials : trials of the study so far; the searcher knows them by the study's ids.
    n_points : number of its first suggestions that are points to evaluate.
    n_prefetch : maximum number of suggestions to keep ready.
    deadline : seconds that all free slots together wait. A twentieth of the time that passes is
        added again, up to this value.
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
        self._changed = threading.Condition()  # guards all attributes below
        self._ready: deque[tuple[TrialId, Config]] = deque()  # with the searcher's ids
        self._pending_updates: list[Callable[[], None]] = []  # not yet sent to the searcher
        self._searcher_ids: dict[TrialId, TrialId] = {}  # of trials that have not ended
        self._next = n_trials  # the first id that the searcher has not seen
        self._asked: TrialId | None = None  # id of the suggestion in progress
        self._asked_at = self._last_seconds = 0.0  # its start; duration of the last one
        self._wanted = 1.0  # suggestions to keep ready
        self._exhausted = self._closing = self._raised = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="daskhpo-search", daemon=True)
        self._thread.start()

    def setup(self, space: Space, seed: int) -> None:
        """Do nothing: the searcher was set up before."""

    # -- in the coordinator's thread -------------------------------------------------------------

    def suggest(self, trial: TrialId) -> Config | None:
        suggestion = self.next_suggestion(trial)
        return None if suggestion is None else suggestion.config

    def next_suggestion(self, trial: TrialId) -> Suggestion | None:
        """Return the next suggestion and how long it was awaited; None if none is left."""
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

    def add(self, trial: TrialId) -> None:
        """Give an id to a trial whose configuration a person chose."""
        with self._changed:
            self._searcher_ids[trial] = self._new_id()

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
        """End the thread; wait at most ``seconds`` for a suggestion in progress."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(seconds)
        if self._thread.is_alive():
            what = "the searcher %r is still working; its result will not be used"
            logger.warning(what, self._searcher)
        if self._error is not None and not self._raised:
            what = "the searcher %r raised, but its suggestions were no longer needed"
            logger.warning(what, self._searcher, exc_info=self._error)

    def _wait(self) -> float:
        """Wait for a suggestion within the wait budget; return the seconds waited."""
        due = self._next if self._asked is None else self._asked
        must_come = self.finite or due < self._n_points
        budget = self._unlimited if must_come else self._budget
        began = time.monotonic()
        left = budget.remaining(began)
        elapsed = 0.0 if self._asked is None else began - self._asked_at
        if self._last_seconds - elapsed > left:
            return 0.0  # it would come too late
        self._changed.notify_all()  # more are needed
        self._changed.wait_for(
            lambda: self._ready or self._exhausted or self._error is not None,
            None if left == math.inf else left,
        )
        waited = time.monotonic() - began
        budget.spend(waited)
        self._check()
        return waited

    def _check(self) -> None:
        if self._error is not None:
            self._raised = True
            raise self._error

    def _enqueue(self, update: Callable[[], None]) -> None:
        with self._changed:
            self._check()
            self._pending_updates.append(update)
            self._changed.notify_all()

    def _searcher_id(self, trial: TrialId) -> TrialId:
        """Return the searcher's id of a trial; trials of earlier sessions keep theirs."""
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
        """Send pending updates, then make one suggestion if needed; False on closing."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closing or self._pending_updates or self._needs_more()
            )
            updates, self._pending_updates = self._pending_updates, []
        for update in updates:
            if self._closing:
                return False
            update()
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


class PrefetchedAdvice:
    """The advice of a prefetching searcher; its model's scores are not compared."""

    def __init__(self, ahead: PrefetchingSearcher) -> None:
        self._ahead = ahead

    def suggest(self, trial: TrialId, explore: bool) -> Suggestion | None:
        return self._ahead.next_suggestion(trial)

    def choose(self, trial: TrialId, choice: Choose) -> Suggestion | TrialId | None:
        return self._ahead.next_suggestion(trial)

    def chances(self, trials: Sequence[Trial], choice: Choose) -> Sequence[float]:
        return [1.0] * len(trials)

    def judge(self, trusted: bool) -> bool:
        return False

    def add(self, trial: TrialId) -> None:
        self._ahead.add(trial)


class WaitBudget:
    """Seconds that may still be waited, over all waits.

    The budget is ``most`` seconds at first. A twentieth of the time that passes is added again, up
    to ``most``. Of ``t`` seconds, at most ``most + t / 20`` are therefore spent waiting.
    """

    def __init__(self, most: float) -> None:
        self._most = self._left = most
        self._at = -math.inf

    def remaining(self, now: float) -> float:
        """Return the seconds that may be waited now."""
        self._left = min(self._most, self._left + REFILL_RATE * (now - self._at))
        self._at = now
        return max(self._left, 0.0)

    def spend(self, seconds: float) -> None:
        """Subtract the seconds of a wait."""
        self._left -= seconds
