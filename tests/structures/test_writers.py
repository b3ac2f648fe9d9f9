"""Structure files read back as what was written."""

import ase.io
import numpy as np
import pytest
import spglib
from pymatgen.core import Structure
from pymatgen.io.cif import CifParser

from crystalgfn.errors import CheckpointError, PlacementError
from crystalgfn.structures.build import build_from_wyckoff, build_structures
from crystalgfn.structures.writers import cif, write_structures

pytestmark = pytest.mark.filterwarnings("ignore:Issues encountered while parsing CIF")  # pymatgen says so of every 1/3


@pytest.fixture(scope="module")
def results(built):
    return built[::3]


@pytest.mark.unchecked
def test_every_file_reads_back(results, tmp_path):
    names = write_structures(results, tmp_path / "new" / "folder")
    assert len(names) == len(results)
    for i, (name, result) in enumerate(zip(names, results, strict=True)):
        assert (name is None) == (result.structure is None)
        if name is None:
            continue
        number = int(result.crystal.space_group[0])
        assert name == f"{i:04d}_{result.crystal.formulas()[0]}_{number}.cif"
        stem = tmp_path / "new" / "folder" / name.removesuffix(".cif")
        block = CifParser(f"{stem}.cif").as_dict()
        assert int(next(iter(block.values()))["_symmetry_Int_Tables_number"]) == number
        read = [
            CifParser(f"{stem}.cif").parse_structures(primitive=False)[0],
            Structure.from_file(f"{stem}.vasp"),
        ]
        atoms = ase.io.read(f"{stem}.extxyz")
        read.append(Structure(atoms.cell.array, atoms.numbers, atoms.get_scaled_positions()))
        assert atoms.info["space_group"] == number
        for structure in read:
            assert structure.lattice.parameters == pytest.approx(result.structure.lattice.parameters, abs=1e-6)
            assert structure.composition == result.structure.composition
            cell = (structure.lattice.matrix, structure.frac_coords, [site.specie.Z for site in structure])
            assert spglib.get_symmetry_dataset(cell, symprec=0.01).number == number
            gaps = structure.frac_coords[:, None] - result.structure.frac_coords[None]
            same = np.array([[a.specie == b.specie for b in result.structure] for a in structure])
            assert ((np.abs(gaps - np.rint(gaps)).max(axis=2) < 1e-4) & same).any(axis=1).all()


def test_candidates_have_files_of_their_own(make_crystals, tmp_path):
    crystals = make_crystals((14, {"Li": 4, "O": 4}, (5.0, 6.0, 7.0, 90.0, 100.0, 90.0)))
    results = build_structures(crystals, n_candidates=3, refiner=None)
    names = write_structures(results, tmp_path, formats=["poscar"])
    assert names == ["0000_LiO_14.vasp"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "0000_LiO_14.vasp", "0000_LiO_14_c2.vasp", "0000_LiO_14_c3.vasp",
    ]  # fmt: skip


def test_asymmetric_unit_of_rock_salt(make_crystals):
    salt = make_crystals((225, {"Na": 1, "Cl": 1}, (5.64, 5.64, 5.64, 90.0, 90.0, 90.0)))
    (result,) = build_from_wyckoff(salt, [{"Na": ["a"], "Cl": ["b"]}], refiner=None)
    assert result.cif() == cif(result.orbits[0])
    (block,) = CifParser.from_str(result.cif()).as_dict().values()
    assert block["_atom_site_symmetry_multiplicity"] == ["4", "4"]
    assert block["_atom_site_type_symbol"] == ["Na", "Cl"] and block["_atom_site_occupancy"] == ["1", "1"]
    assert len(block["_symmetry_equiv_pos_as_xyz"]) == 192


def test_bad_formats_and_folders(results, tmp_path):
    with pytest.raises(PlacementError, match="give one or more of cif, poscar, extxyz"):
        write_structures(results, tmp_path, formats=["pdb"])
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(CheckpointError, match="cannot write"):
        write_structures(results, tmp_path / "taken")
