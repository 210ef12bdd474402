"""Run the cells of a notebook in a real kernel; write its outputs, and each update of one.

python -m tests.dashboard.run_notebook CELLS.json OUTPUTS.json: a process of its own, since the
client of Jupyter leaves sockets open.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient


class Client(NotebookClient):  # type: ignore[misc]
    """Keeps what outputs were updated to while a cell ran."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.updates: list[str] = []

    def process_message(self, message: Any, cell: Any, place: int) -> Any:
        if message["msg_type"] == "update_display_data":
            self.updates.append(message["content"]["data"].get("text/html", ""))
        return super().process_message(message, cell, place)


def main(cells: Path, outputs: Path) -> None:
    folder = cells.parent
    kernel = folder / "kernels" / "here"
    kernel.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": command, "display_name": "here", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    specs = KernelSpecManager(kernel_dirs=[str(folder / "kernels")])
    client = Client(
        nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(cell) for cell in json.loads(cells.read_text())]
        ),
        km=AsyncKernelManager(kernel_name="here", kernel_spec_manager=specs),
        timeout=200,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    shown = [cell["outputs"] for cell in client.nb["cells"]]
    outputs.write_text(json.dumps({"outputs": shown, "updates": client.updates}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
