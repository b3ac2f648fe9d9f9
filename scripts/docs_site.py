"""The pages of the documentation's site that are generated, and the hooks by which MkDocs builds it (``mkdocs.yml``).

``make docs`` builds the site. Generated are the options of every command (from `crystalgfn.cli.options`), the files of
``config/``, the public names of the package, the cards of the shipped weights and the notebooks. None of them is
committed. Everything here needs only PyYAML; the site needs the extra ``[docs]``.
"""

from __future__ import annotations

import ast
import json
import os
import posixpath
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from crystalgfn.cli.options import declared  # noqa: E402
from crystalgfn.cli.options.commands import COMMANDS  # noqa: E402

_GROUPS = ("trainer", "objective", "policy", "reward", "logger", "experiment")
_SETTINGS = {"trainer": "gfn.config:TrainerConfig", "policy": "policy.network:PolicyConfig"}
_SHIM = "https://unpkg.com/iframe-worker/shim"
"""What the offline search would load from elsewhere; ``docs/assets/iframe-worker.js`` is the same."""
_TEST = re.compile(r"^<!-- test:.*?-->\n+", re.M | re.S)
_LINK = re.compile(r"\[((?:[^][]|\[[^]]*\])*)\]\((?!#)([^)#\s]+)((?:#[^)\s]*)?)\)")


def pages() -> dict[str, str]:
    """Path below ``docs/`` -> Markdown, of every generated page."""
    return {**_options(), **_api(), **_cards(), **_notebooks()}


