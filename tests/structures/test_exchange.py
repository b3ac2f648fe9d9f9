"""What structures become for other programs: pymatgen, ASE, entries, OPTIMADE, JSON, notebooks."""

import json
import math

import numpy as np
import pytest
import torch
from monty.json import MontyDecoder, MontyEncoder
from monty.serialization import dumpfn, loadfn
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition, Structure
from pymatgen.io.optimade import OptimadeStructureAdapter

import crystalgfn as cg
from crystalgfn.crystallography.crystals import Disordered
from crystalgfn.crystallography.orbits import OrbitStructure
from crystalgfn.errors import DataError, PlacementError
from crystalgfn.rewards.base import example_crystals
from crystalgfn.structures.exchange import StructureList
from crystalgfn.structures.predict import Prediction
from crystalgfn.structures.result import BuildResult

SALT = OrbitStructure.of_letters(225, (5.64, 5.64, 5.64, 90.0, 90.0, 90.0), {"Na": ["a"], "Cl": ["b"]})
TITANATE = OrbitStructure.of_letters(
    139, (3.88, 3.88, 12.6, 90.0, 90.0, 90.0), {"Sr": ["e"], "Ti": ["a"], "O": ["c", "e"]},
    np.array([[0, 0, 0.1 / 3 + 0.32], [0, 0, 0], [0, 0.5, 0], [0, 0, 0.157]]),
)  # fmt: skip


@pytest.fixture(scope="module")
def results():
    built = BuildResult(
        orbits=[SALT, TITANATE], origins=["fixed", "refiner"], probabilities=[0.9, 0.1],
        energies=[-3.4, math.nan], calculator="chgnet",
    )  # fmt: skip
    return StructureList([built, BuildResult(error="no <b>room</b>"), BuildResult(orbits=[TITANATE])])


@pytest.fixture(scope="module")
def predictions():
    one = Prediction(orbits=SALT, probability=0.6, origin="fixed", energy=-2.1)
    return StructureList([one, Prediction(orbits=TITANATE, probability=0.1, origin="refiner")])


def test_structures_and_atoms_carry_what_is_known(results, predictions):
    first, second = results.to_structures()
    assert first.sites == SALT.to_structure().sites and second.reduced_formula == "Sr2TiO4"
    assert first.properties == {
        "name": "0000-NaCl-225-1", "space_group": 225, "total_energy_per_atom": -3.4, "energy_by": "chgnet",
        "wyckoff": {"Na": ["a"], "Cl": ["b"]}, "origin": "fixed", "probability": 0.9,
    }  # fmt: skip
    assert "total_energy_per_atom" not in second.properties and second.properties["name"].startswith("0002-")
    assert results[0].structure.properties == {}  # the result's own is left as it was
    atoms = predictions.to_ase()[0]
    assert atoms.get_chemical_formula() == "Cl4Na4" and atoms.info["formation_energy_per_atom"] == -2.1
    assert np.allclose(atoms.positions, predictions[0].structure.cart_coords)
    assert predictions[0].to_ase() == atoms and results[0].to_ase(1).get_chemical_formula() == "O8Sr4Ti2"
    assert len(results[0].to_structures()) == 2 and isinstance(results[:1], StructureList)


def test_entries_stand_in_a_phase_diagram(results, predictions):
    (entry,) = results.to_entries(skip=True)
    assert entry.energy == pytest.approx(-3.4 * 8) and entry.parameters == {"energy": "total", "calculator": "chgnet"}
    with pytest.raises(DataError, match=r"0002-Sr2TiO4-139-1 has no energy; build with energies=True"):
        results.to_entries()
    (salt,) = predictions.to_entries(skip=True)
    diagram = PhaseDiagram([PDEntry(Composition("Na"), 0.0), PDEntry(Composition("Cl"), 0.0), salt])
    assert diagram.get_form_energy_per_atom(salt) == pytest.approx(-2.1) and salt.parameters["energy"] == "formation"


def test_optimade(results, predictions):
    """Read back by pymatgen; the attributes by the specification, https://specification.optimade.org (1.2)."""
    found = [*results.to_optimade(), *predictions.to_optimade()]
    json.dumps(found, allow_nan=False)
    for one, structure in zip(found, [*results.to_structures(), *predictions.to_structures()], strict=True):
        read = OptimadeStructureAdapter.get_structure(one)
        assert np.allclose(read.lattice.matrix, structure.lattice.matrix)
        assert np.allclose(read.cart_coords, structure.cart_coords) and read.species == structure.species
    assert len({one["id"] for one in found[:2]}) == 2 and {one["type"] for one in found} == {"structures"}
    of = found[1]["attributes"]
    assert of["elements"] == ["O", "Sr", "Ti"] and of["chemical_formula_reduced"] == "O4Sr2Ti"
    assert of["chemical_formula_anonymous"] == "A4B2C" and of["nsites"] == 14 == len(of["species_at_sites"])
    assert of["elements_ratios"] == pytest.approx([4 / 7, 2 / 7, 1 / 7]) and of["structure_features"] == []
    assert found[0]["attributes"]["_crystalgfn_probability"] == 0.9


