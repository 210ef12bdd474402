"""An optimiser for the tests: draws at random, and does on demand what optimisers should not.

Run as a script at the far end of a pipe. Options: ``log``, a file for all lines that it was sent;
``refuse``, the space; ``helper``, a file for the id of a process that it starts; ``do``, what it
does wrong at its proposal number ``at``.
"""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


class Toy:
    """What it knows: the space, its options, and how often it was asked."""

    def __init__(self, message: dict[str, Any]) -> None:
        self.space, self.options = message["space"], message["options"]
        self.draw, self.n_asked = random.Random(message["seed"]), 0
        if "helper" in self.options:
            helper = subprocess.Popen(["sleep", "3600"])
            Path(self.options["helper"]).write_text(str(helper.pid))

    def ask(self) -> Any:
        self.n_asked += 1
        values = {one["name"]: self.drawn(one) for one in self.space}
        answer: Any = {"handle": self.n_asked, "values": values}
        if self.n_asked != self.options.get("at", 3):
            return answer
        match self.options.get("do"):
            case "crash":
                print("it was all too much", file=sys.stderr, flush=True)
                os._exit(7)
            case "hang":
                time.sleep(3600)
            case "garble":
                return "no object"
            case "nothing":
                return {}
            case "half":
                del values[self.space[0]["name"]]
            case "no handle":
                del answer["handle"]
            case "no such place":
                values["optimizer"] = -1
            case "outside":
                values["lr"] = 7.0
        return answer

    def drawn(self, one: dict[str, Any]) -> Any:
        if one["kind"] == "ordinal":
            return self.draw.choice(one["values"])
        if one["kind"] == "categorical":
            return self.draw.randrange(one["n"])
        low, high = one["low"], one["high"]
        if one["log"]:
            value = math.exp(self.draw.uniform(math.log(low), math.log(high)))
        else:
            value = self.draw.uniform(low, high)
        value = value if one["kind"] == "real" else round(value)
        return min(max(value, low), high)


def main() -> None:
    """Answer each line with one."""
    for line in sys.stdin:
        message = json.loads(line)
        answer: Any = {}
        if message["do"] == "setup":
            toy = Toy(message)
            answer = {"error": "no such space"} if toy.options.get("refuse") else {}
        elif message["do"] == "ask":
            answer = toy.ask()
        else:
            answer = {"handle": message["handle"] or "foreign"}
        if "log" in toy.options:
            with open(toy.options["log"], "a") as log:
                log.write(line)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
