"""The batched hull says what pymatgen's phase diagram says."""

import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition, Element

from crystalgfn.errors import DataError, InvalidCrystal
from crystalgfn.properties.convex_hull import ExactHull
from crystalgfn.properties.hull_entries import composition_of
from crystalgfn.rewards.base import example_crystals

#: Formation energies near the Materials Project's, eV/atom, with polymorphs and unstable ones among them.
ENTRIES = [
    ("Li2O", -2.06), ("Li2O2", -1.64), ("LiFeO2", -1.93), ("LiFeO2", -1.80), ("Fe2O3", -1.68), ("FeO", -1.32),
    ("Fe3O4", -1.66), ("Fe", 0.15), ("Li5FeO4", -1.97), ("Fe3O", 0.2), ("P2O5", -2.25), ("Li3PO4", -2.76),
    ("FePO4", -2.35), ("LiFePO4", -2.50), ("Li3Fe2(PO4)3", -2.55), ("FeP", -0.42), ("FeP2", -0.38), ("Li3P", -0.95),
    ("LiP", -0.70), ("NaCl", -2.1), ("LiO8", -0.3), ("Fe2P2O7", -2.45), ("LiPO3", -2.55),
]  # fmt: skip


@pytest.fixture(scope="module")
def hull() -> ExactHull:
    return ExactHull.from_entries(ENTRIES)


def test_it_is_pymatgens_hull(hull: ExactHull) -> None:
    elements = [PDEntry(Composition(symbol), 0.0) for symbol in ("Li", "Fe", "P", "O")]
    known = [PDEntry(c, e * c.num_atoms) for c, e in ((Composition(f), e) for f, e in ENTRIES) if "Na" not in c]
    diagram = PhaseDiagram([*elements, *known])
    # Every system of one to four elements, and the entries themselves, on which the simplex is degenerate.
    amounts = torch.randint(0, 4, (200, 4), generator=torch.Generator().manual_seed(0))
    amounts = amounts[amounts.sum(1) > 0]
    composition = torch.zeros(len(amounts), 118, dtype=torch.int64)
    composition[:, [Element(symbol).Z - 1 for symbol in ("Li", "Fe", "P", "O")]] = amounts
    formulas = [
        "".join(f"{s}{n}" for s, n in zip(("Li", "Fe", "P", "O"), row, strict=True)) for row in amounts.tolist()
    ]
    formulas += [formula for formula, _ in ENTRIES if formula != "NaCl"]
    wanted = torch.tensor([diagram.get_hull_energy_per_atom(Composition(f)) for f in formulas], dtype=torch.float64)
    assert torch.allclose(hull.energy(formulas), wanted, atol=1e-7)
    assert torch.allclose(hull.energy(composition), wanted[: len(composition)], atol=1e-7)
    assert hull.n_stable == len([e for e in diagram.stable_entries if not e.is_element]) + 1  # and NaCl


def test_multiples_and_mixtures_are_the_same_compositions(hull: ExactHull) -> None:
    one, two = composition_of("LiFePO4", 0), composition_of("Fe", 1)
    both = hull.energy(torch.stack([one, 4 * one, one / 7, one + two]))
    assert torch.allclose(both[:3], both[0].expand(3), atol=1e-12)
    # LiFePO4 and Fe lie beside each other on the hull here: nothing between them is better than their mixture.
    assert float(both[3]) == pytest.approx(7 / 8 * -2.50, abs=1e-9)


def test_the_hull_is_convex(hull: ExactHull) -> None:
    generator = torch.Generator().manual_seed(1)
    columns = [Element(symbol).Z - 1 for symbol in ("Li", "Fe", "P", "O", "Na", "Cl")]
    ends = torch.zeros(2, 300, 118, dtype=torch.float64)
    ends[:, :, columns] = torch.rand(2, 300, 6, generator=generator, dtype=torch.float64)
    ends = ends / ends.sum(2, keepdim=True)
    middle = hull.energy(0.5 * (ends[0] + ends[1]))
    assert (middle <= 0.5 * (hull.energy(ends[0]) + hull.energy(ends[1])) + 1e-7).all()


def test_elements_and_unknown_systems_are_at_zero(hull: ExactHull) -> None:
    assert torch.equal(hull.energy(["Fe", "Au", "AuPt", "KBr"]), torch.zeros(4, dtype=torch.float64))
    assert hull.energy([]).shape == (0,)


def test_more_elements_than_any_entry_has(hull: ExactHull) -> None:
    parts = "Li2ONaClAuAgCuZnGaGeAsSe"
    assert float(hull.energy([parts])) == pytest.approx((3 * -2.06 + 2 * -2.1) / 13)


def test_energy_above(hull: ExactHull) -> None:
    above = hull.above(["LiFeO2", "NaCl"], torch.tensor([-1.80, -2.3], dtype=torch.float64))
    assert above.tolist() == pytest.approx([-1.80 - float(hull.energy(["LiFeO2"])), -0.2])