def test_json_round_trips_exactly(results, predictions, tmp_path):
    for given in (results, predictions):
        dumpfn(given, tmp_path / "given.json")
        read = loadfn(tmp_path / "given.json")
        assert [type(one) for one in read] == [type(one) for one in given]
        assert [one.orbits for one in read] == [one.orbits for one in given]
        again = StructureList.from_dict(json.loads(json.dumps(given.as_dict())))
        assert [one.as_dict() for one in again] == [one.as_dict() for one in given]
    one = loadfn(tmp_path / "given.json")[0]
    assert (one.probability, one.energy, one.origin) == (0.6, -2.1, "fixed")
    dumpfn(results, tmp_path / "results.json")
    read = loadfn(tmp_path / "results.json")
    assert read[1:] == results[1:] and read[0].origins == results[0].origins
    assert read[0].energies[0] == -3.4 and math.isnan(read[0].energies[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_crystals_round_trip_exactly(dtype):
    batch = example_crystals()
    batch = cg.Crystals(batch.space_group, batch.composition, batch.lattice.to(dtype) / 3 * 3)
    for given in (batch, batch[:0]):
        read = json.loads(json.dumps(given, cls=MontyEncoder), cls=MontyDecoder)
        assert type(read) is cg.Crystals and read.lattice.dtype == dtype
        for name in ("space_group", "composition", "lattice"):
            assert torch.equal(getattr(read, name), getattr(given, name))
    part = Disordered(batch.space_group, batch.composition.double() * 0.7, batch.lattice)
    assert torch.equal(Disordered.from_dict(part.as_dict()).composition, part.composition)


def test_json_makes_nothing_but_results():
    good = BuildResult(orbits=[SALT]).as_dict()
    for module, name in (("os", "system"), ("crystalgfn.utils.files", "write_aside"), ("crystalgfn.cli.app", "Job")):
        bad = json.loads(
            json.dumps(good).replace("crystalgfn.crystallography.orbits", module).replace("OrbitStructure", name)
        )
        with pytest.raises(DataError, match="is no class that crystalgfn reads from JSON"):
            BuildResult.from_dict(bad)
    with pytest.raises(DataError, match="this is no Crystals"):
        cg.Crystals.from_dict({"crystals": [{"space_group": 1}], "dtype": "float64"})
    wrong = json.loads(json.dumps(good).replace('"letter": "b"', '"letter": "y"'))
    with pytest.raises((DataError, PlacementError)):
        BuildResult.from_dict(wrong)


def test_notebooks_show_tables_and_pictures(results, predictions):
    page = results._repr_html_()
    assert page.count("<img ") == 2 and "Sr2TiO4" in page and "Fm-3m (225)" in page
    assert "no &lt;b&gt;room&lt;/b&gt;" in page and "<b>room" not in page
    assert predictions._repr_html_().count("data:image/png;base64,") == 2
    crystals = example_crystals()
    assert crystals.formulas()[0] in crystals._repr_html_() and len(repr(crystals)) < 120
    many = cg.Crystals.cat([crystals] * 30)
    assert "more</p>" in many._repr_html_()
    assert repr(results[0]) == "BuildResult(NaCl, Fm-3m (225), 2 structures)"
    assert repr(predictions[0]) == "Prediction(NaCl, Fm-3m (225), probability 0.600, by fixed)"
    assert repr(results[1]) == "BuildResult(no structure: no <b>room</b>)"


def test_the_view_is_of_a_structure(results):
    pytest.importorskip("pymatviz")
    assert results.view(2).data
    with pytest.raises(DataError, match="rank=3: there are 2 structures"):
        results.view(3)


def test_what_the_package_returns_can_be_handed_on():
    crystals = cg.Crystals.from_structures([SALT.to_structure()])
    built = cg.build_structures(crystals, refiner=None)
    assert isinstance(built, StructureList) and built.to_structures()[0].reduced_formula == "NaCl"
    again = cg.refine_structures(built.to_structures(), steps=1)
    assert isinstance(again, StructureList) and isinstance(again.to_structures()[0], Structure)
