"""Labelled crystals of the Materials Project, through pymatgen's own client and the user's key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from crystalgfn.errors import DataError
from crystalgfn.proxies.records import BadRow, Record, attempt, from_structure

#: Properties by their names there.
FIELDS = {
    "formation_energy": "formation_energy_per_atom",
    "band_gap": "band_gap",
    "energy_above_hull": "energy_above_hull",
}
#: Materials a request; the list of identifiers goes into the address.
CHUNK = 200


def stream_materials_project(query: str, field: str, key: str | None = None) -> Iterator[Record | BadRow]:
    """The materials that a query finds, 200 a request.

    Args:
        query: a chemical system ("Li-P-S", "Li-*-O"), a formula ("Fe2O3", "ABO3"), or identifiers ("mp-149,mp-22862").
        field: the label's field of the summary, such as ``band_gap``.
        key: your key of the Materials Project; None: ``PMG_MAPI_KEY`` of the environment or of pymatgen's settings.

    Raises:
        DataError: no key, an empty query, a request that is refused, or no network.
    """
    from pymatgen.ext.matproj import MPRester

    if not query:
        raise DataError("materials_project: needs a query, such as materials_project:Li-P-S or :Fe2O3 or :mp-149")
    try:
        rester = MPRester(key)
    except ValueError as error:
        raise DataError(
            "the Materials Project needs a key of 32 characters from materialsproject.org/dashboard; "
            "set it as PMG_MAPI_KEY in the environment"
        ) from error
    with rester:
        if query.startswith("mp-"):
            identifiers = [one.strip() for one in query.split(",")]
        else:
            kind = "chemsys" if "-" in query else "formula"
            identifiers = [row["material_id"] for row in _search(rester, query, [], **{kind: query})]
        if not identifiers:
            raise DataError(f"the Materials Project has nothing for {query!r}")
        for start in range(0, len(identifiers), CHUNK):
            chunk = identifiers[start : start + CHUNK]
            fields = ["formula_pretty", "symmetry", "structure", field]
            found = {str(row["material_id"]): row for row in _search(rester, query, fields, material_ids=chunk)}
            for name in map(str, chunk):
                yield _record(name, found.get(name), field)


def _search(rester: Any, query: str, fields: list[str], **criteria: Any) -> list[dict[str, Any]]:
    from pymatgen.ext.matproj import MPRestError

    try:
        return rester.search("summary", _fields=["material_id", *fields], **criteria)
    except (MPRestError, OSError) as error:
        said = " ".join(str(error).split())[:200]
        raise DataError(f"the Materials Project refuses {query!r}: {said}; check your key and the network") from error


def _record(name: str, row: dict[str, Any] | None, field: str) -> Record | BadRow:
    if row is None or row.get("structure") is None:
        return BadRow(name, "the Materials Project returns no structure for it")
    symmetry = row.get("symmetry") or {}
    group = symmetry.get("number") if isinstance(symmetry, dict) else getattr(symmetry, "number", None)
    filed = {"formula": row.get("formula_pretty"), "spacegroup": group}
    return attempt(name, lambda: from_structure(name, row["structure"], row.get(field), field, filed))
