"""A small library with the interface of Weights & Biases, which keeps its runs in a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

opened: list[Run] = []


class Run:
    def __init__(self, path: Path, facts: dict[str, Any]) -> None:
        self.path, self.facts = path, facts
        self.is_finished = False
        opened.append(self)
        self.log(facts)

    def log(self, data: dict[str, Any]) -> None:
        assert not self.is_finished, "a run that is finished takes no more"
        with self.path.open("a") as file:
            file.write(json.dumps(data) + "\n")

    def finish(self) -> None:
        self.is_finished = True


def init(project: str, name: str, group: str, config: Any, dir: str, id: str, resume: str) -> Run:
    folder = Path(dir) / "runs"
    folder.mkdir(exist_ok=True)
    facts = {"project": project, "name": name, "group": group, "config": config, "again": resume}
    return Run(folder / f"{id}.jsonl", facts)
