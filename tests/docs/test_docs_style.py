"""User documentation is easy to read as text: short lines, narrow tables, and words that a newcomer knows."""

import re

import pytest
from docs_pages import PAGES, ROOT

USER = [page for page in PAGES if not page.startswith("docs/reports/")]
LONGEST, COLUMNS = 120, 7
#: Words of the project's own, and what to say instead; in code they may be names of columns and options.
INSTEAD = {
    r"draws?\b|drawn\b|drew\b|drawing\b": "sample",
    r"crowded\b": "short contacts",
    r"spreads?\b": "standard error",
    r"claim(s|ed|ing)?\b": "predict",
    r"c(a|o)me(s)? to rest": "converge",
    r"found again": "match rate",
    r"of one's own|of ones own": "your own",
}


def prose(page: str) -> str:
    """A page without its code."""
    text = re.sub(r"<!--.*?-->", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.S)
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


@pytest.mark.parametrize("page", USER)
def test_lines_are_short_and_tables_narrow(page):
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    assert [(i, len(line)) for i, line in enumerate(lines, 1) if len(line) > LONGEST] == []
    rows = [(i, re.sub(r"\\\|", "", line).strip().strip("|").count("|") + 1)
            for i, line in enumerate(lines, 1) if line.lstrip().startswith("|")]  # fmt: skip
    assert [row for row in rows if row[1] > COLUMNS] == []


@pytest.mark.parametrize("page", USER)
def test_words_are_those_of_the_field(page):
    text = prose(page)
    found = {word[0]: say for pattern, say in INSTEAD.items() for word in re.finditer(rf"\b(?:{pattern})", text, re.I)}
    assert found == {}


def test_the_readme_fits_on_a_screen():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 75
