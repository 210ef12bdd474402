"""Check the wording of code and documentation: ``python tests/docs/words.py [PATH ...]``.

Docstrings begin with a verb or a noun phrase, on a line of at most 80 characters. Some words are
avoided because plainer ones exist. ``docs/glossary.md`` has the words with a meaning of their own.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = ("daskhpo", "experiments", "benchmarks", "tools")
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "CODE_OF_CONDUCT.md",
    "CHANGELOG.md",
    "docs",
    "experiments",
)

OPENINGS = (
    *("what", "who", "whoever", "whom", "whose", "whether", "how", "where", "that", "of", "as"),
    *("by", "when", "why", "if", "so", "not"),
)
LONGEST_FIRST_LINE = 80
INSTEAD = {  # a word or phrase: what to write
    "shall": "must, or the present tense",
    "whoever": "the process, user or trial that",
    "whom": "name the thing",
    "nobody": "no user, no process, nothing",
    "somebody": "a user, a process, something",
    "anybody": "any user, any process",
    "anew": "again",
    "for ever": "without end, or until ...",
    "any more": "no longer",
    "any longer": "no longer",
    "is told": "receives, gets, is notified",
    "are told": "receive, get, are notified",
    "was told": "received, got, was notified",
    "comes to its end": "ends, finishes",
    "come to their end": "end, finish",
    "goes on": "continues, resumes",
    "go on": "continue, resume",
    "going on": "continuing, resuming",
    "went on": "continued, resumed",
}
FORBIDDEN = re.compile(rf"\b({'|'.join(INSTEAD)})\b", re.IGNORECASE)
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)

Problem = tuple[int, str]  # line, message


def wording(text: str) -> Iterator[Problem]:
    """Find words that have a plainer one; code between backticks, and keys, do not count."""
    plain = re.sub(r"(`+)[^`]+\1|\"\w+\"", lambda m: re.sub(r"[^\n]", " ", m[0]), text)
    for match in FORBIDDEN.finditer(plain):
        line = plain.count("\n", 0, match.start()) + 1
        yield line, f"{match[0]!r}: write {INSTEAD[match[0].lower()]}"


def first_lines(source: str) -> Iterator[Problem]:
    """Find docstrings whose first line is too long, or opens with a question word."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node)):
            first = text.partition("\n")[0]
            line = node.body[0].lineno
            if len(first) > LONGEST_FIRST_LINE:
                yield line, f"first line of {len(first)} characters: {first}"
            if re.split(r"\W", first)[0].lower() in OPENINGS:
                yield line, f"write a verb or a noun phrase first: {first}"


def check(path: Path) -> Iterator[Problem]:
    """Find the problems of one file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        yield from first_lines(text)
    yield from wording(text)


def files(names: list[str]) -> list[Path]:
    """List the files to check: those given, or all of the project's."""
    if names:
        return [Path(name).absolute() for name in names]
    code = [path for folder in CODE for path in (ROOT / folder).rglob("*.py")]
    pages = [ROOT / name for name in PAGES]
    pages = [p for page in pages for p in (page.rglob("*.md") if page.is_dir() else [page])]
    return sorted({path for path in (*code, *pages) if path.exists()})


def main() -> int:
    n = 0
    for path in files(sys.argv[1:]):
        for line, message in sorted(check(path)):
            print(f"{path.relative_to(ROOT)}:{line}: {message}")
            n += 1
    return int(n > 0)


if __name__ == "__main__":
    sys.exit(main())
