"""Known phases: the hull is pymatgen's, rows keep their identifiers, crystals find what they are."""

import sys
import types

import pandas as pd
import pytest
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition, Lattice, Structure

from crystalgfn.discovery.phases import KnownPhases
from crystalgfn.errors import DataError, RewardError
from crystalgfn.properties.convex_hull import ExactHull
from crystalgfn.properties.energy_scale import scale_shift

ROWS = {"Li2O": -2.0, "LiO": -1.4, "MnO": -2.1, "LiMnO2": -2.3, "LiMn2O4": -2.15, "Li": 0.0, "Mn": 0.0, "O": 0.0}


def salt(symbol, edge=5.64):
    return Structure.from_spacegroup("Fm-3m", Lattice.cubic(edge), [symbol, "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


@pytest.fixture
def oxides():
    frame = pd.DataFrame({"formula": list(ROWS), "formation_energy_per_atom": list(ROWS.values())})
    frame["material_id"] = [f"mp-{i}" for i in range(len(frame))]
    return KnownPhases.read(frame, [3, 25, 8])


def test_energies_above_the_hull_are_those_of_pymatgen(oxides):
    diagram = PhaseDiagram([PDEntry(Composition(f), e * Composition(f).num_atoms) for f, e in ROWS.items()])
    for formula, energy in (("Li2MnO3", -2.0), ("Li", 0.1), ("MnO2", -2.4), ("LiMnO2", -2.25)):
        own = Composition(formula)
        names = [one for one, n in own.items() for _ in range(int(n))]
        cell = Structure(Lattice.cubic(9), names, [[i / 10, 0.2, 0.7] for i in range(len(names))])
        expected = diagram.get_e_above_hull(PDEntry(own, energy * own.num_atoms), allow_negative=True)
        assert oxides.above(cell, energy) == pytest.approx(expected, abs=1e-9)
    stable = {one.name for one in diagram.stable_entries if len(one.composition) > 1}
    assert {Composition(one.formula).reduced_formula for one in oxides.stable} == stable


def test_rows_keep_their_identifiers(tmp_path):
    frame = pd.DataFrame(
        {"formula": ["NaCl", "KCl"], "formation_energy_per_atom": [-2.0, -2.1], "material_id": ["mp-1", "mp-2"]}
    )
    frame.to_parquet(tmp_path / "known.parquet")
    phases = KnownPhases.read(tmp_path / "known.parquet", [11, 17, 19])
    assert [one.identifier for one in phases.phases] == ["mp-1", "mp-2"]
    near = phases.neighbours(salt("K"), -2.09)
    assert near.known_as == "mp-2" and near.nearest == "KCl (mp-2), +0.010 eV/atom"  # no structure: by its energy
    assert phases.neighbours(salt("K"), -2.05).known_as == "new"
    assert near.decomposition == "1 KCl (mp-2)"


def test_structures_decide_where_the_reference_has_them(tmp_path):
    rows = []
    for name, structure, energy in (("mp-1", salt("Na").get_primitive_structure(), -2.0),):
        a, b, c, alpha, beta, gamma = structure.lattice.parameters
        rows.append(
            {"material_id": name, "formula": "NaCl", "formation_energy_per_atom": energy, "prim_a": a, "prim_b": b,
             "prim_c": c, "prim_alpha": alpha, "prim_beta": beta, "prim_gamma": gamma, "spacegroup": 225,
             "Z": [one.specie.Z for one in structure], "frac": structure.frac_coords.ravel().tolist(),
             "a": 5.64, "b": 5.64, "c": 5.64, "alpha": 90.0, "beta": 90.0, "gamma": 90.0, "n_atoms": 2}
        )  # fmt: skip
    pd.DataFrame(rows).to_parquet(tmp_path / "known.parquet")
    phases = KnownPhases.read(tmp_path / "known.parquet", [11, 17])
    assert phases.neighbours(salt("Na", 5.7), -1.5).known_as == "mp-1"  # whatever its energy
    caesium_chloride = Structure.from_spacegroup(
        "Pm-3m", Lattice.cubic(3.4), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    other = phases.neighbours(caesium_chloride, -2.0)
    assert other.known_as == "new" and other.nearest == "NaCl (mp-1), +0.000 eV/atom"


def test_a_reference_without_an_element_of_the_space_is_refused():
    with pytest.raises(DataError, match=r"no phase with Mn among .* excluded_elements=\[Mn\]"):
        KnownPhases.read({"Li2O": -2.0}, [3, 8, 25])
    with pytest.raises(DataError, match="column e_form"):
        KnownPhases.read(pd.DataFrame({"formula": ["LiO"], "energy": [1.0]}), [3, 8], "e_form")


def test_crystals_and_phases_are_compared_on_one_scale() -> None:
    known = {"FeS": -0.75, "FeS2": -0.8}
    phases = KnownPhases.read(known, [26, 16], scale="charge")
    disulfide = Structure.from_spacegroup("Pa-3", Lattice.cubic(5.4), ["Fe", "S"], [[0, 0, 0], [0.385] * 3])
    shift = scale_shift(["FeS2", "FeS"]).tolist()
    # On the hull by its published energy; without the correction of half-charged sulfur it may lie above.
    hull = ExactHull.from_entries(known, scale="charge")
    wanted = -0.8 + shift[0] - float(hull.energy(["FeS2"]))
    assert phases.above(disulfide, -0.8) == pytest.approx(wanted)
    published = float(ExactHull.from_entries(known).energy(["FeS2"]))
    assert phases.published.above(disulfide, -0.8) == pytest.approx(-0.8 - published)
    assert phases.above(disulfide, -0.7) - phases.above(disulfide, -0.8) == pytest.approx(0.1)
    with pytest.raises(RewardError, match="no energy scale 'pbe'"):
        KnownPhases.read(known, [26, 16], scale="pbe")


def test_a_database_gives_its_own_column_and_every_row_a_name(tmp_path, monkeypatch):
    """MatBench's formation energies beside a table of one's own, each row found again in the decomposition."""
    frame = pd.DataFrame({"structure": [salt("Na"), salt("K", 6.3)], "e_form": [-2.0, -2.1]})
    datasets = types.ModuleType("matminer.datasets")
    datasets.load_dataset = lambda name: frame
    monkeypatch.setitem(sys.modules, "matminer", types.ModuleType("matminer"))
    monkeypatch.setitem(sys.modules, "matminer.datasets", datasets)
    mine = pd.DataFrame({"formula": ["NaKCl2", "Na"], "formation_energy_per_atom": [-1.9, 0.0], "id": ["new-1", "Na"]})
    mine.to_csv(tmp_path / "mine.csv", index=False)
    phases = KnownPhases.read(["matbench:matbench_mp_e_form", tmp_path / "mine.csv"], [11, 17, 19])
    assert [(one.formula, one.identifier, one.energy) for one in phases.phases] == [
        ("NaCl", "row 0", -2.0), ("KCl", "row 1", -2.1), ("KNaCl2", "new-1", -1.9), ("Na", "Na", 0.0),
    ]  # fmt: skip
    mixed = Structure(Lattice.cubic(6), ["Na", "K", "Cl", "Cl"], [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0], [0, 0.5, 0]])
    near = phases.neighbours(mixed, -1.85)
    assert near.nearest == "KNaCl2 (new-1), +0.050 eV/atom" and near.known_as == "new"
    assert sorted(near.decomposition.split(" + ")) == ["0.5 KCl (row 1)", "0.5 NaCl (row 0)"]
    assert phases.neighbours(salt("K", 6.3), -2.1).known_as == "row 1"
    with pytest.raises(DataError, match="matbench_mp_gap holds band_gap, not formation_energy"):
        KnownPhases.read("matbench:matbench_mp_gap", [11, 17])
