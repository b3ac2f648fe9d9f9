"""Every code block of README.md and docs/ is run, or says why it is not (`docs_pages.Block`, `docs_run`).

Blocks of a page run in their order, in one folder and one namespace, the commands with the small sizes of
`docs_run.SMALL`. What is in `mp20/` is made there: crystals of a few structure types with numbers for energies. The
pages that a new user reads first are run with every test, the others with ``-m slow`` (about 90 seconds).
"""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from docs_pages import PAGES, ROOT, Block, DocsError
from forks import Forks, as_command

FIRST = ("README.md", "docs/guide/getting-started.md", "docs/how-to/add-a-calculator.md")


PROGRAM = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); {as_command('docs_run')}"


def outcomes(forks: Forks, folder: Path, pages: Sequence[str]) -> dict[str, tuple[str | None, float]]:
    """Page -> why it failed, and seconds."""
    said = forks.run(PROGRAM, folder, *pages, timeout=900)
    return {page: (why, seconds) for page, why, seconds in map(json.loads, said.splitlines())}


def check(found: dict[str, tuple[str | None, float]], pages: Sequence[str]) -> None:
    assert list(found) == list(pages)
    for page, (_, seconds) in found.items():
        print(f"{page}: {seconds:.1f} CPU seconds")
    assert {page: why for page, (why, _) in found.items() if why is not None} == {}


def test_blocks_of_the_first_pages(forks, tmp_path):
    check(outcomes(forks, tmp_path, FIRST), FIRST)


@pytest.mark.slow
def test_blocks_of_all_other_pages(forks, tmp_path):
    others = [page for page in PAGES if page not in FIRST]
    check(outcomes(forks, tmp_path, others), others)


def test_the_index_links_to_every_page():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = [page.removeprefix("docs/") for page in PAGES if page.startswith("docs/") and page != "docs/README.md"]
    assert [page for page in pages if f"]({page})" not in index] == []
    assert "](docs/README.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("language", "note", "words"),
    [
        ("ruby", "with n=1", "blocks in ruby"),
        ("", "with n=1", "blocks in no language"),
        ("python", "skip", "a skip needs a reason"),
        ("python", "skip ()", "a skip needs a reason"),
        ("python", "2 -> 3", "no '2' to exchange"),
        ("python", "later", "cannot understand"),
    ],
)
def test_what_cannot_be_tested_is_an_error(language, note, words):
    from docs_run import run

    block = Block("page.md", 1, language, "1 + 1\n")
    with pytest.raises(DocsError, match=words):
        block.note(note)
        run(block, {})


def test_other_programs_and_commands_that_fail_are_errors():
    from docs_run import run

    with pytest.raises(DocsError, match="rm"):
        run(Block("page.md", 1, "sh", "rm -r runs\n"), {})
    with pytest.raises(AssertionError, match="There is no option"):
        run(Block("page.md", 1, "sh", "crystalgfn-sample m=3\n"), {})
