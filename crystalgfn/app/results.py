"""What a run has found, read from its folder, while it works and afterwards: candidates, structures, phase diagrams."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from crystalgfn.app.phase_table import PhaseTable
from crystalgfn.crystallography import elements, space_groups
from crystalgfn.crystallography.atoms import CELL, SkippedRecord, structure_of
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.distances import CLOSEST
from crystalgfn.data.reader import crystals
from crystalgfn.discovery.discover import SUMMARY
from crystalgfn.discovery.found import Found
from crystalgfn.discovery.page import headlines
from crystalgfn.errors import CrystalGFNError, DataError
from crystalgfn.evaluation.metrics.base import STATED
from crystalgfn.evaluation.relaxation_job import relaxed_structure
from crystalgfn.evaluation.report.page import ORDER, row_structure
from crystalgfn.properties.registry import load_proxy

if TYPE_CHECKING:
    from pymatgen.core import Structure

MOST = 60
"""Candidates that are shown."""
TABLES = {"evaluate": "structures.parquet"}
"""Where the crystals of a run are; of other kinds in ``table.parquet``."""
SHOWN = ("name", "figure", "detail", "level")
"""Of a main figure."""
ROUNDS, RELAXED = "work/rounds.jsonl", "work/relaxations.jsonl"
MORE = {"band_gap": "eV", "ionic_conductivity": "log10 S/cm", "density": "g/cm3", "formation_energy": "eV/atom"}
"""Columns that are shown where a table has them, and their units."""


@dataclass(frozen=True, eq=False, kw_only=True)
class FoundCrystal:
    """A crystal that a run found.

    Attributes:
        key: its name within the run.
        card: what is shown of it, by name.
        structure: reads its structure; None where it has none yet.
        file: its CIF, if the run has written one.
    """

    key: str
    card: dict[str, Any]
    structure: Callable[[], Structure] | None
    file: Path | None = None

    def cif(self) -> str:
        """The text of its CIF."""
        from pymatgen.io.cif import CifWriter

        if self.file is not None:
            return self.file.read_text(encoding="utf-8")
        return "" if self.structure is None else str(CifWriter(self.structure(), symprec=0.1))


def found_crystals(folder: Path, kind: str, phases: PhaseTable) -> list[FoundCrystal]:
    """The best of a run, best first; of one that works, those that it has so far."""
    names = (TABLES.get(kind, "table.parquet"), ROUNDS, RELAXED)
    return _candidates(folder, kind, tuple(_age(folder / name) for name in names), phases)


def _age(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=32)
def _candidates(folder: Path, kind: str, ages: tuple[tuple[int, int], ...], phases: PhaseTable) -> list[FoundCrystal]:
    path = folder / TABLES.get(kind, "table.parquet")
    if ages[0] == (0, 0):
        return _live(folder, phases) if kind == "discover" else []
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise DataError(f"the table {path.name} of this run cannot be read; its log says more") from error
    order = {"sample": _sampled, "discover": _ranked, "predict": _predicted, "evaluate": _evaluated}[kind]
    found = order(frame.astype(object).where(frame.notna(), None), folder)
    if phases and kind in ("sample", "predict"):
        names = {formula: phases.known(formula) for formula in {one.card["formula"] for one in found}}
        for one in found:
            name = names[one.card["formula"]]
            other = "" if name in (None, one.card["formula"]) else f" ({name})"
            one.card["known"] = "formula not in the reference" if name is None else f"known formula{other}"
    return found


def _sampled(frame: pd.DataFrame, folder: Path) -> list[FoundCrystal]:
    """The lowest above the hull first, one a formula and space group; short contacts and unplaced ones last."""
    by = "energy_above_hull" if "energy_above_hull" in frame else "log_r"
    rows = sorted(
        frame.to_dict("records"),
        key=lambda row: (row["closest"] is not None and row["closest"] < CLOSEST, _number(row[by], by == "log_r")),
    )
    if any(row["file"] for row in rows):
        rows = [row for row in rows if row["file"]]
    first = {(row["formula"], row["space_group"]): row for row in reversed(rows)}
    kept = [row for row in rows if first[row["formula"], row["space_group"]] is row][:MOST]
    plausible = _plausibility(kept)
    return [
        FoundCrystal(
            key=f"r{rank}",
            card={
                **_base(rank, row),
                "e_above_hull": row.get("energy_above_hull"),
                "e_above_hull_std": row.get("energy_above_hull_spread"),
                "energy_by": "predicted",
                "origin": row["origin"],
                "short": row["closest"] is not None and row["closest"] < CLOSEST,
                **plausible[rank - 1],
            },
            **_from_file(folder, row["file"]),
        )
        for rank, row in enumerate(kept, 1)
    ]


def _ranked(frame: pd.DataFrame, folder: Path) -> list[FoundCrystal]:
    rows = frame.loc[frame["rank"].notna()].to_dict("records")[:MOST]
    plausible = _plausibility(rows)
    names = ("e_above_hull", "e_above_hull_std", "formation_energy", "decomposition", "nearest_phase", "prototype")
    return [
        FoundCrystal(
            key=f"r{rank}",
            card={
                **_base(rank, row),
                **{name: row.get(name) for name in (*names, "origin")},
                "energy_by": row["calculator"],
                "known": row["known_as"] if row["known_as"] == "new" else f"known: {row['known_as']}",
                "converged": row.get("converged"),
                **plausible[rank - 1],
            },
            **_from_file(folder, row["file"]),
        )
        for rank, row in enumerate(rows, 1)
    ]


def _live(folder: Path, phases: PhaseTable) -> list[FoundCrystal]:
    """What a discovery has relaxed so far, the latest first."""
    chosen = {one["index"]: one for own in _lines(folder / ROUNDS) for one in own["chosen"]}
    relaxed = [one for one in _lines(folder / RELAXED) if one["error"] is None and one["index"] in chosen]
    found = []
    for one in reversed(relaxed[-MOST:]):
        before = chosen[one["index"]]
        row = {"formula": before["labels"]["formula"], "space_group": before["space_group"]}
        card = {
            **_base(None, row),
            "formation_energy": one["formation_energy"],
            "e_above_hull": phases.above(relaxed_structure(one), one["formation_energy"]) if phases else None,
            "energy_by": one["calculator"],
            "prototype": before["prototype"],
            "origin": before["origin"],
        }
        found.append(FoundCrystal(key=f"i{one['index']}", card=card, structure=lambda one=one: relaxed_structure(one)))
    return found


def _lines(path: Path) -> list[dict[str, Any]]:
    """The records of a journal; a last line that is being written is left out."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


