"""Builds ``weights/tables/prototypes.json``: space group and counts of atoms of AFLOW's prototypes, with their names.

``python -m scripts.maintain.build_prototypes``: from the list that pymatgen ships (Mehl et al., Comput. Mater. Sci.
136, S1, 2017). Its labels name the formula, the Pearson symbol (whose number is of the primitive cell where it is
rhombohedral) and the space group: ``AB3C_cP5_221_a_c_b``. What the label says is compared with the structure.

Left out: prototypes of space group 1, which any crystal with these counts would have, those where elements only mark
sites of an alloy, and those where label and structure disagree.
"""

from __future__ import annotations

import argparse
import json
import re
from typing import Any

from pymatgen.core import Structure

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.space_groups import CENTRING
from crystalgfn.space.constraints.prototypes import TABLE
from crystalgfn.utils.files import write_aside
from scripts.maintain.program import run

#: Words of a mineral's name that tell forms of one prototype apart; without them it names all of these.
FORMS = r"(?i)\b(alpha|beta|gamma|delta|zeta|high|low|cubic|hexagonal|orthorhombic|rhombohedral|red|black)\s"
POLYTYPE = r"[\s-]\d[HR]$"
#: Remarks of the list that are no names, and its slips of the pen.
REMARKS = ("ressure", "arent of", "stable at", "heoretical", "I4/mcm", "_", "temperature")
SLIPS = {"suphide": "sulphide", "triodide": "triiodide", "Hazelwood": "Heazlewood"}
#: Elements that stand for the sites of model structures of steels.
STEELS = {"Cr", "Fe", "Ni", "Mo"}
#: Names that the list lacks: of common structure types by their label.
NAMES = {
    "AB_cP2_221_b_a": ["caesium chloride", "cesium chloride"],
    "AB_cF8_225_a_b": ["rocksalt"],
    "AB_cF8_216_c_a": ["zinc blende"],
    "AB_hP4_194_c_a": ["nickel arsenide", "nickeline"],
    "AB2C4_tI14_139_a_e_ce": ["K2NiF4", "Ruddlesden-Popper"],
    "ABC2_hR4_166_a_b_c": ["delafossite"],
    "AB2_cF12_225_a_c": ["antifluorite"],
    "AB3C_cP5_221_a_c_b": ["antiperovskite"],
    "A3BC_tP5_99_bc_a_b": ["tetragonal perovskite", "perovskite"],
    "AB2_hP3_164_a_d": ["cadmium iodide", "brucite"],
    "AB2C_cF16_225_a_c_b": ["full Heusler"],
    "ABC2_hP8_194_d_a_f": ["MAX phase"],
    "A2B3_hR5_166_c_ac": ["tetradymite"],
    "ABC3_hR10_161_a_a_b": ["lithium niobate"],
    "ABCD_tP8_129_c_b_a_c": ["1111 iron pnictide"],
    "AB2_hP3_191_a_d": ["aluminium diboride"],
    "A3B_cP4_221_d_a": ["rhenium trioxide"],
    "A3B_cP8_223_c_a": ["A15"],
}


def prototypes() -> list[dict[str, Any]]:
    """Label, space group, atoms of each element in the primitive cell (falling) and names of each prototype."""
    from pymatgen.analysis.prototypes import AFLOW_PROTOTYPE_LIBRARY

    found: dict[str, dict[str, Any]] = {}
    for entry in AFLOW_PROTOTYPE_LIBRARY:
        tags, structure = entry["tags"], entry["snl"].structure
        label = tags["aflow"]
        form, pearson, group, *_ = label.split("_")
        mineral = tags["mineral"] or ""
        if group == "1" or form == "sigma" or {str(one) for one in structure.composition} <= STEELS:
            continue
        units = [int(number or 1) for number in re.findall(r"[A-Z](\d*)", form)]
        cell = int(re.search(r"\d+", pearson)[0])
        atoms = cell if pearson.startswith("hR") else cell // int(CENTRING[int(group) - 1])
        counts = sorted((n * atoms // sum(units) for n in units), reverse=True)
        if not _agrees(structure, int(group), counts):
            print(f"left out: {label}, whose structure differs")
            continue
        own = found.setdefault(label, {"label": label, "space_group": int(group), "counts": counts, "names": []})
        own["names"] += _names(mineral, str(tags["strukturbericht"]), structure) + NAMES.get(label, [])
    for own in found.values():
        own["names"] = list(dict.fromkeys(own["names"]))
    if missing := set(NAMES) - set(found):
        raise ValueError(f"names are given to labels that are not there: {', '.join(sorted(missing))}")
    return sorted(found.values(), key=lambda own: own["label"])


def _agrees(structure: Structure, group: int, counts: list[int]) -> bool:
    """Whether a structure has the space group and the counts of its label."""
    for tolerance in (0.01, 0.001, 0.1):
        crystal = Crystals.from_structures([structure], symprec=tolerance)
        if int(crystal.space_group[0]) == group and sorted(crystal.counts(0).values(), reverse=True) == counts:
            return True
    return False


def _names(mineral: str, strukturbericht: str, structure: Structure) -> list[str]:
    """Names of a prototype: of the mineral with and without its form, the Strukturbericht symbol, the formula."""
    formula, names = structure.composition.reduced_formula, []
    for wrong, right in SLIPS.items():
        mineral = mineral.replace(wrong, right)
    mineral = re.sub(r"(\w+) \((alpha|beta)\)", r"\2 \1", mineral)  # "quartz (alpha)"
    mineral = re.sub(r"\((Cubic|alpha|beta|Orthorhombic)\)", r"\1", mineral)  # "(Cubic) Perovskite"
    for name in re.split(r",\s|:\s", mineral):
        if not re.fullmatch(r"[A-Za-z][\w\s-]*", name) or any(words in name for words in REMARKS):
            continue
        bare = re.sub(POLYTYPE, "", re.sub(FORMS, "", re.sub(FORMS, "", name)))
        if name.lower() in ("alpha", "beta"):
            names.append(f"{name} {formula}")
        else:
            names += [name] if bare in elements.NUMBER else [name, bare]
    if re.fullmatch(r"[A-Z]\d+(_\w+)?|[A-Z]_\w|H0_7", strukturbericht):
        names.append(strukturbericht)
    return [*names, formula] if len(formula) > 2 else names  # else "Co" would be carbon monoxide


def main(arguments: list[str] | None = None) -> None:
    """The command: writes the table."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args(arguments)
    rows = prototypes()
    lines = ",\n".join("  " + json.dumps(row) for row in rows)
    source = "AFLOW prototypes as in pymatgen"
    text = f'{{\n "source": "{source}",\n "prototypes": [\n{lines}\n ]\n}}\n'
    write_aside(TABLE, lambda aside: aside.write_text(text, encoding="utf-8"))
    print(f"{TABLE}: {len(rows)} prototypes, {len({name for row in rows for name in row['names']})} names")


if __name__ == "__main__":
    run(main)
