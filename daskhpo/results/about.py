"""What a study's directory says of how it was run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from daskhpo.core.printable import shell_word
from daskhpo.engine.session import read_manifest
from daskhpo.plots.report import About


def has_manifest(directory: Path) -> bool:
    """Return True if a study was begun in a directory."""
    return (directory / "study.json").exists()


def about_study(directory: Path) -> About:
    """Return what a report says of a study besides its plots."""
    manifest = read_manifest(directory)
    written = json.loads((directory / "study.json").read_text())
    reproduce = {"seed": str(manifest.seed)}
    if manifest.source is not None:
        reproduce["definition"] = manifest.source
        reproduce["command"] = f"daskhpo run {shell_word(manifest.source)}"
    if (journal := directory / "journal.jsonl").exists():
        data = journal.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        n = data.count(b"\n")
        reproduce["journal"] = f"{n:,} records, SHA-256 {digest}"
    reproduce["replay"] = "the journal holds all events: from it the same decisions follow"
    return About({"study begun by": f"daskhpo {written.get('version', '')}"}, reproduce)
