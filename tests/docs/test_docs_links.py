"""Links between the pages lead somewhere."""

import re

import pytest
from docs_pages import ROOT

SOURCES = [
    ROOT / "README.md",
    *(path for name in ("docs", "proxies", "crystalgfn") for path in (ROOT / name).rglob("*.md")),
]


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    heads = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    broken = []
    for url, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", text):
        if re.match(r"[a-z]+:", url):
            continue
        target = page if not url else (page.parent / url)
        there = target.exists() and (not anchor or anchor in anchors(target.read_text(encoding="utf-8")))
        broken += [] if there else [f"{url}#{anchor}"]
    assert not broken
