"""The thread that reads studies and refreshes their pages."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from daskhpo.dashboard.documents import OpenPage
from daskhpo.dashboard.kinds import Surroundings
from daskhpo.dashboard.studies import Pace

logger = logging.getLogger("daskhpo")

LEAST_SECONDS, MOST_SECONDS = 0.5, 10.0  # between two refreshes
CATCH_UP_PAUSE = 0.02  # between two slices of a study's past


class Watcher:
    """The thread that reads studies and refreshes pages while any page is open.

    Parameters
    ----------
    surroundings : returns what is not in journals; called in the thread.
    is_over : returns True when the cluster has closed.
    """

    def __init__(
        self, surroundings: Callable[[], Surroundings], is_over: Callable[[], bool]
    ) -> None:
        self._surroundings, self._is_over = surroundings, is_over
        self._lock = threading.Lock()
        self._asked = threading.Event()  # a user waits for an answer
        self._pages: set[OpenPage] = set()
        self._thread: threading.Thread | None = None
        self.pace = Pace(LEAST_SECONDS, MOST_SECONDS)
        self.n_refreshes = 0

    def open(self, page: OpenPage) -> None:
        """Keep a page up to date."""
        page.ask = self._asked.set
        with self._lock:
            self._pages.add(page)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="daskhpo-pages", daemon=True)
                self._thread.start()

    def close(self, page: OpenPage) -> None:
        """Forget a page; without any the thread ends."""
        with self._lock:
            self._pages.discard(page)

    @property
    def is_running(self) -> bool:
        """True while it reads: some page is open."""
        return self._thread is not None

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._pages or self._is_over():
                    self._thread = None
                    return
                pages = [*self._pages]
            began = time.thread_time()
            try:
                is_behind = self._turn([page for page in pages if not page.is_hidden])
            except Exception:
                logger.exception("the pages of the dashboard could not be refreshed")
                is_behind = False
            worked = time.thread_time() - began
            pause = self.pace.pause(worked)
            if self._asked.wait(CATCH_UP_PAUSE if is_behind else pause):
                self._asked.clear()

    def _turn(self, pages: Sequence[OpenPage]) -> bool:
        """Read and refresh once; return True if a study's past is not read to its end."""
        is_behind = False
        for study in {page.study for page in pages}:
            is_behind |= study is not None and study.read()
        if is_behind:
            return True
        around = self._surroundings()
        for page in pages:
            try:
                page.prepare(around)
            except Exception:  # the other pages continue
                if not page.is_gone:  # else it was closed in between
                    logger.exception("a page of the dashboard could not be refreshed")
        self.n_refreshes += bool(pages)
        return False