def navigation() -> list[dict[str, Any]]:
    """The site's menu: the sections and links of ``docs/README.md``, and what is generated."""
    nav: list[dict[str, Any]] = [{"Start": "README.md"}]
    for line in (ROOT / "docs" / "README.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            nav.append({line.removeprefix("## "): []})
        elif match := re.match(r"- \[([^]]+)\]\(([\w./-]+\.md)\)", line):
            next(iter(nav[-1].values())).append({match[1]: match[2]})
    sections = {next(iter(one)): next(iter(one.values())) for one in nav}
    made = pages()
    sections["Reference"] += [
        {"Options": _entries(made, "reference/options/")},
        {"Python": _entries(made, "reference/api/")},
        {"Shipped weights": _entries(made, "reference/cards/")},
    ]
    sections["Guide"].append({"Notebooks": _entries(made, "examples/")})
    return nav


def _entries(made: Mapping[str, str], folder: str) -> list[dict[str, str]]:
    """The pages of a folder by their titles."""
    return [{text.partition("\n")[0].removeprefix("# ").replace("`", ""): path}
            for path, text in made.items() if path.startswith(folder)]  # fmt: skip


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _rows(options: Mapping[str, declared.Option], with_default: bool = True) -> str:
    rows = [(f"`{name}`", f"`{declared.default(one)}`", one.kind.words, one.help) for name, one in options.items()]
    if with_default:
        return _table(("option", "default", "value", "meaning"), rows)
    return _table(("option", "value", "meaning"), [(name, words, help) for name, _, words, help in rows])


def _options() -> dict[str, str]:
    """One page a command, one of the space's options, and one a folder of ``config/``."""
    made = {f"reference/options/{name.replace('_', '-')}.md": _command(name) for name in COMMANDS}
    made["reference/options/space.md"] = "\n\n".join((
        "# Options of the space",
        "Every command that samples takes these, and `crystalgfn.CrystalSpace` takes them as arguments. What they mean "
        "together: [constraints](../../guide/constraints.md).",
        _rows(declared.SPACE),
    ))  # fmt: skip
    for group in _GROUPS:
        made[f"reference/options/{group}-files.md"] = _group(group)
    return made


def _command(name: str) -> str:
    one, typed = COMMANDS[name], f"crystalgfn {name.replace('_', '-')}"
    parts = [f"# `{typed}`", " ".join(one.summary.split())]
    lines = [f"{typed} {given}".rstrip() + (f"   # {meaning}" if meaning else "") for given, meaning in one.examples]
    parts += ["## Examples", "```sh\n" + "\n".join(lines) + "\n```", "## Options", _rows(one.options)]
    if one.space is not None:
        parts += ["## Space", f"{one.space[0].upper()}{one.space[1:]}: [options of the space](space.md)."]
    if one.shorts:
        rows = [(f"`{short}`", f"`{full}`") for short, full in one.shorts.items()]
        parts += ["## Short names", _table(("short", "full name"), rows)]
    if one.settings is not None:
        parts += ["## Settings", _rows(declared.settings_options(one))]
    if "csp" in one.groups:
        csp = {f"csp.{key}": option for key, option in declared.CSP.items()}
        parts += ["## Structure prediction (`task=csp`)", one.headings["csp"] + ".", _rows(csp)]
    groups = [group for group in one.groups if group in _GROUPS]
    if groups:
        links = ", ".join(f"[`{group}`]({group}-files.md)" for group in groups)
        parts += [
            "## Groups of options",
            f"Chosen as a whole by `group=name`, or one by one by `group.name=value`: {links}.",
        ]
    if one.notes:
        parts += ["## Notes", one.notes]
    common = (
        "Flags that every command has, and how options are written: [exit codes, files and options](../exit-codes.md)."
    )
    return "\n\n".join([*parts, common]) + "\n"


def _group(group: str) -> str:
    parts = [f"# Choices of `{group}=`", f"Files of `config/{group}`. `{group}=<name>` chooses one."]
    if group in _SETTINGS:
        options = {f"{group}.{key}": option for key, option in declared.fields_of(_SETTINGS[group]).items()}
        parts += ["## Options", _rows(options)]
    for path in sorted((ROOT / "config" / group).glob("*.yaml")):
        parts += [f"## `{group}={path.stem}`", f"```yaml\n{path.read_text(encoding='utf-8').strip()}\n```"]
    return "\n\n".join(parts) + "\n"


def _public() -> dict[str, str]:
    """Public name -> where it is defined, as ``crystalgfn/__init__.py`` says it."""
    tree = ast.parse((ROOT / "crystalgfn" / "__init__.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_MODULES":
            return dict(ast.literal_eval(node.value))
    raise LookupError("crystalgfn/__init__.py has no _MODULES")


def _reward_names() -> list[str]:
    tree = ast.parse((ROOT / "crystalgfn" / "rewards" / "__init__.py").read_text(encoding="utf-8"))
    (found,) = [
        node for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    return list(ast.literal_eval(found.value))


def _api() -> dict[str, str]:
    """What docstrings say of every public name, for mkdocstrings."""
    own = _public()
    kinds = {"classes": [one for one in own if one[0].isupper()], "functions": [one for one in own if one[0].islower()]}
    made = {}
    for title, names in kinds.items():
        parts = [f"# Public {title}", "Imported as `import crystalgfn as cg`."]
        parts += [_documented(f"crystalgfn.{name}", f"crystalgfn.{own[name]}.{name}") for name in sorted(names)]
        made[f"reference/api/{title}.md"] = "\n\n".join(parts) + "\n"
    places = _imports(ROOT / "crystalgfn" / "rewards" / "__init__.py")
    places["on_structures"] = "crystalgfn.structures.reward.on_structures"  # imported when it is asked for
    parts = [
        "# Rewards",
        "`crystalgfn.rewards`; how to combine them: [rewards](../../guide/rewards.md). `Property`, `Reward`, "
        "`check_reward` and `load_proxy` are among the [classes](classes.md) and [functions](functions.md).",
    ]
    parts += [
        _documented(f"crystalgfn.rewards.{name}", places[name])
        for name in sorted(set(_reward_names()) - set(own), key=str.lower)
    ]
    made["reference/api/rewards.md"] = "\n\n".join(parts) + "\n"
    return made


def _imports(path: Path) -> dict[str, str]:
    """Imported or defined name -> its full name."""
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    found: dict[str, str] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = f"{module}.{node.name}"
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            found[ast.unparse(target)] = f"{module}.{ast.unparse(target)}"
    return found


def _documented(shown: str, place: str) -> str:
    return f"::: {place}\n    options:\n      heading: {shown}\n      toc_label: {shown.rpartition('.')[2]}"


def _card_pages() -> dict[str, Path]:
    """Page -> the card of shipped weights that it shows."""
    weights = ROOT / "crystalgfn" / "weights"
    found = {}
    for path in sorted([*(ROOT / "proxies").glob("*/README.md"), *weights.rglob("README.md")]):
        folder = path.parent
        kind = {"samplers": "sampler-", "refiners": "refiner-"}.get(folder.parent.name, "")
        found[f"reference/cards/{kind}{folder.name}.md"] = path
    return found


def _cards() -> dict[str, str]:
    return {page: path.read_text(encoding="utf-8") for page, path in _card_pages().items()}


def _notebooks() -> dict[str, str]:
    """The notebooks of ``examples/`` as pages: text, code, and the output that they keep."""
    made = {}
    for path in sorted((ROOT / "examples").glob("*.ipynb")):
        parts = []
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            text = "".join(cell["source"])
            parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
            for output in cell.get("outputs", ()):
                said = output.get("text") or output.get("data", {}).get("text/plain") or ()
                if said:
                    parts.append("```text\n" + "".join(said).rstrip() + "\n```")
        parts.append(f"This page is `examples/{path.name}` of the repository.")
        made[f"examples/{path.stem}.md"] = "\n\n".join(parts) + "\n"
    links = [f"- [{text.partition(chr(10))[0].removeprefix('# ')}]({Path(page).name})" for page, text in made.items()]
    start = "# Notebooks\n\nThe notebooks of the folder `examples/`, with the output that they keep.\n\n"
    return {"examples/index.md": start + "\n".join(links) + "\n", **made}


def _sources() -> dict[str, str]:
    """File of the checkout that has a generated page -> the page."""
    found = {path.relative_to(ROOT).as_posix(): page for page, path in _card_pages().items()}
    found |= {"examples": "examples/index.md"} | {page: page for page in _notebooks()}
    found |= {f"examples/{path.stem}.ipynb": f"examples/{path.stem}.md" for path in (ROOT / "examples").glob("*.ipynb")}
    found |= {f"config/{group}/{path.name}": f"reference/options/{group}-files.md"
              for group in _GROUPS for path in (ROOT / "config" / group).glob("*.yaml")}  # fmt: skip
    return found


def site_text(text: str, page: str) -> str:
    """A page's text for the site: without tests' comments, and links that leave ``docs/`` lead to generated pages.

    A file without a page is named by its path in the repository.

    Args:
        text: Markdown.
        page: its path below ``docs/``.

    Raises:
        LookupError: a link that leads nowhere.
    """
    sources, cards = _sources(), _card_pages()
    home = "examples" if page.startswith("examples/") else f"docs/{posixpath.dirname(page)}"
    if page in cards:
        home = cards[page].parent.relative_to(ROOT).as_posix()

    def target(match: re.Match[str]) -> str:
        words, url, anchor = match.groups()
        if re.match(r"[a-z]+:", url):
            return match[0]
        place = posixpath.normpath(posixpath.join(home, url))
        goal = place.removeprefix("docs/") if place.startswith("docs/") else sources.get(place)
        if goal is not None:
            return f"[{words}]({posixpath.relpath(goal, posixpath.dirname(page) or '.')}{anchor})"
        if not (ROOT / place).exists():
            raise LookupError(f"{page}: the link {url} leads to {place}, which is not there")
        return f"{words} (`{place}`)" if words.strip("`") not in (url, place) else f"`{place}`"

    return _LINK.sub(target, _TEST.sub("", text))


def on_config(config: Any) -> Any:
    """MkDocs: the menu."""
    os.chdir(ROOT)
    config.nav = navigation()
    return config


def on_files(files: Any, config: Any) -> Any:
    """MkDocs: the generated pages."""
    from mkdocs.structure.files import File

    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """MkDocs: a page's text before it is rendered."""
    return site_text(markdown, page.file.src_uri)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """MkDocs: a page of HTML, which loads nothing from elsewhere."""
    return output.replace(_SHIM, posixpath.relpath("assets/iframe-worker.js", posixpath.dirname(page.url) or "."))


def on_post_template(output_content: str, **_: Any) -> str:
    """MkDocs: the page for addresses that are not there, and other files made from templates."""
    return output_content.replace(_SHIM, "assets/iframe-worker.js")
