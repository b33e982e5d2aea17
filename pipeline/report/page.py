"""Tables and words as Markdown, as one HTML page that needs nothing else, and for the terminal."""

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

HERE = Path(__file__).parent


class Bold(str):
    """A cell in bold letters."""


@dataclass(frozen=True)
class Section:
    """A title, paragraphs, and a table whose first row is its head; ``folded`` it is closed at first."""

    title: str
    words: list[str]
    table: list[list[str]]
    folded: bool = False


@dataclass(frozen=True)
class Column:
    """A column of the page's main table. ``better``: 'higher', 'lower', or 'text', which sorts by letters.

    ``more``: shown only on demand.
    """

    title: str
    says: str
    better: str
    more: bool = False


@dataclass(frozen=True)
class Cell:
    """``value`` is what is sorted by, None where there is none; ``below`` stands under the text in small letters."""

    text: str
    value: float | str | None = None
    below: str = ""
    bold: bool = False


@dataclass(frozen=True)
class Row:
    """A run in the main table, its first cell; ``words`` are what a filter finds it by."""

    name: str
    baseline: bool
    does: Sequence[str]
    words: str
    cells: Sequence[Cell]


def markdown_page(
    title: str,
    verdict: Sequence[str],
    facts: Sequence[str],
    sections: Sequence[Section],
    picture: str | None = "runs.png",
) -> str:
    parts = [f"# {_markdown(title)}", *map(_markdown, verdict), *facts]
    parts += [] if picture is None else [f"![all runs]({picture})"]
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
    verdict: Sequence[str],
    facts: Sequence[str],
    columns: Sequence[Column],
    rows: Sequence[Row],
    sections: Sequence[Section],
    script: str,
) -> str:
    """The page. ``script`` is the JSON of what it draws (``content.as_script``); style and code are in it as well."""
    named = [(section, _anchor(section.title)) for section in sections]
    contents = [("verdict", "Verdict"), ("runs", "Runs"), ("compare", "Compare two"), ("all-runs", "All runs")]
    contents += [(anchor, section.title) for section, anchor in named] + [("about", "About the numbers")]
    links = "".join(f'<a href="#{anchor}">{html.escape(name)}</a>' for anchor, name in contents)
    choices = "".join(f'<option value="{k}">{html.escape(row.name)}</option>' for k, row in enumerate(rows))
    parts = [
        '<a class="skip" href="#verdict">to the verdict</a>',
        f'<nav aria-label="contents">{links}</nav><main>',
        f'<h1 id="verdict">{html.escape(title)}</h1>',
        '<div class="verdict">' + "".join(f"<p>{html.escape(line)}</p>" for line in verdict) + "</div>",
        "".join(f"<p>{_strong(html.escape(fact))}</p>" for fact in facts[:1] if fact.startswith("**")),
        '<h2 id="runs">Runs</h2>',
        _controls(rows),
        f'<div class="wide" tabindex="0" role="region" aria-label="all runs">{_main_table(columns, rows)}</div>',
        _meanings(columns),
        '<h2 id="compare">Compare two runs</h2>',
        '<p class="controls"><label>Run <select id="first">' + choices + "</select></label>"
        '<label>beside <select id="second">' + choices + "</select></label></p>",
        '<div id="compared"></div>',
        '<h2 id="all-runs">All runs</h2><div id="every"></div>',
        "<noscript><p>Pictures and sorting need JavaScript. The tables stand without it.</p></noscript>",
        *(_html_section(section, anchor) for section, anchor in named),
        '<h2 id="about">About the numbers</h2>',
        *(f"<p>{_strong(html.escape(fact))}</p>" for fact in facts),
        "</main>",
        f'<script type="application/json" id="data">{script}</script>',
        f"<script>{(HERE / 'page.js').read_text(encoding='utf-8')}</script>",
    ]
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{(HERE / 'page.css').read_text(encoding='utf-8')}</style>"
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(parts) + "\n</body></html>\n"


