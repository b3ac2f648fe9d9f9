"""The documentation's site: its generated pages say all there is, and MkDocs builds it without a warning."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from docs_pages import PAGES, ROOT

import crystalgfn as cg

sys.path.insert(0, str(ROOT / "scripts"))
import docs_site  # noqa: E402

from crystalgfn.cli.options.commands import COMMANDS  # noqa: E402


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return docs_site.pages()


def test_every_option_has_a_row(made):
    for name, command in COMMANDS.items():
        page = made[f"reference/options/{name.replace('_', '-')}.md"]
        assert set(command.options) <= set(re.findall(r"^\| `([\w.]+)` \|", page, re.M)), name
    assert "| `n_atoms` | `[1,20]` |" in made["reference/options/space.md"]
    assert "| `trainer.batch_size` | `500` |" in made["reference/options/trainer-files.md"]


def test_every_public_name_is_documented(made):
    shown = {one for page in made.values() for one in re.findall(r"^      heading: crystalgfn\.(\S+)$", page, re.M)}
    own = set(cg.rewards.__all__) - set(cg.__all__)
    assert shown == set(cg.__all__) - {"rewards"} | {f"rewards.{name}" for name in own}


def test_every_shipped_card_and_notebook_has_a_page(made):
    cards = {page for page in made if page.startswith("reference/cards/")}
    assert {"reference/cards/sampler-stable.md", "reference/cards/hull.md"} <= cards
    for path in (ROOT / "examples").glob("*.ipynb"):
        assert "```python" in made[f"examples/{path.stem}.md"]


def test_all_links_lead_to_pages_of_the_site(made):
    """Those of written pages to generated ones too; a link that leads nowhere raises an error."""
    texts = {page.removeprefix("docs/"): (ROOT / page).read_text(encoding="utf-8")
             for page in PAGES if page.startswith("docs/")}  # fmt: skip
    everything = texts | made
    for page, text in everything.items():
        shown = docs_site.site_text(text, page)
        assert "<!-- test:" not in shown
        for url in re.findall(r"\]\(([^)#\s]+\.md)[^)]*\)", shown):
            target = os.path.normpath(os.path.join(os.path.dirname(page), url))
            assert re.match(r"[a-z]+:", url) or target in everything, f"{page}: {url}"
    with pytest.raises(LookupError, match="nowhere.md, which is not there"):
        docs_site.site_text("[a](../../nowhere.md)", "guide/rewards.md")


def test_the_menu_has_every_page(made):
    def leaves(entries):
        for one in entries:
            (value,) = one.values()
            yield from [value] if isinstance(value, str) else leaves(value)

    found = list(leaves(docs_site.navigation()))
    assert sorted(found) == sorted({page.removeprefix("docs/") for page in PAGES if page != "README.md"} | set(made))


@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="needs the extra [docs]")
def test_the_site_is_built_strictly_and_loads_nothing_from_elsewhere(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 60
    for path in pages:
        text = path.read_text(encoding="utf-8")
        assert re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=\"(?:https?:)?//[^\"]*\"", text) == [], path
    for path in (tmp_path / "site").rglob("*.css"):
        assert "url(http" not in path.read_text(encoding="utf-8"), path
    assert 'id="crystalgfn.sampling.sampler.Sampler"' in Path(tmp_path, "site/reference/api/classes.html").read_text()