def test_mixtures_are_pymatgens(hull: ExactHull) -> None:
    elements = [PDEntry(Composition(symbol), 0.0) for symbol in ("Li", "Fe", "P", "O")]
    known = [PDEntry(c, e * c.num_atoms) for c, e in ((Composition(f), e) for f, e in ENTRIES) if "Na" not in c]
    diagram = PhaseDiagram([*elements, *known])
    amounts = torch.randint(1, 6, (30, 4), generator=torch.Generator().manual_seed(3)).tolist()
    formulas = ["".join(f"{s}{n}" for s, n in zip(("Li", "Fe", "P", "O"), row, strict=True)) for row in amounts]
    for formula, mixture in zip(formulas, hull.decompose(formulas), strict=True):
        # pymatgen's amounts are of entries that are normalised to one atom
        wanted = {
            e.composition.fractional_composition: n for e, n in diagram.get_decomposition(Composition(formula)).items()
        }
        found = {Composition(phase.formula).fractional_composition: phase.share for phase in mixture}
        assert sum(found.values()) == pytest.approx(1)
        assert set(found) == set(wanted) and [found[c] for c in wanted] == pytest.approx(
            list(wanted.values()), abs=1e-6
        )
        energy = sum(phase.share * phase.energy for phase in mixture)
        assert energy == pytest.approx(float(hull.energy([formula])), abs=1e-6)


def test_mixtures_name_their_entries() -> None:
    table = pd.DataFrame(
        {
            "formula": ["NaCl", "KCl", "NaCl", "K"],
            "formation_energy_per_atom": [-2.1, -2.2, -2.0, 0.0],
            "material_id": ["mp-1", "mp-2", "mp-3", "mp-4"],
        }
    )
    hull = ExactHull.from_entries(table)
    found = hull.decompose(["Na2KCl3", "Na2Cl", "Na"])
    assert [[(phase.formula, phase.identifier, round(phase.share, 9)) for phase in mixture] for mixture in found] == [
        [("NaCl", "mp-1", round(4 / 6, 9)), ("KCl", "mp-2", round(2 / 6, 9))],
        [("NaCl", "mp-1", round(2 / 3, 9)), ("Na", "", round(1 / 3, 9))],
        [("Na", "", 1.0)],
    ]
    assert ExactHull.from_entries({"Li0.5CoO2": -1.0}).decompose(["LiCo2O4"])[0][0].formula == "LiCo2O4"


def test_entries_come_from_files_tables_and_mappings(hull: ExactHull, tmp_path: Path) -> None:
    table = pd.DataFrame(ENTRIES, columns=["formula", "formation_energy_per_atom"])
    table.to_csv(tmp_path / "entries.csv", index=False)
    table.rename(columns={"formula": "name"}).to_parquet(tmp_path / "entries.parquet")
    crystals = example_crystals()
    wanted = hull.energy(crystals)
    assert wanted.min() < -1
    for one in (
        ExactHull.from_entries(tmp_path / "entries.csv"),
        ExactHull.from_entries(str(tmp_path / "entries.parquet"), formula="name"),
        ExactHull.from_entries(table),
        ExactHull.from_entries({"NaCl": -2.1, "Fe2O3": -1.68, "LiFeO2": -1.93, "Li2O": -2.06}),
    ):
        assert torch.allclose(one.energy(crystals), wanted, atol=1e-9)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "at least one entry"),
        ([("Xy2", -1.0)], "entry 0: the formula 'Xy2' cannot be read"),
        ([("NaCl", -1.0), ("KCl", float("nan"))], r"entry 1 \(KCl\).*nan.*skip=True"),
        ([("NaCl", "low")], "entry 0: the formation energy 'low' is no number"),
        ("nowhere.csv", "no file of entries nowhere.csv"),
        ([("NaCl", -1.0, 3)], "pairs"),
        (7, "must be a file"),
        ([("Li1e400", -1.0)], "entry 0: the formula 'Li1e400' "),
        ([("Li2O", float("-inf"))], r"entry 0 \(Li2O\).*-inf"),
        ([("Li9" + "9" * 40 + "O", -1.0)], "more than 1e[+]12 atoms of an element"),
        (pd.DataFrame({"formula": ["NaCl"]}), "no column formation_energy_per_atom; name the columns"),
    ],
)
def test_entries_that_cannot_be_used_are_named(entries: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        ExactHull.from_entries(entries)


def test_rows_without_energy_are_left_out_if_asked() -> None:
    hull = ExactHull.from_entries([("NaCl", -2.1), ("KCl", None)], skip=True)
    assert hull.energy(["NaCl", "KCl"]).tolist() == pytest.approx([-2.1, 0.0])


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "entries.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(DataError, match="entries.parquet cannot be read"):
        ExactHull.from_entries(tmp_path / "entries.parquet")


def test_compositions_that_mean_nothing_are_refused(hull: ExactHull) -> None:
    with pytest.raises(InvalidCrystal, match="composition 1 has no atoms"):
        hull.energy(torch.eye(118)[:2] * torch.tensor([[1.0], [0.0]]))
    with pytest.raises((InvalidCrystal, TypeError)):  # the annotation, where those are checked
        hull.energy(torch.ones(3, 4))
    with pytest.raises(InvalidCrystal, match="composition 0 has .* endless amount"):
        hull.energy(torch.full((1, 118), float("inf")))
    with pytest.raises(DataError, match=r"1 compositions need energies of shape \[1\], not \[2\]"):
        hull.above(["NaCl"], torch.zeros(2))


def test_ten_thousand_compositions_take_a_moment(hull: ExactHull) -> None:
    amounts = torch.randint(0, 5, (10_000, 5), generator=torch.Generator().manual_seed(0))
    composition = torch.zeros(10_000, 118, dtype=torch.int64)
    composition[:, [2, 25, 14, 7, 10]] = amounts
    composition[:, 2] += 1
    start = time.process_time()
    hull.energy(composition)
    assert time.process_time() - start < 3  # 0.1 s alone on one core
