"""Structure files: CIF with the operations of the group, POSCAR, extended XYZ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crystalgfn.crystallography import space_groups
from crystalgfn.errors import CheckpointError, PlacementError
from crystalgfn.structures.build import BuildResult
from crystalgfn.utils.files import write_aside

if TYPE_CHECKING:
    from pymatgen.core import Structure

SUFFIXES = {"cif": ".cif", "poscar": ".vasp", "extxyz": ".extxyz"}
"""Format -> ending of its files."""
CLOSE = 1e-4
"""Fraction of a cell within which a symmetry image of an atom counts as that atom."""


def write_structures(
    results: Sequence[BuildResult], folder: str | Path, formats: Sequence[str] = ("cif", "poscar", "extxyz")
) -> list[str | None]:
    """Writes a file for each crystal and format, named like ``0007_LiFeO2_166.cif``.

    Further candidates of a crystal get ``_c2``, ``_c3``, … before the ending. Files are written aside and then renamed.

    Args:
        results: of `build_structures`; those without a structure are passed over.
        folder: made where it is missing.
        formats: "cif", "poscar" or "extxyz".

    Returns:
        The name of the best candidate's file in the first format, None for crystals without a structure.

    Raises:
        PlacementError: an unknown format, or none.
        CheckpointError: the files cannot be written.
    """
    unknown = [name for name in formats if name not in SUFFIXES]
    if unknown or not formats:
        raise PlacementError(f"formats {list(formats)}: give one or more of {', '.join(SUFFIXES)}")
    writers: dict[str, Callable[[Structure, int], str]] = {"cif": cif, "poscar": poscar, "extxyz": extended_xyz}
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"cannot write in {folder}: {error.strerror}; choose another folder") from error
    digits = max(4, len(str(len(results) - 1)))
    names: list[str | None] = []
    for i, result in enumerate(results):
        number = int(result.crystal.space_group[0])
        stem = f"{i:0{digits}d}_{result.crystal.formulas()[0]}_{number}"
        names.append(stem + SUFFIXES[formats[0]] if result.structure is not None else None)
        for rank, structure in enumerate(result.candidates, start=1):
            for name in formats:
                text = writers[name](structure, number)
                path = folder / (stem + (f"_c{rank}" if rank > 1 else "") + SUFFIXES[name])
                write_aside(path, lambda aside, text=text: aside.write_text(text, encoding="utf-8"))
    return names


def cif(structure: Structure, space_group: int) -> str:
    """A CIF with the asymmetric unit and the operations of the group, in the cell as it is.

    pymatgen's own CifWriter looks for the symmetry anew, and with refinement changes the cell and the setting; here the
    group is known, so its operations are written in the setting that the coordinates are in.

    Raises:
        PlacementError: the operations of the group in the package's setting do not map the structure onto itself.
    """
    from pymatgen.core.operations import SymmOp
    from pymatgen.io.cif import CifBlock, CifFile

    general = space_groups.WYCKOFF[space_group - 1][-1].operations
    units = asymmetric_unit(structure, space_group)
    lattice = structure.lattice
    operations = [SymmOp.from_rotation_and_translation(o[:, :3], o[:, 3]).as_xyz_str() for o in general]
    formula = structure.composition.reduced_formula
    symbols = [structure[i].specie.symbol for i, _ in units]
    labels = [f"{symbol}{symbols[: n + 1].count(symbol)}" for n, symbol in enumerate(symbols)]
    data = {
        "_symmetry_space_group_name_H-M": space_groups.SYMBOL[space_group - 1],
        **{f"_cell_length_{n}": f"{v:.10f}" for n, v in zip("abc", lattice.abc, strict=True)},
        **{f"_cell_angle_{n}": f"{v:.10f}" for n, v in zip(("alpha", "beta", "gamma"), lattice.angles, strict=True)},
        "_symmetry_Int_Tables_number": str(space_group),
        "_chemical_formula_structural": formula,
        "_chemical_formula_sum": structure.composition.formula,
        "_cell_volume": f"{lattice.volume:.8f}",
        "_cell_formula_units_Z": str(round(structure.composition.get_reduced_composition_and_factor()[1])),
        "_symmetry_equiv_pos_site_id": [str(i) for i in range(1, len(operations) + 1)],
        "_symmetry_equiv_pos_as_xyz": operations,
        "_atom_site_type_symbol": symbols,
        "_atom_site_label": labels,
        "_atom_site_symmetry_multiplicity": [str(multiplicity) for _, multiplicity in units],
        **{
            f"_atom_site_fract_{axis}": [f"{structure[i].frac_coords[k]:.10f}" for i, _ in units]
            for k, axis in enumerate("xyz")
        },
        "_atom_site_occupancy": ["1"] * len(units),
    }
    loops = [
        [key for key in data if key.startswith("_symmetry_equiv")],
        [key for key in data if key.startswith("_atom_site")],
    ]
    return str(CifFile({formula: CifBlock(data, loops, formula)}, comment="# generated by crystalgfn"))


def asymmetric_unit(structure: Structure, space_group: int) -> list[tuple[int, int]]:
    """(index of one site, multiplicity) of each orbit.

    Raises:
        PlacementError: the operations of the group do not map the structure onto itself.
    """
    general = space_groups.WYCKOFF[space_group - 1][-1].operations
    points = structure.frac_coords
    species = np.array([site.specie.Z for site in structure])
    left = np.ones(len(points), dtype=bool)
    units = []
    for i in range(len(points)):
        if not left[i]:
            continue
        images = general[:, :, :3] @ points[i] + general[:, :, 3]
        gaps = images[:, None] - points[None]
        hit = (np.abs(gaps - np.rint(gaps)).max(axis=2) < CLOSE) & (species == species[i])
        if not hit.any(axis=1).all():
            raise PlacementError(
                f"{structure.composition.reduced_formula} does not have the operations of space group {space_group} "
                f"({space_groups.SYMBOL[space_group - 1]}) in its standard setting, so no CIF with them can be written"
            )
        orbit = hit.any(axis=0)
        left &= ~orbit
        units.append((i, int(orbit.sum())))
    return units


def poscar(structure: Structure, space_group: int) -> str:
    """A POSCAR of the conventional cell; the comment line names formula and group."""
    from pymatgen.io.vasp import Poscar

    comment = f"{structure.composition.reduced_formula} {space_group} ({space_groups.SYMBOL[space_group - 1]})"
    return Poscar(structure, comment=comment).get_str(significant_figures=12)


def extended_xyz(structure: Structure, space_group: int) -> str:
    """Extended XYZ of the conventional cell, with formula and group in its second line."""
    rows = " ".join(f"{v:.10f}" for v in structure.lattice.matrix.ravel())
    formula = structure.composition.reduced_formula
    head = f'Lattice="{rows}" Properties=species:S:1:pos:R:3 formula={formula} space_group={space_group} pbc="T T T"'
    atoms = [f"{site.specie.symbol:<2} " + " ".join(f"{v:.10f}" for v in site.coords) for site in structure]
    return "\n".join([str(len(structure)), head, *atoms]) + "\n"
