"""A page of sections, with its script, style and data in one file that opens offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from crystalgfn.evaluation import html_parts


def assemble(
    title: str,
    lead: str,
    sections: Mapping[str, str],
    figures: Mapping[str, Any],
    rows: Mapping[str, Any],
    best: Sequence[Any] = (),
    plotly: str = "",
) -> str:
    """The page.

    Args:
        title: plain text.
        lead: HTML under the title.
        sections: heading -> HTML.
        figures: plotly's JSON, by the names of `html_parts.box`.
        rows: ``keys``, ``heads`` and ``rows`` of the table that `table_place` holds.
        best: plotly's JSON of structures that can be turned.
        plotly: the text of plotly's library; none where there is no figure.
    """
    names = {name: name.lower().replace(" ", "-") for name in sections}
    values = {
        "title": escape(title),
        "lead": lead,
        "links": "".join(f'<a href="#{names[name]}">{escape(name)}</a>' for name in sections),
        "sections": "".join(f'<section id="{names[n]}"><h2>{escape(n)}</h2>{t}</section>' for n, t in sections.items()),
        "figures": html_parts.data(figures),
        "best": html_parts.data(best),
        "rows": html_parts.data(rows),
        "plotly": plotly.replace("</script", "<\\/script"),
    }
    folder = files("crystalgfn.evaluation") / "report"
    values |= {name: (folder / f"page.{name}").read_text(encoding="utf-8") for name in ("css", "js")}
    parts = (folder / "page.html").read_text(encoding="utf-8").split("{{")
    ends = (part.split("}}", 1) for part in parts[1:])
    return parts[0] + "".join(values[name] + rest for name, rest in ends)


def table_place(words: str) -> str:
    """The place of the table of rows, with what it is searched by; ``words``: HTML above it."""
    return (
        f"<p>{words}</p>"
        '<div class="tools"><input id="find" type="search" placeholder="find" aria-label="find">'
        '<span id="flags"></span><span id="count"></span></div>'
        '<div class="scroll"><table id="all"><thead></thead><tbody></tbody></table></div>'
        '<button type="button" id="more">more rows</button>'
    )


def made(about: Mapping[str, Any]) -> str:
    """``command``, ``machine`` and ``settings``, those that are there."""
    parts = [f"<pre>{escape(str(about['command']))}</pre>"] if "command" in about else []
    for name, words in (("machine", "Machine and versions"), ("settings", "Settings")):
        if name in about:
            rows = [[key, "" if value is None else value] for key, value in about[name].items()]
            parts += [f"<h3>{words}</h3>", html_parts.table(["", ""], rows)]
    return "".join(parts)
