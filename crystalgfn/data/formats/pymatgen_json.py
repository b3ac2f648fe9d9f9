"""JSON files of pymatgen structures: one, a list, a mapping from names, or one a line; no object is built from them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from crystalgfn.crystallography.atoms import Record, SkippedRecord, from_matrix
from crystalgfn.data.formats.base import element_number, first_line, read_text
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
            lines = [line for line in text.split("\n") if line.strip()]
            content = [json.loads(line) for line in lines] if path.suffix == ".jsonl" else json.loads(text)
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


def _entries(content: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(content, Mapping) and ("lattice" in content or "structure" in content):
        yield "structure 0", content
    elif isinstance(content, Mapping):
        yield from ((str(name), one) for name, one in content.items() if isinstance(one, Mapping))
    elif isinstance(content, list):
        yield from ((f"structure {i}", one) for i, one in enumerate(content))


def record(where: str, entry: Mapping[str, Any]) -> Record:
    """A structure's dictionary, or an entry that holds one beside other values.

    Raises:
        DataError: a species that is no element.
    """
    inner = entry.get("structure", entry)
    rows, sites = np.array(inner["lattice"]["matrix"], dtype=np.float64).reshape(3, 3), inner["sites"]
    numbers, shares, owner, notes = [], [], [], []
    for i, site in enumerate(sites):
        for one in site["species"]:
            number, said = element_number(str(one["element"]))
            notes += said
            numbers.append(number)
            shares.append(float(one.get("occu", 1)))
            owner.append(i)
    points = np.array([sites[i]["abc"] for i in owner], dtype=np.float64).reshape(-1, 3)
    found = from_matrix(where, rows, points, numbers)
    if any(share != 1 for share in shares):
        found = replace(found, occupancies=np.array(shares), sites=np.array(owner))
    values = {name: value for name, value in entry.items() if not isinstance(value, Mapping | list)}
    return Record(where, found, values, tuple(dict.fromkeys(notes)))


JSON = PymatgenJson()
