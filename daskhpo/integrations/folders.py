"""A framework's checkpoint folder as a state, and back."""

from __future__ import annotations

from pathlib import Path


def packed(folder: Path) -> dict[str, bytes]:
    """Return the bytes of each file below a folder, by its path from there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def unpack(files: dict[str, bytes], folder: Path) -> None:
    """Write the files that :func:`packed` returned."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def shared_folder(path: str) -> str:
    """Return rank 0's path in all ranks of one node; alone, the path itself."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return path
    paths = [path]
    dist.broadcast_object_list(paths)
    return paths[0]


def wait_for_ranks() -> None:
    """Wait until all ranks are here."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.barrier()