def _predicted(frame: pd.DataFrame, folder: Path) -> list[FoundCrystal]:
    rows = frame.to_dict("records")[:MOST]
    plausible = _plausibility(rows)
    names = ("probability", "origin", "e_above_hull", "prototype")
    return [
        FoundCrystal(
            key=f"r{rank}",
            card={**_base(rank, row), **{name: row.get(name) for name in names}, **plausible[rank - 1]},
            **_from_file(folder, row.get("file")),
        )
        for rank, row in enumerate(rows, 1)
    ]


def _evaluated(frame: pd.DataFrame, folder: Path) -> list[FoundCrystal]:
    by = next((name for name in ORDER if name in frame and frame[name].notna().to_numpy().any()), "index")
    rows = sorted(frame.to_dict("records"), key=lambda row: _number(row[by]))[:MOST]
    plausible = _plausibility(rows)
    return [
        FoundCrystal(
            key=f"r{rank}",
            card={
                **_base(rank, row),
                "e_above_hull": row.get("e_above_hull"),
                "energy_by": "relaxed",
                "prototype": row.get("prototype"),
                "origin": row["where"],
                "known": None if row.get("novel") is None else "new" if row["novel"] else "known: in the reference",
                "short": row.get("no_short_contacts") is False,
                **plausible[rank - 1],
            },
            structure=lambda row=row: row_structure(row)[0],
        )
        for rank, row in enumerate(rows, 1)
    ]


def _base(rank: int | None, row: Mapping[str, Any]) -> dict[str, Any]:
    group = row.get("space_group")
    group = None if group is None else int(group)
    more = [[name, row[name], unit] for name, unit in MORE.items() if row.get(name) is not None]
    return {
        "rank": rank,
        "formula": row["formula"],
        "space_group": group,
        "symbol": None if group is None else space_groups.SYMBOL[group - 1],
        "n_atoms": row.get("n_atoms"),
        "properties": more,
        "formation_energy": row.get("formation_energy"),
    }


def _number(value: Any, largest: bool = False) -> float:
    """What is sorted by, the smallest first; what is unknown comes last."""
    return math.inf if value is None else -float(value) if largest else float(value)


