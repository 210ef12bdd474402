"""The interface of callbacks."""

from __future__ import annotations

from abc import ABC
from typing import ClassVar

from daskhpo.callbacks.values import FrozenReport, FrozenTrial, StudyInfo, StudySummary
from daskhpo.core.events import Record
from daskhpo.results.progress import StudyProgress


class Callback(ABC):
    """An object that follows a study; every hook is optional.

    Hooks are called in the order of the journal, one at a time, in one separate thread. They come
    for earlier sessions first, in the same order as then: a callback rebuilds what it wrote, or
    skips them by ``trial.session`` or ``report.number``. If a hook raises, its traceback is logged
    and the callback is not called again; the study continues. All values are read-only, except for
    the arguments of :meth:`on_record`.

    Attributes
    ----------
    own_thread : True: call it in a thread of its own, so that it may be slow, such as by waiting
        for a server. It follows the journal at its own pace and misses nothing meanwhile; what it
        has not heard a minute after the session's end is counted in a warning, and comes first if
        the study is resumed.
    """

    own_thread: ClassVar[bool] = False

    def on_study_start(self, info: StudyInfo) -> None:
        """Handle the start of following; called first, and once."""

    def on_trial_start(self, trial: FrozenTrial) -> None:
        """Handle the first launch of a trial; called once per trial."""

    def on_report(self, trial: FrozenTrial, report: FrozenReport) -> None:
        """Handle a unit of training; called once per unit: a row of `Result.history()`.

        A unit that is trained again after a loss is not reported again. The resources of a trial's
        reports therefore rise, until it takes over another trial's state.
        """

    def on_trial_end(self, trial: FrozenTrial) -> None:
        """Handle the end of a trial: completed, stopped or failed.

        A trial that has failed, and is run again, ends again, as does a completed one that a
        later session with a larger ``max_t`` trains further.
        """

    def on_study_end(self, study: StudySummary) -> None:
        """Handle the end of the session; called last. Trials may be unfinished."""

    def on_detach(self, study: StudySummary) -> None:
        """Handle the end of following, while the study continues; called last.

        By default the same as :meth:`on_study_end`.
        """
        self.on_study_end(study)

    def on_tick(self, study: StudySummary) -> None:
        """Handle a tick: called every fraction of a second, after all new records."""

    def on_record(self, record: Record, progress: StudyProgress) -> None:
        """Handle a new record of the journal, after the hooks above.

        ``progress`` includes it, is shared by all callbacks, and must not be changed. It forgets a
        trial after the record of its end.
        """
