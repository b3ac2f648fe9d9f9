"""Screening of placed crystals: energies of a short relaxation from the best of a few volumes."""

import numpy as np
import pytest
import torch
from ase.calculators.emt import EMT
from pymatgen.core import Lattice, Structure

import crystalgfn as cg
from crystalgfn import Crystals
from crystalgfn.calculators.energy_references import References
from crystalgfn.calculators.relaxation import relax
from crystalgfn.crystallography.elements import NUMBER
from crystalgfn.discovery.proposer import PlacedCrystal
from crystalgfn.discovery.screening import Screen, ScreenConfig

REFERENCES = References(energies=(0.0,) * 118, calculator="EMT", model="ase", rows=0, checks={})


def placed(names, edge, group=221):
    """Rock salt's little sister, or a bcc metal, of a cubic edge in Å."""
    row = torch.zeros(1, 118, dtype=torch.int64)
    for name in names:
        row[0, NUMBER[name] - 1] += 1
    lattice = torch.tensor([[edge, edge, edge, 90.0, 90.0, 90.0]], dtype=torch.float64)
    structure = Structure(Lattice.cubic(edge), list(names), [[0, 0, 0], [0.5] * 3])
    return PlacedCrystal(
        crystal=Crystals(torch.tensor([group]), row, lattice), structure=structure, prototype=None, origin="here"
    )


@pytest.fixture
def emt():
    return cg.load_calculator(EMT())


def test_without_steps_it_is_the_lowest_single_point_of_the_volumes(emt):
    one = placed(("Cu", "Au"), 3.6)
    config = ScreenConfig(volumes=(0.8, 1.0, 1.25), steps=0)
    (found,), (energy,) = Screen(emt, REFERENCES, config)([one])
    energies = []
    for volume in config.volumes:
        other = one.structure.copy()
        other.scale_lattice(one.structure.volume * volume)
        energies.append(float(emt.energies([other])[0]))
    assert energy == pytest.approx(min(energies), abs=1e-9)
    best = config.volumes[int(np.argmin(energies))]
    assert found.structure.volume == pytest.approx(best * one.structure.volume)
    assert float(found.crystal.volume[0]) == pytest.approx(found.structure.volume, rel=1e-6)
    assert one.structure.volume == pytest.approx(3.6**3)  # what was given is not changed


def test_the_steps_are_those_of_a_relaxation_with_a_free_cell(emt):
    one = placed(("Cu", "Au"), 3.3)
    (found,), (energy,) = Screen(emt, REFERENCES, ScreenConfig(volumes=(1.0,), steps=5))([one])
    expected = relax([one.structure], emt, 5, fixed_cell=False)[0]
    assert energy == pytest.approx(expected.energy, abs=1e-9)
    assert found.structure.volume == pytest.approx(expected.structure.volume)
    assert energy < float(emt.energies([one.structure])[0])


def test_what_has_no_energy_stays_as_it_was_and_the_others_do_not_notice(emt, monkeypatch):
    known = emt.energies
    monkeypatch.setattr(emt, "energies", lambda own: np.array([_unless_silver(known, one) for one in own]))
    good, short, strange = placed(("Cu", "Au"), 3.6), placed(("Cu", "Au"), 1.2), placed(("Ag", "Au"), 3.6)
    found, energies = Screen(emt, REFERENCES, ScreenConfig(steps=2))([short, good, strange])
    alone, energy = Screen(emt, REFERENCES, ScreenConfig(steps=2))([good])
    assert np.isnan(energies[[0, 2]]).all() and energies[1] == pytest.approx(energy[0], abs=1e-9)
    assert found[0] is short and found[2] is strange
    assert found[1].structure.volume == pytest.approx(alone[0].structure.volume)
    assert Screen(emt, REFERENCES)([])[0] == []


def test_evaluations_are_counted_at_most(emt, monkeypatch):
    counted = []
    energies, forces = emt.energies, emt.forces_and_stress
    monkeypatch.setattr(emt, "energies", lambda own: counted.extend(own) or energies(own))
    monkeypatch.setattr(emt, "forces_and_stress", lambda own: counted.extend(own) or forces(own))
    screen = Screen(emt, REFERENCES, ScreenConfig(steps=2))
    screen([placed(("Cu", "Au"), 3.3)])
    assert len(counted) == screen.evaluations == 3 + 1 + 2


def _unless_silver(known, structure):
    return float("nan") if "Ag" in structure.composition else float(known([structure])[0])


@pytest.mark.parametrize("options", [{"volumes": ()}, {"volumes": (0.0,)}, {"steps": -1}])
def test_settings_that_mean_nothing_are_refused(options):
    with pytest.raises(ValueError, match=r"give (at least one|a whole) number"):
        ScreenConfig(**options)