def _crystals(rows: Sequence[Mapping[str, Any]]) -> Crystals:
    """Crystals of rows as far as plausibility and energies look: formula units, space group, lattice."""
    composition = torch.zeros(len(rows), 118, dtype=torch.int64)
    lattice = torch.tensor([[5.0, 5.0, 5.0, 90.0, 90.0, 90.0]]).repeat(len(rows), 1)
    for i, row in enumerate(rows):
        for symbol, n in re.findall(r"([A-Z][a-z]?)(\d*)", row["formula"]):
            composition[i, elements.NUMBER[symbol] - 1] += int(n or 1)
        if all(row.get(name) is not None for name in CELL):
            lattice[i] = torch.tensor([float(row[name]) for name in CELL])
        units = int(row.get("n_atoms") or 0) // max(1, int(composition[i].sum()))
        composition[i] *= max(1, units)
    groups = torch.tensor([int(row.get("space_group") or 1) for row in rows], dtype=torch.int64)
    return Crystals(groups, composition, lattice)


def _plausibility(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Plausibility of each and what is rare about it."""
    plain = [bool(re.fullmatch(r"(?:[A-Z][a-z]?\d*)+", row["formula"])) for row in rows]
    own = [row for row, good in zip(rows, plain, strict=True) if good]
    if not own:
        return [{} for _ in rows]
    proxy: Any = load_proxy("plausibility")
    batch = _crystals(own)
    found = iter(zip(proxy(batch).tolist(), proxy.reasons(batch), strict=True))
    return [dict(zip(("plausibility", "reasons"), next(found), strict=True)) if good else {} for good in plain]


def _from_file(folder: Path, name: Any) -> dict[str, Any]:
    """A structure that the run has written; a table that names a file elsewhere is not followed."""
    path = folder / str(name)
    if not name or path.suffix != ".cif" or not path.resolve().is_relative_to(folder.resolve()):
        return {"structure": None}
    return {"structure": lambda: _read(path), "file": path}


def _read(path: Path) -> Structure:
    record = next(iter(crystals(path)))
    if isinstance(record, SkippedRecord) or record.atoms is None:
        raise DataError(f"{path.name} cannot be read: {record}")
    return structure_of(record.atoms)


def headline(folder: Path, kind: str) -> list[dict[str, str]]:
    """The main figures of a discovery or an evaluation: name, figure, detail, level."""
    path = folder / SUMMARY
    if kind == "discover" and path.exists():
        own = headlines(json.loads(path.read_text(encoding="utf-8")))
        return [{name: str(getattr(one, name)) for name in SHOWN} for one in own]
    path = folder / "summary.md"
    return _judged(path.read_text(encoding="utf-8")) if kind == "evaluate" and path.exists() else []


def _judged(text: str) -> list[dict[str, str]]:
    """The first figures of an evaluation's table that it judges."""
    lines = text.split("## Crystals", 1)[-1].split("## ", 1)[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")][2:]
    found: list[dict[str, str]] = [dict(zip(SHOWN, row, strict=False)) for row in rows]
    return [one for one in found if one.get("level") != STATED][:8]


def phase_diagram(found: Sequence[FoundCrystal], key: str, phases: PhaseTable) -> Any:
    """pymatgen's phase diagram of the elements of a candidate: known phases, and the candidates among them.

    Raises:
        CrystalGFNError: it cannot be drawn; says why.
    """
    card = next(one.card for one in found if one.key == key)
    axes = sorted(set(re.findall(r"[A-Z][a-z]?", card["formula"])))
    if not 2 <= len(axes) <= 4:
        raise CrystalGFNError(f"a phase diagram of {len(axes)} elements cannot be drawn")
    own = [one for one in found if set(re.findall(r"[A-Z][a-z]?", one.card["formula"])) <= set(axes)]
    own = [one for one in own if one.structure is not None]
    own.sort(key=lambda one: one.key != key)
    energies = _formation_energies(own)
    rows = [{"rank": i, "formation_energy": energy} for i, energy in enumerate(energies, 1)]
    structures = [one.structure() for one in own if one.structure is not None]
    known = phases.within(axes)
    return Found(
        table=pd.DataFrame(rows), structures=structures, phases=known, summary={}, out=Path(), about={}
    ).phase_diagram(axes)


def _formation_energies(own: Sequence[FoundCrystal]) -> list[float]:
    """As the run has them, else the shipped proxy's, eV/atom."""
    lacking = [one for one in own if one.card.get("formation_energy") is None]
    made: dict[str, float] = {}
    if lacking:
        batch = Crystals.from_structures([one.structure() for one in lacking if one.structure is not None])
        made = dict(zip((one.key for one in lacking), load_proxy("formation_energy")(batch).tolist(), strict=True))
    return [made[one.key] if one.key in made else float(one.card["formation_energy"]) for one in own]
