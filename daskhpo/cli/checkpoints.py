"""The command ``daskhpo checkpoints``: list, verify, export and clean up."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daskhpo.checkpoints import STORE, open_store
from daskhpo.cli.arguments import add_study_path
from daskhpo.cli.text import columns, count, show
from daskhpo.core.errors import CheckpointCorrupt, CheckpointMissing
from daskhpo.core.printable import shell_word
from daskhpo.core.sizes import size_text
from daskhpo.core.types import CheckpointRef

if TYPE_CHECKING:
    from daskhpo.results.result import Result

ArrayRow = tuple[str, int]  # array and row


def add_to(commands: Any) -> None:
    """Add the command to the parsers of a command line."""
    parser = commands.add_parser(
        "checkpoints", help="list, verify, export or clean up the checkpoints of a study"
    )
    add_study_path(parser)
    acts = parser.add_mutually_exclusive_group()
    acts.add_argument(
        "--verify",
        action="store_true",
        help="read each checkpoint and compare its checksum; exit status 1 if any is bad",
    )
    acts.add_argument(
        "--export",
        nargs=2,
        metavar=("TRIAL", "FILE"),
        help="write the newest state of a trial (its number, or best) to a .pt, .safetensors or "
        ".npz file",
    )
    acts.add_argument(
        "--collect", action="store_true", help="delete files that belong to no checkpoint"
    )
    parser.add_argument(
        "--force", action="store_true", help="with --export: replace FILE if it exists"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, one line per checkpoint")
    parser.set_defaults(act=run)


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    from daskhpo.results.result import load_study

    if options.json and (options.export or options.collect):
        raise ValueError("--json cannot be combined with --export or --collect")
    if options.force and not options.export:
        raise ValueError("--force needs --export TRIAL FILE")
    if options.collect:
        return _collect(options.path)
    result = load_study(options.path)
    if options.export:
        return _export(result, *options.export, force=options.force)
    refs = sorted(result.checkpoints(), key=lambda ref: (ref.trial, ref.resource, ref.id))
    problems = _problems(options.path, refs) if options.verify else {}
    disk = Disk.of(options.path / STORE)
    if problems or any(not disk.files(ref) for ref in refs):
        # A running study may have deleted some meanwhile; deletions are journaled first.
        still = {ref.id for ref in load_study(options.path).checkpoints()}
        refs = [ref for ref in refs if ref.id in still]
        problems = {row: problem for row, problem in problems.items() if row in still}
    if options.json:
        for ref in refs:
            show(json.dumps(_as_json(ref, result, disk, problems if options.verify else None)))
    else:
        _print_table(refs, result, disk, problems if options.verify else None)
        _print_totals(options.path, refs, disk)
    for problem in problems.values():
        show(f"daskhpo: {problem}", file=sys.stderr)
    return 1 if problems else 0


# -- list and verify -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Disk:
    """Contents of a store's folder, whether the journal has them or not.

    Attributes
    ----------
    rows : names and sizes (bytes) of the files of each row, in the order of its chunks.
    litter : sizes (bytes) of unfinished files.
    n_empty : number of arrays without rows.
    """

    rows: Mapping[ArrayRow, Sequence[tuple[str, int]]] = field(default_factory=dict)
    litter: Sequence[int] = ()
    n_empty: int = 0

    @classmethod
    def of(cls, store: Path) -> Disk:
        """List the contents of a store's folder; empty if it does not exist."""
        rows: dict[ArrayRow, list[tuple[str, int]]] = {}
        litter, n_empty = [], 0
        for folder, _, names in os.walk(store):
            array = Path(folder).name if Path(folder).parent == store else ""
            chunks: list[tuple[int, int, int]] = []
            for name in names:
                row, _, chunk = name.partition(".")
                with suppress(FileNotFoundError):  # deleted meanwhile
                    n_bytes = os.stat(os.path.join(folder, name)).st_size
                    if name.endswith(".partial"):
                        litter.append(n_bytes)
                    elif array and row.isdecimal() and chunk.isdecimal():
                        chunks.append((int(row), int(chunk), n_bytes))
            for number, part, n_bytes in sorted(chunks):
                files = rows.setdefault((array, number), [])
                files.append((f"{STORE}/{array}/{number}.{part}", n_bytes))
            n_empty += bool(array) and not chunks
        return cls(rows, litter, n_empty)

    def files(self, ref: CheckpointRef) -> list[str]:
        """Return the files of a checkpoint, relative to the study; none if it is missing."""
        return [name for name, _ in self.rows.get((ref.array, ref.id), ())]


def _problems(path: Path, refs: Sequence[CheckpointRef]) -> dict[int, str]:
    """Read all checkpoints, and return what is wrong with them by checkpoint id."""
    store, problems = open_store(path), {}
    for ref in refs:
        try:
            store.verify(ref)
        except CheckpointMissing as error:
            problems[ref.id] = f"row {ref.id} is missing: {error}"
        except (CheckpointCorrupt, OSError) as error:
            problems[ref.id] = f"row {ref.id} is corrupt: {error}"
    return problems


