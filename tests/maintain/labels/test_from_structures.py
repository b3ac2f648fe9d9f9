"""Energies for tables of structures: every row that needs one gets one, and only those."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from forks import Forks, as_command
from pymatgen.core import Lattice, Structure

from crystalgfn.calculators.energy_references import references_of
from crystalgfn.crystallography.elements import NUMBER
from crystalgfn.data.labelled import read_labelled
from crystalgfn.errors import DataError
from scripts.maintain.labels import from_structures
from scripts.maintain.labels.from_structures import label_structures

CELL = ("a", "b", "c", "alpha", "beta", "gamma")
PAIRS = [("Na", "Cl", 5.69), ("K", "Cl", 6.38), ("K", "Br", 6.72), ("Na", "F", 4.70), ("Na", "Cl", 5.80)]


def rock_salts(prefix: str) -> pd.DataFrame:
    rows = []
    for cation, anion, a in PAIRS:
        structure = Structure.from_spacegroup("Fm-3m", Lattice.cubic(a), [cation, anion], [[0, 0, 0], [0.5, 0.5, 0.5]])
        cell = structure.get_primitive_structure()
        row = {"formula": cation + anion, "spacegroup": 225, "n_atoms": 2, "Z": list(cell.atomic_numbers)}
        row |= {"frac": cell.frac_coords.ravel().tolist()}
        row |= {prefix + x: value for x, value in zip(CELL, cell.lattice.parameters, strict=True)}
        rows.append(row | dict(zip(CELL, Lattice.cubic(a).parameters, strict=True)))
    return pd.DataFrame(rows)


def total(structures) -> np.ndarray:
    """A made energy: -10 eV/atom and the volume per atom over 100; none for bromides."""
    made = [-10 + s.volume / len(s) / 100 if "Br" not in s.symbol_set else np.nan for s in structures]
    return np.array(made)


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setattr(from_structures, "load_calculator", lambda _: SimpleNamespace(name="CHGNet"))
    monkeypatch.setattr(from_structures, "calculate_energies", lambda _, structures: total(structures))
    monkeypatch.setattr(from_structures, "CHUNK", 2)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    rock_salts("cell_").to_parquet(tmp_path / "structures.parquet")
    known = rock_salts("prim_").iloc[[3]].assign(formation_energy_per_atom=-2.9)
    known.to_parquet(tmp_path / "known.parquet")
    return tmp_path


def test_each_row_gets_its_energy_on_the_scale_of_the_references(files) -> None:
    found = label_structures(files / "structures.parquet", progress=False)
    # no energy of the bromide; of the two sodium chlorides the lower one, which has the smaller cell
    assert found.formula.tolist() == ["NaCl", "KCl", "NaF"] and found.a.tolist() == pytest.approx([5.69, 6.38, 4.70])
    references = np.array(references_of("CHGNet").energies)
    for row in found.itertuples():
        share = np.mean([references[z - 1] for z in row.Z])
        expected = -10 + row.a**3 / 8 / 100 - share
        assert row.formation_energy_per_atom == pytest.approx(expected, abs=1e-6)


def test_what_others_have_is_left_out_and_the_file_can_be_fitted_on(files) -> None:
    found = label_structures(files / "structures.parquet", [files / "known.parquet"], progress=False)
    assert found.formula.tolist() == ["NaCl", "KCl"]
    found.to_parquet(files / "labelled.parquet")
    rows = read_labelled(files / "labelled.parquet", "formation_energy", files, False)
    assert rows.crystals.formulas() == ["NaCl", "KCl"] and rows.crystals.space_group.tolist() == [225, 225]
    assert rows.crystals.composition[0, NUMBER["Na"] - 1] == 1
    assert rows.labels.tolist() == pytest.approx(found.formation_energy_per_atom.tolist())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table.drop(columns="Z"), "has no column Z"),
        (lambda table: table.drop(columns="cell_b"), "has no cell"),
        (lambda table: table.iloc[:0], "has no row with atoms"),
    ],
)
def test_a_table_without_structures_is_refused(change, said, files) -> None:
    change(rock_salts("cell_")).to_parquet(files / "bad.parquet")
    with pytest.raises(DataError, match=said):
        label_structures(files / "bad.parquet", progress=False)


def test_the_command_says_what_it_takes(forks: Forks) -> None:
    said = forks.run(as_command("scripts.maintain.labels.from_structures"), "--help")
    assert "--without" in said and "--output" in said
