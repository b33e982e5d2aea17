"""Tables and words as Markdown, as one HTML page that needs nothing else, and for the terminal."""

import base64
import html
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from pipeline.core.params import UserError

COLOURS = 256  # of a picture in the page: a third of the size

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em; color: #222; background: #fff; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; }
th, td { padding: .3em .7em; border-bottom: 1px solid #ddd; text-align: left; white-space: nowrap; }
th { border-bottom: 2px solid #888; vertical-align: bottom; white-space: normal; min-width: 5em; }
td:first-child, th:first-child { position: sticky; left: 0; background: #fff; }
.baseline td { color: #666; }
.side { display: flex; gap: 1em; overflow-x: auto; }
figure { margin: 0; flex: none; }
figcaption { font-weight: bold; }
img { max-height: 480px; }
img.whole { max-width: 100%; max-height: none; }
summary { cursor: pointer; font-weight: bold; margin: 1em 0 .5em; }
"""


class Bold(str):
    """A cell in bold letters."""


@dataclass(frozen=True)
class Section:
    """A title, paragraphs, and a table whose first row is its head; ``folded`` it is closed at first."""

    title: str
    words: list[str]
    table: list[list[str]]
    folded: bool = False


def markdown_page(title: str, facts: Sequence[str], sections: Sequence[Section]) -> str:
    parts = [f"# {_markdown(title)}", *facts, "![all runs](runs.png)"]
    for section in sections:
        parts.append(f"## {section.title}")
        if section.table:
            parts += [*section.words, _markdown_table(section.table)]
        else:
            parts.append("\n".join(f"* {_markdown(line)}" for line in section.words))
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: Sequence[Sequence[str]]) -> str:
    rows = [[f"**{_markdown(c)}**" if isinstance(c, Bold) else _markdown(c) for c in row] for row in table]
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|" + " --- |" * len(table[0]), *body])


def _markdown(text: str) -> str:
    """What would be read as a column, a code, a tag or emphasis, as it stands."""
    return re.sub(r"([\\|`*<])", r"\\\1", text.replace("\n", " "))


def html_page(
    title: str,
    facts: Sequence[str],
    sections: Sequence[Section],
    overview: Path,
    pictures: Mapping[str, Sequence[tuple[str, Path]]],
) -> str:
    """``pictures``: of each kind, names of runs and the PNG files; they are in the page itself."""
    parts = [f"<h1>{html.escape(title)}</h1>"]
    parts += [f"<p>{_strong(html.escape(fact))}</p>" for fact in facts]
    for number, section in enumerate(sections):
        parts.append(_html_section(section))
        if number == 0:
            parts.append(f'<img class="whole" alt="all runs" src="{_inline(overview)}">')
    parts.append("<h2>Plots</h2>")
    for kind, of_runs in pictures.items():
        figures = [
            f'<figure><figcaption>{html.escape(name)}</figcaption><img alt="{html.escape(f"{kind}, {name}")}" '
            f'src="{_inline(path)}"></figure>'
            for name, path in of_runs
        ]
        parts.append(
            f'<details open><summary>{html.escape(kind)}</summary><div class="side">{"".join(figures)}</div></details>'
        )
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(parts) + "\n</body></html>\n"


def _strong(text: str) -> str:
    return re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", text)


def _html_section(section: Section) -> str:
    if not section.table:
        lines = "".join(f"<li>{html.escape(line)}</li>" for line in section.words)
        return f"<h2>{html.escape(section.title)}</h2><ul>{lines}</ul>"
    words = "".join(f"<p>{html.escape(line)}</p>" for line in section.words)
    head, *body = section.table
    rows = ["<tr>" + "".join(f"<th>{html.escape(cell)}</th>" for cell in head) + "</tr>"]
    for row in body:
        cells = [f"<strong>{html.escape(c)}</strong>" if isinstance(c, Bold) else html.escape(c) for c in row]
        kind = ' class="baseline"' if row[0].startswith("baseline: ") else ""
        rows.append(f"<tr{kind}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    table = f'<div class="wide"><table>{"".join(rows)}</table></div>'
    if section.folded:
        return f"<details><summary>{html.escape(section.title)}</summary>{words}{table}</details>"
    return f"<h2>{html.escape(section.title)}</h2>{words}{table}"


def _inline(path: Path) -> str:
    """A PNG as an address that holds it; raises ``UserError`` for one that is damaged."""
    buffer = io.BytesIO()
    try:
        with Image.open(path) as image:
            image.convert("RGB").quantize(COLOURS, Image.Quantize.FASTOCTREE).save(buffer, "PNG")
    except (OSError, SyntaxError, ValueError) as error:  # PIL's, by where the damage is
        raise UserError(f"{path} is damaged ({' '.join(str(error).split())}): evaluate the run again") from None
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def terminal(title: str, facts: Sequence[str], sections: Sequence[Section]) -> str:
    """The first table without its intervals, and the sections in words."""
    table = [[re.sub(r" \([-\d. ]+ to [-\d. ]+\)", "", cell) for cell in row] for row in sections[0].table]
    wide = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, wide, strict=True)).rstrip() for row in table]
    words = [line for section in sections if not section.table for line in section.words]
    return "\n".join([title, *(fact.replace("**", "") for fact in facts), "", *lines, "", *words])
