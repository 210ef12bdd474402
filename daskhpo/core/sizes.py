"""Numbers of bytes as text for people."""

from __future__ import annotations


def size_text(n_bytes: float) -> str:
    """Return a number of bytes as text: ``312 B``, ``1.5 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} B" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"
