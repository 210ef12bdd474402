"""The report as one self-contained HTML file."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd


def as_page(
    title: str, text: str, pictures: Sequence[tuple[Path, str]], studies: pd.DataFrame
) -> str:
    """Return the page of a report as HTML.

    Parameters
    ----------
    text : Markdown, limited to what :mod:`report` writes.
    pictures : PNG files and their captions.
    studies : table of all studies, for the end of the page.
    """
    body = [f"<h1>{html.escape(title)}</h1>", _as_html(text)]
    for path, caption in pictures:
        image = base64.b64encode(path.read_bytes()).decode()
        alt = html.escape(caption, quote=True)
        body.append(
            f'<figure><img src="data:image/png;base64,{image}" alt="{alt}">'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )
    table = io.StringIO()
    studies.to_html(table, index=False, float_format="{:.4g}".format, border=0)
    body.append(f"<h2>All studies</h2><div class=wide>{table.getvalue()}</div>")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{CSS}</style></head><body>{''.join(body)}</body></html>\n"
    )


CSS = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
img { max-width: 100%; } figure { margin: 2rem 0; } figcaption { color: #555; font-size: 13px; }
table { border-collapse: collapse; font-size: 13px; } .wide { overflow-x: auto; }
td, th { padding: 0.2rem 0.6rem; border-bottom: 1px solid #ddd; text-align: right; }
td:first-child, th:first-child { text-align: left; }
"""


def _as_html(text: str) -> str:
    """Convert Markdown to HTML: only paragraphs, lists, tables, bold and code."""
    blocks, lines = [], text.splitlines()
    while lines:
        line = lines.pop(0)
        if line.startswith("| "):
            rows = [line]
            while lines and lines[0].startswith("|"):
                rows.append(lines.pop(0))
            blocks.append(_table(rows))
        elif line.startswith("- "):
            items = [line[2:]]
            while lines and lines[0].startswith("- "):
                items.append(lines.pop(0)[2:])
            blocks.append("<ul>" + "".join(f"<li>{_inline(i)}</li>" for i in items) + "</ul>")
        elif line:
            blocks.append(f"<p>{_inline(line)}</p>")
    return "".join(blocks)


def _table(rows: Sequence[str]) -> str:
    cells = [[_inline(cell.strip()) for cell in row.strip("|").split("|")] for row in rows]
    head = "".join(f"<th>{cell}</th>" for cell in cells[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in cells[2:]
    )
    return f"<div class=wide><table><tr>{head}</tr>{body}</table></div>"


def _inline(text: str) -> str:
    text = html.escape(text)
    text = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", text)
    return re.sub(r"`(.+?)`", r"<code>\1</code>", text)
