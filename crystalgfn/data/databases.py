"""Crystals of databases: MatBench, the Materials Project, AFLOW's prototypes, measured enthalpies, OBELiX."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crystalgfn.crystallography.atoms import CELL, Record, SkippedRecord, cell_fault, record_of
from crystalgfn.crystallography.crystals import Disordered
from crystalgfn.crystallography.space_groups import CENTRING
from crystalgfn.data.formats import base
from crystalgfn.data.formats.tables import TABLE
from crystalgfn.errors import DataError, NotAvailable
from crystalgfn.properties.energy_scale import scale_shift
from crystalgfn.properties.hull_entries import composition_of
from crystalgfn.typing import Booleans, Doubles, Integers
from crystalgfn.utils.files import path_of

AFLOW, EXPERIMENT, MATBENCH, MATERIALS_PROJECT = "aflow", "experiment", "matbench:", "materials_project:"
NAMED = (AFLOW, EXPERIMENT)
DATABASES = (MATBENCH, MATERIALS_PROJECT)
#: The tasks with structures whose target is one of our properties: property, column.
TASKS = {"matbench_mp_e_form": ("formation_energy", "e_form"), "matbench_mp_gap": ("band_gap", "gap pbe")}
#: Properties by their names in the Materials Project.
FIELDS = {
    "formation_energy": "formation_energy_per_atom",
    "band_gap": "band_gap",
    "energy_above_hull": "energy_above_hull",
}
#: Materials a request; the list of identifiers goes into the address.
CHUNK = 200
COMPOSITION, GROUP, VALUE = "True Composition", "Space group #", "Ionic conductivity (S cm-1)"


def open_database(name: str, fields: Sequence[str] = ()) -> Iterator[Record | SkippedRecord]:
    """The entries of ``aflow``, ``experiment``, ``matbench:<task>`` or ``materials_project:<query>``.

    Raises:
        NotAvailable: MatBench without matminer.
        DataError: no key, no network, a request that is refused, a task without structures.
    """
    if name == AFLOW:
        return _aflow()
    if name == EXPERIMENT:
        return _experiment()
    if name.startswith(MATBENCH):
        return _matbench(name.removeprefix(MATBENCH))
    return _materials_project(name.removeprefix(MATERIALS_PROJECT), tuple(fields) or tuple(FIELDS.values()))


def label_column(name: str, property: str) -> str | None:
    """Where a property stands in a database; None for other sources.

    Raises:
        DataError: the database does not have it.
    """
    if name.startswith(MATERIALS_PROJECT):
        if property not in FIELDS:
            raise DataError(f"the Materials Project has no {property!r}; it has {', '.join(FIELDS)}, or name a field")
        return FIELDS[property]
    if not name.startswith(MATBENCH):
        return None
    task = name.removeprefix(MATBENCH)
    if task not in TASKS:
        raise DataError(f"the target of {task} is not known here; name its column (known: {', '.join(TASKS)})")
    held, column = TASKS[task]
    if held != property:
        raise DataError(f"{task} holds {held}, not {property}")
    return column


def _aflow() -> Iterator[Record | SkippedRecord]:
    """AFLOW's prototypes (Mehl et al., Comput. Mater. Sci. 136, S1, 2017), as pymatgen carries them."""
    from pymatgen.analysis.prototypes import AFLOW_PROTOTYPE_LIBRARY

    for entry in AFLOW_PROTOTYPE_LIBRARY:
        yield record_of(entry["tags"]["aflow"], entry["snl"].structure)


def _experiment() -> Iterator[Record | SkippedRecord]:
    """Measured enthalpies of formation (Wang et al., Sci. Rep. 11, 15496, 2021), as pymatgen carries them.

    Formulas alone. What was measured stands in ``measured``, eV/atom; ``formation_energy_per_atom`` is where the
    Materials Project's scale would have it, which on the scale of the charges is what was measured.
    """
    path = files("pymatgen.analysis.compatibility") / "exp_compounds.json.gz"
    rows = [one for one in json.loads(gzip.decompress(path.read_bytes())) if math.isfinite(one["exp energy"])]
    amounts = torch.stack([composition_of(one["formula"], i) for i, one in enumerate(rows)])
    shift = scale_shift(amounts).tolist()
    for one, n, moved in zip(rows, amounts.sum(1).tolist(), shift, strict=True):
        energy = one["exp energy"] / n
        values = {"formula": one["formula"], "measured": energy, "formation_energy_per_atom": energy - moved}
        values["material_id"] = one["mpid"] or f"measured {one['formula']}"
        yield Record(values["material_id"], None, values)


def _matbench(task: str) -> Iterator[Record | SkippedRecord]:
    """The rows of a MatBench task; matminer downloads it on first use, and holds it in memory as a whole."""
    try:
        from matminer.datasets import load_dataset
    except ImportError as error:
        raise NotAvailable(
            f"matbench:{task} is read through matminer, which cannot be imported ({error}); install it by "
            'pip install "matminer>=0.10.1" "pandas<3" (it does not run with pandas 3)'
        ) from error
    try:
        frame = load_dataset(task)
    except (ValueError, OSError) as error:  # an unknown task; no network (requests' errors are OSErrors)
        raise DataError(f"matminer cannot load {task}: {error}") from error
    if "structure" not in frame:
        raise DataError(f"{task} has no column structure; it has {', '.join(map(str, frame.columns))}")
    for number, row in enumerate(frame.to_dict("records")):
        yield record_of(f"row {number}", row.pop("structure"), 0, row)


