"""Facts from a study's directory for its report."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from daskhpo.atomic_files import open_plain, read_small
from daskhpo.core.printable import shell_word
from daskhpo.engine.session import read_manifest
from daskhpo.plots.report import About


def check_folder_of(path: Path) -> Path:
    """Return a file's path; check that its folder exists, before the work starts.

    Raises
    ------
    FileNotFoundError : it does not.
    """
    if not (folder := path.absolute().parent).is_dir():
        raise FileNotFoundError(f"{path} cannot be written: there is no folder {folder}; create it")
    return path


def has_manifest(directory: Path) -> bool:
    """Return True if a study was begun in a directory."""
    return (directory / "study.json").exists()


def about_study(directory: Path) -> About:
    """Return what a report says of a study besides its plots."""
    manifest = read_manifest(directory)
    written = json.loads(read_small(directory / "study.json"))
    reproduce = {"seed": str(manifest.seed)}
    if manifest.source is not None:
        reproduce["definition"] = manifest.source
        reproduce["command"] = f"daskhpo run {shell_word(manifest.source)}"
    if (journal := directory / "journal.jsonl").exists():
        digest, n = hashlib.sha256(), 0
        with open_plain(journal) as file:
            while data := file.read(2**20):
                digest.update(data)
                n += data.count(b"\n")
        reproduce["journal"] = f"{n:,} records, SHA-256 {digest.hexdigest()}"
    reproduce["replay"] = "the journal holds all events: from it the same decisions follow"
    return About({"study begun by": f"daskhpo {written.get('version', '')}"}, reproduce)
