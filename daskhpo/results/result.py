"""Results of a study, read from its journal alone."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from daskhpo.atomic_files import write_file
from daskhpo.checkpoints import open_store
from daskhpo.core.arguments import check_choice, check_int, check_number, check_path
from daskhpo.core.errors import CheckpointMissing, NoSuchTrial
from daskhpo.core.events import Record
from daskhpo.core.garbage import collector_paused
from daskhpo.core.objective import Objective
from daskhpo.core.types import CheckpointRef, PeakMemory, ScheduleSegment, Status, TrialId
from daskhpo.engine.session import Manifest, read_manifest, study_records
from daskhpo.plots.report import About, best_table, report_html
from daskhpo.plots.single import single
from daskhpo.plots.tables import StudyTables
from daskhpo.plots.verdict import header
from daskhpo.results.about import about_study, check_folder_of, has_manifest
from daskhpo.results.curve_frame import curve_frame
from daskhpo.results.frames import lineage_frame, top_k_frame, training_frame, trial_frame
from daskhpo.results.lineage import Generation
from daskhpo.results.progress import StudyProgress, TrialRecord
from daskhpo.results.recorder import read_tables, tables_of
from daskhpo.results.reports import Reports, read_reports
from daskhpo.results.schedule import Schedule

if TYPE_CHECKING:
    import pandas as pd


class Result:
    """The results of a study so far.

    "Best" is the running best over each trial's history. Only the journal is needed, not the
    library of an external searcher.
    """

    def __init__(
        self,
        records: Iterable[Record],
        objective: Objective,
        path: Path | None = None,
        manifest: Manifest | None = None,
    ) -> None:
        self.path = path
        self._manifest = manifest
        self.objective = objective
        self._progress = StudyProgress(objective)
        # Of a study with a directory, its journal is read again when these are needed.
        self._records: list[Record] | None = [] if path is None else None
        self._reports = Reports(self._progress) if path is None else None
        self._n_records = 0
        with collector_paused():
            for record in records:
                self.apply(record)

    def apply(self, record: Record) -> None:
        """Process the next record of the study."""
        self._n_records += 1
        self._progress.apply(record)
        if self._records is not None:  # for plots, which most results never make
            self._records.append(record)
        if self._reports is not None:
            self._reports.apply(record)

    def __repr__(self) -> str:
        metric = self.objective.metric
        if self._progress.best is None:
            n_failed = self._progress.counts[Status.FAILED]
            failed = f", {n_failed} failed" if n_failed else ""
            return f"Result({self.num_trials} trials{failed}, no report yet)"
        return f"Result({self.num_trials} trials, best {metric}={self.best_value:.6g})"

    @property
    def num_trials(self) -> int:
        """Number of trials that were started."""
        return self._progress.n_trials

    @property
    def has_reports(self) -> bool:
        """True if any trial has reported a value."""
        return self._progress.best is not None

    @property
    def stop_reason(self) -> str | None:
        """Reason for which the study was stopped; None: it finished, or still runs."""
        return self._progress.stop_reason

    def status(self) -> dict[str, int]:
        """Return the number of trials by status, of those that any trial has."""
        return {status.value: n for status, n in self._progress.counts.items() if n}

    @property
    def paused_by_hand(self) -> frozenset[TrialId]:
        """Trials that wait until a person resumes them."""
        return frozenset(self._progress.paused_by_hand)

    @property
    def num_failed(self) -> int:
        """Number of trials that failed."""
        return self._progress.counts[Status.FAILED]

    def failed_trials(self) -> list[TrialRecord]:
        """Return the trials that failed, in order of their end."""
        failed = [t for t in self._progress.trials.values() if t.status is Status.FAILED]
        return sorted(failed, key=lambda trial: (trial.ended, trial.id))

    @property
    def has_failed(self) -> bool:
        """True if trials' errors stopped the study, or if every trial failed."""
        n_failed = self._progress.counts[Status.FAILED]
        return self._progress.stopped_by_failure or 0 < n_failed == self.num_trials

    @property
    def num_slots(self) -> int:
        """Number of slots that serve the study, or served it last."""
        return self._progress.n_slots

    @property
    def best_trial(self) -> TrialRecord:
        """The trial with the best value so far.

        Raises
        ------
        ValueError : no trial has reported; the message shows the first failure, if any.
        """
        if self._progress.best is None:
            errors = [trial.error for trial in self._progress.trials.values() if trial.error]
            shown = f" The first failure:\n{errors[0]}" if errors else ""
            raise ValueError(f"none of {self.num_trials} trials has reported a value.{shown}")
        return self._progress.best

    def best_trials(self, k: int = 1) -> list[TrialRecord]:
        """Return the ``k`` trials with the best values so far, the best first."""
        k = check_int("k", k, at_least=1)
        reported = [t for t in self._progress.trials.values() if math.isfinite(t.best_loss)]
        return sorted(reported, key=lambda trial: (trial.best_loss, trial.id))[:k]

    def trial(self, trial_id: TrialId) -> TrialRecord:
        """Return one trial: configuration, status, metrics, traceback if it failed.

        Raises
        ------
        KeyError : there is no such trial.
        """
        return self._progress.trials[self._known(trial_id)]

    def _known(self, trial_id: TrialId) -> TrialId:
        if check_int("trial_id", trial_id) not in self._progress.trials:
            n = self.num_trials
            there = f"trials are numbered from 0 to {n - 1}" if n else "no trial was started"
            raise NoSuchTrial(f"there is no trial {trial_id!r}: {there}")
        return trial_id

    @property
    def best_config(self) -> dict[str, Any]:
        """Configuration of the best trial."""
        return dict(self.best_trial.config)

    @property
    def best_value(self) -> float:
        """The best value of the metric that any trial has reported."""
        return self.objective.value(self.best_trial.best_loss)

    @property
    def peak_memory(self) -> PeakMemory:
        """The most memory that any trial has used, as far as it is known."""
        peaks = [trial.memory for trial in self._progress.trials.values()]
        return PeakMemory(*map(max, zip(*peaks, strict=True)))

    @property
    def num_set_aside(self) -> int:
        """Number of trials that were not launched, because they would have lacked memory."""
        return self._progress.n_set_aside

    def trials(self, metrics: Literal["last", "best"] = "last") -> pd.DataFrame:
        """Return a table with one row per trial, in order of trial ids.

        Columns: ``trial``, ``status``, ``resource``, ``seconds`` (in slots, in total, up to the
        last report) and its parts (``seconds/useful``, ``seconds/lost``, ``seconds/saving``, see
        :class:`~daskhpo.results.slot_time.TrialTime`), ``seconds/queued`` (without a slot, ready
        to continue), ``bracket``, ``peak_memory/host`` and ``peak_memory/device`` (bytes; only if
        any trial's is known), ``config/<name>``, the metrics, ``best/<metric>``, ``reason`` (why
        it ended).

        Parameters
        ----------
        metrics : report whose metrics are shown: ``"last"``, or the ``"best"`` of the trial.

        Raises
        ------
        ValueError : ``metrics`` is neither.
        """
        metrics = check_choice("metrics", metrics, ("last", "best"))
        trials = [*self._progress.trials.values()]
        return trial_frame(trials, self.objective, of_best=metrics == "best")

    def history(self) -> pd.DataFrame:
        """Return a table with one row per report, in order of time.

        Columns: ``trial``, ``attempt``, ``resource``, ``seconds`` since the study began, and the
        metrics. A unit that was trained again after a loss appears once, as first reported. A unit
        trained after taking over another trial's state is another unit.
        """
        import numpy as np

        reports = self._all_reports()
        frame = reports.frame().loc[np.array(reports.is_new, bool)]
        return frame.sort_values("seconds", kind="stable", ignore_index=True)

    def curves(self) -> pd.DataFrame:
        """Return the learning curves and training times of all trials as a table.

        One row per unit, in order of trials. Columns: ``trial``, ``resource``, ``seconds`` of this
        trial's training up to the end of the unit (with launches, without waiting), the metrics,
        ``config/<name>``. A failed trial has one row more, without metrics, at the unit in which
        it failed. :mod:`daskhpo.simulation.curves` reads such a table.

        Raises
        ------
        ValueError : trials changed their configurations or took over states, as in population
            based training: there is no curve of one configuration.
        """
        reports = self._all_reports()
        return curve_frame(
            reports.frame(),
            reports.launched,
            reports.lineage.generations,
            self._progress.trials,
        )

    def lineage(self) -> pd.DataFrame:
        """Return the lineage: one row per generation, in order of time.

        A trial begins a new generation when it exploits, or has to train again from before the
        start of the current one. Columns: ``life`` (number of the generation), ``trial``,
        ``start`` and ``until`` (units of training that its first and its last state hold),
        ``parent`` (the generation whose state it began with; missing if it began untrained),
        ``seconds`` since the study began, ``best/<metric>`` of its own reports, ``config/<name>``.
        """
        return lineage_frame(self._all_reports(), self.objective)

    def schedule(self, trial_id: TrialId | None = None) -> Schedule:
        """Return the hyperparameters along the ancestry of a trial's newest state.

        Parameters
        ----------
        trial_id : None: the winner, i.e. the trial whose ancestry contains the best report. Ties:
            most training, then best last report. Training that led to no trial's newest state is
            ignored.

        Raises
        ------
        ValueError : the trial has reported nothing, or no trial has.
        KeyError : there is no such trial.

        References
        ----------
        Jaderberg et al. 2017, *Population Based Training of Neural Networks*, Sec. 4: the
        schedules that a population discovers.
        """
        return Schedule(
            [
                ScheduleSegment(generation.start, until, generation.config, generation.trial)
                for generation, until in self._ancestry(trial_id)
            ]
        )

    def training(self, trial_id: TrialId | None = None) -> pd.DataFrame:
        """Return the reports along the ancestry of a trial's newest state.

        The trial is chosen as by :meth:`schedule`. One row per unit of training, in order, with
        the columns of :meth:`history`; ``trial`` is the one that trained the unit.

        Raises
        ------
        ValueError, KeyError : as for :meth:`schedule`.
        """
        return training_frame(self._all_reports(), self._ancestry(trial_id))

    def time_to_solution(self, target: float) -> float | None:
        """Return the seconds from the study's start until the target; None: not reached."""
        target = check_number("target", target)
        return self._all_reports().time_of(self.objective.loss({self.objective.metric: target}))

    def top_k_curve(self, k: int = 6) -> pd.DataFrame:
        """Return mean and standard deviation of the ``k`` best trials' values over time.

        Of each trial the best value counts. One row per change, from the time when ``k`` trials
        have reported. Columns: ``seconds``, ``mean``, ``std`` (of the population of k),
        ``num_trials`` that have reported.
        """
        k = check_int("k", k, at_least=1)
        return top_k_frame(self._all_reports(), self.objective, k)

    def cost(self) -> dict[str, float]:
        """Return the cost of the study, all sessions together.

        ``device_seconds`` is the time of all slots that served the study. A slot is one device, or
        the part of one that a trial requests. It is the sum of

        - ``useful_seconds``: units of training that had not been reported before. A unit lasts
          from the one before, or from the trial's launch: building the model is part of the first;
        - ``lost_seconds``: units that had been reported before, and the time since a trial's last
          unit when its worker was lost, its code raised, or the study died;
        - ``saving_seconds``: from a trial's last unit until its state was in memory, or its slot
          was free;
        - ``unreported_seconds``: since the last unit of each trial that holds a slot now;
        - ``idle_seconds``: slots without a trial.

        ``search_seconds`` are slot-seconds (most of them idle) of waiting for suggestions.

        Not part of that sum: ``seconds`` (the study's length, summed over sessions) and
        ``queue_seconds`` (in which the study ran without a slot, because its jobs were queued or
        gone).

        Checkpoints: ``checkpoint_bytes`` and ``checkpoint_files`` (written, in total),
        ``stored_bytes`` and ``stored_files`` (in the store now). Counts: ``retrained_units`` (units
        that were trained again because no state held them), ``fallback_trials`` (with a random
        configuration because the searcher was late).
        """
        progress, slots = self._progress, self._progress.slot_time
        trials, stored = progress.trials.values(), progress.checkpoints
        return {
            "device_seconds": slots.total,
            "useful_seconds": sum(trial.time.useful for trial in trials),
            "lost_seconds": sum(trial.time.lost for trial in trials),
            "saving_seconds": sum(trial.time.saving for trial in trials),
            "unreported_seconds": slots.unreported,
            "idle_seconds": slots.idle,
            "search_seconds": progress.search_seconds,
            "seconds": progress.seconds,
            "queue_seconds": slots.unavailable,
            "checkpoint_bytes": stored.n_bytes_written,
            "checkpoint_files": stored.n_written,
            "stored_bytes": stored.n_bytes,
            "stored_files": len(stored.refs),
            "retrained_units": sum(trial.n_retrained for trial in trials),
            "fallback_trials": progress.n_fallbacks,
        }

    @property
    def jobs(self) -> list[str]:
        """Ids of the Slurm jobs whose workers have served the study, in order."""
        return list(self._progress.jobs)

    def checkpoints(self) -> list[CheckpointRef]:
        """Return all checkpoints in the store, by id."""
        return sorted(self._progress.checkpoints.refs.values(), key=lambda ref: ref.id)

    def checkpoint(self, trial_id: TrialId | None = None) -> Any:
        """Return the newest checkpointed state of a trial.

        Parameters
        ----------
        trial_id : None: the best trial.

        Raises
        ------
        CheckpointMissing : no checkpoint was written, or it is no longer kept.
        """
        trial = self.best_trial if trial_id is None else self.trial(trial_id)
        if trial.checkpoint is None or self.path is None:
            raise CheckpointMissing(
                f"trial {trial.id} ({trial.status.value}) has no checkpoint; "
                "run the study with checkpoint='end' to keep one of every trial"
            )
        return open_store(self.path).read(trial.checkpoint)

    # -- to look at ------------------------------------------------------------------------------

    def tables(self) -> StudyTables:
        """Return the study as columns, for plots of your own; a directory is read again."""
        if self._records is not None:
            return tables_of(self._records, self.objective, self._manifest)
        assert self.path is not None
        return read_tables(self.path, self.objective)

    def to_html(self, path: str | Path) -> None:
        """Write the report: one HTML file with all plots, which opens without a network.

        Raises
        ------
        ImportError : Bokeh is not installed.
        FileNotFoundError : there is no folder for the file.
        OSError : the file cannot be written.
        """
        path = check_folder_of(check_path("path", path))
        known = self.path is not None and has_manifest(self.path)
        about = about_study(self.path) if known and self.path is not None else About()
        write_file(path, report_html(self.tables(), about))

    def plot_best(self) -> Any:
        """Return a Bokeh figure of the best value so far, over all trials."""
        return single("study", "best", self.tables())

    def plot_curves(self) -> Any:
        """Return a Bokeh figure of the learning curves."""
        return single("study", "curves", self.tables())

    def plot_rungs(self) -> Any:
        """Return a Bokeh figure of the trials that each rung judged, and that continued."""
        return single("study", "rungs", self.tables())

    def plot_parallel(self) -> Any:
        """Return a Bokeh figure of parallel coordinates, with a brush on each axis."""
        return single("space", "parallel", self.tables())

    def plot_slices(self) -> Any:
        """Return Bokeh figures of each hyperparameter against the metric."""
        return single("space", "slices", self.tables())

    def plot_importance(self) -> Any:
        """Return a Bokeh figure of which hyperparameters matter, and how sure that is."""
        return single("space", "importance", self.tables())

    def plot_map(self) -> Any:
        """Return a Bokeh figure of the predicted rank over two hyperparameters."""
        return single("space", "map", self.tables())

    def plot_timeline(self) -> Any:
        """Return a Bokeh figure of what each slot did, and when."""
        return single("use", "timeline", self.tables())

    def plot_population(self) -> Any:
        """Return Bokeh figures of a population: schedules, lineage, diversity."""
        return single("population", None, self.tables())

    def _repr_html_(self) -> str:
        """Return the result as a notebook shows it: the verdict, and the best trials."""
        tables = self.tables()
        return header(tables) + best_table(tables)

    # -- inside ----------------------------------------------------------------------------------

    def _all_reports(self) -> Reports:
        if self._reports is None:
            assert self.path is not None
            self._reports = read_reports(self.path, self.objective, self._n_records)
        return self._reports

    def _ancestry(self, trial_id: TrialId | None) -> list[tuple[Generation, int]]:
        if trial_id is None:
            self.best_trial  # noqa: B018 - raises if there is none
            return self._all_reports().ancestry(None)
        return self._all_reports().ancestry(self._known(trial_id))


def load_study(path: str | Path) -> Result:
    """Load the results of a study's directory, without its trainable and searcher.

    Raises
    ------
    FileNotFoundError : the directory holds no study.
    """
    directory = check_path("path", path).absolute()
    manifest = read_manifest(directory)
    return Result(study_records(directory), manifest.objective, directory)
