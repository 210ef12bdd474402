"""Options of a run on the command line, made from those of `RunOptions`."""

from __future__ import annotations

import argparse
import inspect
import re
from typing import Any, Literal, get_args, get_origin, get_type_hints

from daskhpo.engine.options import OptionKeywords, RunOptions, merge_options


def add_run_options(parser: argparse.ArgumentParser, *, gpu: float | None, **about: str) -> None:
    """Add an option for each field of `RunOptions`.

    The resources are ``--cpu`` and ``--gpu``. Help texts are from its docstring.

    Parameters
    ----------
    gpu : default of ``--gpu``; None: what a worker process has.
    about : help texts by name, where that of ``RunOptions`` does not fit.
    """
    texts = _descriptions() | about
    for name, kind in get_type_hints(OptionKeywords).items():
        flag, kinds = "--" + name.replace("_", "-"), get_args(kind) or (kind,)
        if name == "resources":
            parser.add_argument("--cpu", type=int, default=1, help="threads per trial (default: 1)")
            shown = "what a worker process has" if gpu is None else f"{gpu:g}"
            parser.add_argument(
                "--gpu",
                type=float,
                default=gpu,
                help=f"GPUs per trial, or a fraction (default: {shown})",
            )
        elif bool in kinds:
            parser.add_argument(
                flag,
                action=argparse.BooleanOptionalAction,
                default=getattr(RunOptions, name),
                help=texts.get(name),
            )
        elif get_origin(kind) is Literal:
            default = getattr(RunOptions, name)
            parser.add_argument(flag, choices=kinds, default=default, help=texts.get(name))
        elif name == "checkpoint":
            parser.add_argument(flag, default="auto", help=texts.get(name))
        else:
            reads = next(kind for kind in (str, int, float) if kind in kinds)
            parser.add_argument(flag, type=reads, help=texts.get(name))


def run_options(parsed: argparse.Namespace) -> dict[str, Any]:
    """Return the options of a parsed command line, as keywords of ``Study.start``.

    Raises
    ------
    TypeError, ValueError : one is not valid.
    """
    resources = {"cpu": parsed.cpu} | ({} if parsed.gpu is None else {"gpu": parsed.gpu})
    others = (name for name in OptionKeywords.__annotations__ if name != "resources")
    given = {name: getattr(parsed, name) for name in others} | {"resources": resources}
    merge_options("start", None, given)  # checks them, before a study is looked at
    return given


def _descriptions() -> dict[str, str]:
    """Return descriptions from the docstring of `RunOptions`, up to a semicolon."""
    fields = re.findall(r"^(\w+) : ((?:.|\n    )*)", inspect.getdoc(RunOptions) or "", re.MULTILINE)
    plain = {name: " ".join(text.replace("``", "").split()) for name, text in fields}
    return {name: text.partition(";")[0].rstrip(".") for name, text in plain.items()}
