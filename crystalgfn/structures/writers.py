"""Structure files: CIF with the operations of the group, POSCAR, extended XYZ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalgfn.crystallography import elements, space_groups
from crystalgfn.crystallography.orbits import OrbitStructure, cell_matrix, wyckoff_position
from crystalgfn.errors import CheckpointError, PlacementError
from crystalgfn.utils.files import path_of, write_aside

if TYPE_CHECKING:
    from crystalgfn.structures.result import BuildResult

SUFFIXES = {"cif": ".cif", "poscar": ".vasp", "extxyz": ".extxyz"}
"""Format -> ending of its files."""


def write_structures(
    results: Sequence[BuildResult],
    folder: str | Path,
    formats: Sequence[str] = ("cif", "poscar", "extxyz"),
    about: Mapping[str, Any] | None = None,
) -> list[str | None]:
    """Writes a file for each crystal and format, named like ``0007_LiFeO2_166.cif``.

    Further candidates of a crystal get ``_c2``, ``_c3``, … before the ending. Files are written aside and then renamed.

    Args:
        results: of `build_structures`; those without a structure are passed over.
        folder: made where it is missing.
        formats: "cif", "poscar" or "extxyz".
        about: what stands in the comments of CIFs besides, such as the sampler and the seed.

    Returns:
        The name of the best candidate's file in the first format, None for crystals without a structure.

    Raises:
        PlacementError: an unknown format, or none.
        CheckpointError: the files cannot be written.
    """
    unknown = [name for name in formats if name not in SUFFIXES]
    if unknown or not formats:
        raise PlacementError(f"formats {list(formats)}: give one or more of {', '.join(SUFFIXES)}")
    writers: dict[str, Callable[[OrbitStructure], str]] = {
        "cif": partial(cif, about=about),
        "poscar": poscar,
        "extxyz": extended_xyz,
    }
    folder = path_of(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"cannot write in {folder}: {error.strerror}; choose another folder") from error
    digits = max(4, len(str(len(results) - 1)))
    names: list[str | None] = []
    for i, result in enumerate(results):
        number = int(result.crystal.space_group[0])
        stem = f"{i:0{digits}d}_{result.crystal.formulas()[0]}_{number}"
        names.append(stem + SUFFIXES[formats[0]] if result.orbits else None)
        for rank, structure in enumerate(result.orbits, start=1):
            for name in formats:
                text = writers[name](structure)
                path = folder / (stem + (f"_c{rank}" if rank > 1 else "") + SUFFIXES[name])
                write_aside(path, lambda aside, text=text: aside.write_text(text, encoding="utf-8"))
    return names


def cif(structure: OrbitStructure, about: Mapping[str, Any] | None = None) -> str:
    """A CIF with the asymmetric unit and the operations of the space group, in the cell as it is.

    ``about``: names and values for comments at its beginning.

    pymatgen's own CifWriter looks for the symmetry anew, and with refinement changes the cell and the setting; here the
    group is known, so its operations are written in the setting that the coordinates are in.
    """
    from pymatgen.core import Composition
    from pymatgen.core.operations import SymmOp
    from pymatgen.io.cif import CifBlock, CifFile

    number = structure.space_group
    centring = int(space_groups.CENTRING[number - 1])
    composition = Composition({symbol: centring * n for symbol, n in structure.counts.items()})
    formula = composition.reduced_formula
    general = space_groups.WYCKOFF[number - 1][-1].operations
    operations = [SymmOp.from_rotation_and_translation(o[:, :3], o[:, 3]).as_xyz_str() for o in general]
    lengths, angles = structure.lattice[:3], structure.lattice[3:]
    data = {
        "_symmetry_space_group_name_H-M": space_groups.SYMBOL[number - 1],
        **{f"_cell_length_{n}": f"{v:.10f}" for n, v in zip("abc", lengths, strict=True)},
        **{f"_cell_angle_{n}": f"{v:.10f}" for n, v in zip(("alpha", "beta", "gamma"), angles, strict=True)},
        "_symmetry_Int_Tables_number": str(number),
        "_chemical_formula_structural": formula,
        "_chemical_formula_sum": composition.formula,
        "_cell_volume": f"{abs(np.linalg.det(cell_matrix(structure.lattice))):.8f}",
        "_cell_formula_units_Z": str(round(composition.get_reduced_composition_and_factor()[1])),
        "_symmetry_equiv_pos_site_id": [str(i) for i in range(1, len(operations) + 1)],
        "_symmetry_equiv_pos_as_xyz": operations,
        **_asymmetric_unit(structure),
    }
    loops = [[key for key in data if key.startswith(start)] for start in ("_symmetry_equiv", "_atom_site")]
    lines = [f"# {name}: {' '.join(str(value).split())}" for name, value in (about or {}).items()]
    comment = "\n".join([f"# generated by crystalgfn {version('crystalgfn')}", *lines])
    return str(CifFile({formula: CifBlock(data, loops, formula)}, comment=comment))


def _asymmetric_unit(structure: OrbitStructure) -> dict[str, list[str]]:
    """The columns of a CIF about sites: the first atom of each orbit."""
    sizes = [wyckoff_position(structure.space_group, orbit.letter).multiplicity for orbit in structure.orbits]
    units = structure.sites()[0][np.cumsum([0, *sizes])[:-1]]
    symbols = [elements.SYMBOLS[orbit.species - 1] for orbit in structure.orbits]
    return {
        "_atom_site_type_symbol": symbols,
        "_atom_site_label": [f"{symbol}{symbols[: n + 1].count(symbol)}" for n, symbol in enumerate(symbols)],
        "_atom_site_symmetry_multiplicity": [str(size) for size in sizes],
        **{f"_atom_site_fract_{axis}": [f"{x:.10f}" for x in units[:, k]] for k, axis in enumerate("xyz")},
        "_atom_site_occupancy": [f"{orbit.occupancy:g}" for orbit in structure.orbits],
    }


def poscar(structure: OrbitStructure) -> str:
    """A POSCAR of the conventional cell; the comment line names formula and space group."""
    from pymatgen.io.vasp import Poscar

    number, cell = structure.space_group, structure.to_structure()
    comment = f"{cell.composition.reduced_formula} {number} ({space_groups.SYMBOL[number - 1]})"
    return Poscar(cell, comment=comment).get_str(significant_figures=12)


def extended_xyz(structure: OrbitStructure) -> str:
    """Extended XYZ of the conventional cell, with formula and space group in its second line."""
    cell = structure.to_structure()
    rows = " ".join(f"{v:.10f}" for v in cell.lattice.matrix.ravel())
    head = (
        f'Lattice="{rows}" Properties=species:S:1:pos:R:3 formula={cell.composition.reduced_formula} '
        f'space_group={structure.space_group} pbc="T T T"'
    )
    atoms = [f"{site.specie.symbol:<2} " + " ".join(f"{v:.10f}" for v in site.coords) for site in cell]
    return "\n".join([str(len(cell)), head, *atoms]) + "\n"
