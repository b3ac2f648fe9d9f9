"""JSON files of pymatgen structures: one, a list, a mapping from names, or one a line; no object is built from them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from crystalgfn.crystallography.atoms import Record, SkippedRecord
from crystalgfn.data.formats.base import first_line, read_text, record
from crystalgfn.errors import DataError


class PymatgenJson:
    """What ``json.dump(structure.as_dict())`` writes, also as the value ``structure`` of an entry."""

    suffixes = (".json", ".jsonl")
    structures = False

    def open(self, uri: str | Path) -> Iterator[Record | SkippedRecord]:
        """The structures of a file, one after the other."""
        path = Path(uri)
        text = read_text(path)
        try:
            content = list(_lines(text)) if ".jsonl" in path.suffixes else json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path} cannot be read as JSON: {first_line(error)}") from error
        entries = list(_entries(content))
        if not entries:
            raise DataError(f"{path} holds no pymatgen structure")
        for where, entry in entries:
            try:
                yield record(where, entry)
            except (DataError, KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
                yield SkippedRecord(where, f"no pymatgen structure that can be read ({first_line(error)})")


def _lines(text: str) -> Iterator[Any]:
    """The content of each line; the text itself where it is no JSON."""
    for line in filter(str.strip, text.split("\n")):
        try:
            yield json.loads(line)
        except (ValueError, RecursionError):
            yield line


def _entries(content: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(content, Mapping) and ("lattice" in content or "structure" in content):
        yield "structure 0", content
    elif isinstance(content, Mapping):
        yield from ((str(name), one) for name, one in content.items() if isinstance(one, Mapping))
    elif isinstance(content, list):
        yield from ((f"structure {i}", one) for i, one in enumerate(content))


JSON = PymatgenJson()