def _controls(rows: Sequence[Row]) -> str:
    kinds = sorted({row.baseline for row in rows})
    options = "".join(f'<option value="{_kind(kind)}">{_kind(kind)}s</option>' for kind in kinds)
    able = dict.fromkeys(word for row in rows for word in row.does)
    abilities = "".join(f'<option value="{html.escape(word)}">{html.escape(word)}</option>' for word in able)
    return (
        '<div class="controls"><label>Filter <input id="words" type="search" placeholder="name, model, loss"></label>'
        f'<label>Kind <select id="kind"><option value="">all</option>{options}</select></label>'
        f'<label>Predicts <select id="can"><option value="">anything</option>{abilities}</select></label>'
        '<label><input id="all" type="checkbox"> all measures</label>'
        '<span id="count" class="note" role="status"></span></div>'
        '<p class="note">A click on a title sorts. A click on a name compares that run. Under a number stands its 95 % '
        "interval. Bold: better than every other run beyond noise. Grey: baselines. "
        '<strong id="scrolls" hidden>The table is wider than the window: it scrolls sideways.</strong></p>'
    )


def _main_table(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    heads = [
        f'<th scope="col" data-better="{c.better}" title="{html.escape(c.says)}"{_more(c)}>'
        f'<button type="button">{html.escape(c.title).replace("/", "/<wbr>")}</button></th>'
        for c in columns
    ]
    second = rows[-1].name if rows else ""
    lines = []
    for number, row in enumerate(rows, start=1):
        first, *others = row.cells
        beside = second if row.name != second else rows[0].name
        link = f"#compare={_in_address(row.name)}&{_in_address(beside)}"
        name = f'<a href="{html.escape(link)}">{html.escape(first.text)}</a>' + _below(first)
        cells = [f'<td data-v="{html.escape(str(first.value))}">{name}</td>']
        for column, cell in zip(columns[1:], others, strict=True):
            value = "" if cell.value is None else f' data-v="{html.escape(str(cell.value))}"'
            text = f"<strong>{html.escape(cell.text)}</strong>" if cell.bold else html.escape(cell.text)
            cells.append(f"<td{value}{_more(column)}>{text}{_below(cell)}</td>")
        kind = _kind(row.baseline)
        lines.append(
            f'<tr id="run-{number}" class="{kind}" data-kind="{kind}" data-does="{html.escape(" ".join(row.does))}" '
            f'data-words="{html.escape(row.words.lower())}">{"".join(cells)}</tr>'
        )
    return f'<table id="results"><thead><tr>{"".join(heads)}</tr></thead><tbody>{"".join(lines)}</tbody></table>'


def _kind(baseline: bool) -> str:
    return "baseline" if baseline else "adapter"


def _in_address(name: str) -> str:
    return quote(name, safe="")


def _more(column: Column) -> str:
    return ' class="more"' if column.more else ""


def _below(cell: Cell) -> str:
    return f"<small>{html.escape(cell.below)}</small>" if cell.below else ""


def _meanings(columns: Sequence[Column]) -> str:
    said = "".join(f"<dt>{html.escape(c.title)}</dt><dd>{html.escape(c.says)}</dd>" for c in columns if c.says)
    return f"<details><summary>What the measures mean</summary><dl>{said}</dl></details>"


def _anchor(title: str) -> str:
    return re.sub(r"\W+", "-", title.lower())


def _strong(text: str) -> str:
    return re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", text)


def _html_section(section: Section, anchor: str) -> str:
    words = "".join(f"<p>{html.escape(line)}</p>" for line in section.words)
    if not section.table:
        words = "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in section.words) + "</ul>"
    inside = words + (_plain_table(section.table) if section.table else "")
    if section.folded:
        return f'<details id="{anchor}"><summary>{html.escape(section.title)}</summary>{inside}</details>'
    return f'<h2 id="{anchor}">{html.escape(section.title)}</h2>{inside}'


def _plain_table(table: Sequence[Sequence[str]]) -> str:
    head, *body = table
    first = "<tr>" + "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in head) + "</tr>"
    rows = []
    for row in body:
        cells = [f"<strong>{html.escape(c)}</strong>" if isinstance(c, Bold) else html.escape(c) for c in row]
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    inside = f"<thead>{first}</thead><tbody>{''.join(rows)}</tbody>"
    return f'<div class="wide" tabindex="0"><table class="bare">{inside}</table></div>'


def terminal(title: str, verdict: Sequence[str], facts: Sequence[str], sections: Sequence[Section]) -> str:
    """The first table without its intervals, and the sections in words."""
    table = [[re.sub(r" \([-\d. ]+ to [-\d. ]+\)", "", cell) for cell in row] for row in sections[0].table]
    words = [line for section in sections if not section.table for line in section.words]
    return "\n".join(
        [title, *(fact.replace("**", "") for fact in facts), "", *columns(table), "", *words, "", *verdict]
    )


def columns(table: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table in columns."""
    wide = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, wide, strict=True)).rstrip() for row in table]
