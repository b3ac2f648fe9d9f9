"""The code blocks of the Markdown pages and how each is tested, as comments before a block say (`Block`)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")))
FENCE = re.compile(r"(?P<notes>(?:^<!-- test:.*?-->\n+)*)^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.M | re.S)
NOTE = re.compile(r"<!-- test:\s*(.*?)\s*-->", re.S)


class DocsError(AssertionError):
    """A page that cannot be tested as it stands."""


@dataclass
class Block:
    """A code block and what the comments before it say, one each.

    ``<!-- test: skip (why) -->``              it is not run
    ``<!-- test: options only (why) -->``      commands are read, with their options, and not run
    ``<!-- test: with n=4 -->``                further options for the commands of the block
    ``<!-- test: 1000 -> 10 -->``              this text of the block is exchanged for that
    ``<!-- test: needs chgnet -->``            a library; the block is left out where it is not installed
    ``<!-- test: file my_rewards.py -->``      the block is written to this file
    ``<!-- test: before ... -->``              lines of Python that run first, for what the page supposes

    With ``crystalgfn-sample n=9: `` in front, ``options only`` and ``with`` hold for the commands that start so.
    """

    page: str
    line: int
    language: str
    code: str
    skip: str | None = None
    before: str = ""
    file: str | None = None
    needs: list[str] = field(default_factory=list)
    only_read: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)

    @property
    def where(self) -> str:
        return f"{self.page}, line {self.line}"

    def note(self, text: str) -> None:
        """Take in a comment."""
        if text.startswith("before\n"):
            self.before = text.removeprefix("before\n")
            return
        if " -> " in text:
            old, new = text.split(" -> ")
            if old not in self.code:
                raise DocsError(f"{self.where}: there is no {old!r} to exchange")
            self.code = self.code.replace(old, new)
            return
        prefix, rest = re.fullmatch(r"(?:(crystalgfn-[^:]*): )?(.*)", text, re.S).groups()
        words, _, last = rest.partition(" ")
        if rest.startswith("options only (") and rest.endswith(")"):
            self.only_read[prefix or ""] = rest
        elif words == "with" and last:
            self.options[prefix or ""] = last
        elif words == "skip" and re.fullmatch(r"\(.{10,}\)", last, re.S):
            self.skip = last[1:-1]
        elif words == "needs" and last:
            self.needs.append(last)
        elif words == "file" and last:
            self.file = last
        else:
            raise DocsError(f"{self.where}: cannot understand the comment {text!r}; a skip needs a reason")


def blocks(page: str) -> list[Block]:
    """The blocks of a page in their order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        line = text[: match.start("code")].count("\n")
        block = Block(page, line, match["language"], match["code"])
        for note in NOTE.findall(match["notes"]):
            block.note(note)
        found.append(block)
    fences, notes = len(re.findall(r"^\s*```", text, re.M)), text.count("<!-- test:")
    if fences != 2 * len(found) or notes != sum(m["notes"].count("<!-- test:") for m in FENCE.finditer(text)):
        raise DocsError(f"{page}: a block is indented or not closed, or a test's comment stands before none")
    return found