def _materials_project(query: str, fields: tuple[str, ...]) -> Iterator[Record | SkippedRecord]:
    """The materials that a query finds: a chemical system ("Li-P-S"), a formula ("ABO3"), or identifiers."""
    from pymatgen.ext.matproj import MPRester

    if not query:
        raise DataError("materials_project: needs a query, such as materials_project:Li-P-S or :Fe2O3 or :mp-149")
    try:
        rester = MPRester(None)  # PMG_MAPI_KEY of the environment or of pymatgen's settings
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
            asked = ["formula_pretty", "symmetry", "structure", *fields]
            found = {str(row["material_id"]): row for row in _search(rester, query, asked, material_ids=chunk)}
            for name in map(str, chunk):
                yield _document(name, found.get(name))


def _search(rester: Any, query: str, fields: list[str], **criteria: Any) -> list[dict[str, Any]]:
    from pymatgen.ext.matproj import MPRestError

    try:
        return rester.search("summary", _fields=["material_id", *fields], **criteria)
    except (MPRestError, OSError) as error:
        said = " ".join(str(error).split())[:200]
        raise DataError(f"the Materials Project refuses {query!r}: {said}; check your key and the network") from error


def _document(name: str, row: dict[str, Any] | None) -> Record | SkippedRecord:
    if row is None or row.get("structure") is None:
        return SkippedRecord(name, "the Materials Project returns no structure for it")
    symmetry = row.get("symmetry") or {}
    group = symmetry.get("number") if isinstance(symmetry, dict) else getattr(symmetry, "number", None)
    values = {key: value for key, value in row.items() if key not in ("structure", "symmetry")}
    values |= {"formula": row.get("formula_pretty"), "spacegroup": group}
    structure = row["structure"]
    if isinstance(structure, dict):
        return base.record(name, {"structure": structure, **values})
    return record_of(name, structure, group or 0, values)


@dataclass(frozen=True)
class Measurements:
    """Crystals with measured conductivities.

    Attributes:
        crystals: with partial occupancies, [B].
        values: log10 of the conductivity, S/cm, float64 [B]; where censored, of the bound that it lies below.
        censored: whether the value is an upper bound ("<1E-10"), bool [B].
        material: a number for each composition, the same for rows that share it, int64 [B].
    """

    crystals: Disordered
    values: Doubles
    censored: Booleans
    material: Integers

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: slice | torch.Tensor) -> Measurements:
        """The rows at ``index`` (a slice, positions or a mask)."""
        return Measurements(self.crystals[index], self.values[index], self.censored[index], self.material[index])


def read_obelix(path: str | Path) -> Measurements:
    """The rows of OBELiX's CSV file.

    Compositions are taken from ``True Composition``, the atoms in the conventional cell with their occupancies.

    Raises:
        DataError: no such file or column, or a row that cannot be used, named with its place and the reason.
    """
    if not path_of(path).is_file():
        raise DataError(f"{path} cannot be read as CSV: there is no such file")
    rows = list(TABLE.open(path))
    known = set().union(*(one.values for one in rows if isinstance(one, Record)))
    if rows and (missing := {COMPOSITION, GROUP, VALUE, *CELL} - known):
        raise DataError(f"{path} has no column {', '.join(sorted(missing))}; it needs those of OBELiX")
    if not rows:
        raise DataError(f"{path} has no rows")
    parsed = [_measurement(one, i) for i, one in enumerate(rows)]
    amounts, numbers, cells, logarithms, bounds = zip(*parsed, strict=True)
    composition, groups = torch.stack(amounts), torch.tensor(numbers)
    fractions = (composition / composition.sum(1, keepdim=True) * 1000).round()
    _, material = fractions.unique(dim=0, return_inverse=True)
    primitive = composition / torch.tensor(CENTRING)[groups - 1].double()[:, None]
    crystals = Disordered(groups, primitive, torch.tensor(cells, dtype=torch.float64))
    return Measurements(crystals, torch.tensor(logarithms, dtype=torch.float64), torch.tensor(bounds), material)


def _measurement(entry: Record | SkippedRecord, row: int) -> tuple[torch.Tensor, int, list[float], float, bool]:
    """Composition, group, cell, log10 of the conductivity, and whether it is only a bound."""
    if isinstance(entry, SkippedRecord):
        raise DataError(f"row {row}: {entry.reason}")
    values = entry.values
    value, bound = _conductivity(str(math.nan if values.get(VALUE) is None else values[VALUE]), row)
    group = _group(values.get(GROUP), row)
    try:
        lattice = [float(values.get(name, math.nan)) for name in CELL]
    except ValueError as error:
        raise DataError(f"row {row}: the cell holds {error}; it needs six positive numbers, Å and degrees") from error
    if (reason := cell_fault(np.array(lattice))) is not None:
        raise DataError(f"row {row}: the cell {lattice} needs six positive numbers, Å and degrees; it {reason}")
    return composition_of(str(values.get(COMPOSITION)), row), group, lattice, value, bound


def _conductivity(text: str, row: int) -> tuple[float, bool]:
    """log10, and whether it is only a bound."""
    bound = text.strip().startswith("<")
    try:
        value = float(text.strip().lstrip("<"))
    except ValueError:
        value = math.nan
    if not (value > 0 and math.isfinite(value)):
        raise DataError(f"row {row}: the conductivity {text!r} is neither a positive number, S/cm, nor '<' and one")
    return math.log10(value), bound


def _group(value: object, row: int) -> int:
    text = str(value).removesuffix(".0")
    number = float(text) if text.isdigit() else math.nan
    if not (number.is_integer() and 1 <= number <= 230):
        raise DataError(f"row {row}: {value} is no space group; it must be a whole number from 1 to 230")
    return int(number)