def _best(ref: CheckpointRef, result: Result) -> float | None:
    """Return the best metric so far of a checkpoint's trial; None before a report."""
    value = result.objective.value(result.trial(ref.trial).best_loss)
    return value if math.isfinite(value) else None


def _as_json(
    ref: CheckpointRef, result: Result, disk: Disk, problems: Mapping[int, str] | None
) -> dict[str, Any]:
    data = {
        "trial": ref.trial,
        "status": result.trial(ref.trial).status.value,
        "resource": ref.resource,
        "best": _best(ref, result),
        "row": ref.id,
        "bytes": ref.n_bytes,
        "files": disk.files(ref),
    }
    return data if problems is None else data | {"problem": problems.get(ref.id)}


def _print_table(
    refs: Sequence[CheckpointRef],
    result: Result,
    disk: Disk,
    problems: Mapping[int, str] | None,
) -> None:
    if not refs:
        return
    head = ["trial", "status", "resource", f"best {result.objective.metric}", "row", "size"]
    lines = [head + ([] if problems is None else ["state"]) + ["file"]]
    for ref in refs:
        best, files = _best(ref, result), disk.files(ref)
        line = [
            str(ref.trial),
            result.trial(ref.trial).status.value,
            str(ref.resource),
            "-" if best is None else f"{best:.6g}",
            str(ref.id),
            size_text(ref.n_bytes),
        ]
        if problems is not None:
            line.append("bad" if ref.id in problems else "intact")
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        lines.append([*line, files[0] + more if files else "missing"])
    texts = ("status", "state", "file")
    show(columns(lines, [i for i, name in enumerate(lines[0]) if name in texts]))
    show()


def _print_totals(path: Path, refs: Sequence[CheckpointRef], disk: Disk) -> None:
    from daskhpo.engine.lock import holder_of

    committed = {(ref.array, ref.id) for ref in refs}
    sizes = [n for place, files in disk.rows.items() if place in committed for _, n in files]
    show(f"committed  {count(len(refs), 'checkpoint')}", end="")
    show(f": {count(len(sizes), 'file')}, {size_text(sum(sizes))}")
    if n_missing := len(committed - disk.rows.keys()):
        show(f"missing    {n_missing} of them; a trial that resumes from one repeats training")
    others = [files for place, files in disk.rows.items() if place not in committed]
    besides = []
    if others:
        n_bytes = sum(n for files in others for _, n in files)
        besides.append(f"{count(len(others), 'row')} not in the journal ({size_text(n_bytes)})")
    if disk.litter:
        n_bytes = sum(disk.litter)
        besides.append(f"{count(len(disk.litter), 'unfinished file')} ({size_text(n_bytes)})")
    if disk.n_empty:
        besides.append(f"{count(disk.n_empty, 'array')} without rows")
    show(f"besides    {', '.join(besides) or 'nothing'}")
    if besides and holder_of(path) is None:
        show(f"           remove with: daskhpo checkpoints {shell_word(path)} --collect")
    elif besides:
        show("           the study runs: it may still commit or remove these")


# -- export and clean up -------------------------------------------------------------------------


def _export(result: Result, trial: str, file: str, *, force: bool) -> int:
    from daskhpo.checkpoints.export import check_target, export

    if trial != "best" and not trial.isdecimal():
        raise ValueError(f"--export {trial}: give a trial's number, or best")
    path = Path(file).expanduser()
    check_target(path, force=force)
    try:
        record = result.best_trial if trial == "best" else result.trial(int(trial))
    except KeyError:
        raise ValueError(
            f"there is no trial {trial}: {result.path} has {count(result.num_trials, 'trial')}"
        ) from None
    try:
        export(result.checkpoint(record.id), path, force=force)
    except ModuleNotFoundError as error:
        raise ValueError(str(error)) from None
    assert record.checkpoint is not None, "exported without a checkpoint"
    show(f"{path}: trial {record.id} at resource {record.checkpoint.resource}", end="")
    show(f", {size_text(path.stat().st_size)}")
    return 0


def _collect(path: Path) -> int:
    from daskhpo.engine.lock import StudyLock
    from daskhpo.engine.session import read_manifest
    from daskhpo.results.result import load_study

    read_manifest(path)  # raises if there is no study, before a lock is created there
    lock = StudyLock(path)  # no session may commit a row between reading and deleting
    try:
        cleaned = open_store(path).clean(keep=load_study(path).checkpoints())
    finally:
        lock.release()
    show(f"removed {count(cleaned.n_files, 'file')} ({size_text(cleaned.n_bytes)})")
    return 0
