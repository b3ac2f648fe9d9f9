import numpy as np
import pytest
import torch
from pymatgen.core import Lattice

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.lattice import CUBIC, KIND, MONOCLINIC, TRICLINIC
from crystalgfn.fitting.perturbations import CEILING, jittered, metric, strain_energy, strained
from crystalgfn.rewards.base import example_crystals
from crystalgfn.space.space import CrystalSpace


@pytest.fixture
def crystals() -> Crystals:
    triclinic = Crystals(
        torch.tensor([2]), example_crystals().composition[2:3], torch.tensor([[5.0, 6, 7, 95, 100, 105]]).double()
    )
    return Crystals.cat([example_crystals(), triclinic])


def test_metric_is_that_of_the_cell(crystals: Crystals) -> None:
    for cell, found in zip(crystals.lattice, metric(crystals.lattice), strict=True):
        matrix = Lattice.from_parameters(*cell.tolist()).matrix
        assert found.numpy() == pytest.approx(matrix @ matrix.T, abs=1e-8)


def scaled(crystals: Crystals, factor: float) -> torch.Tensor:
    return torch.cat([crystals.lattice[:, :3] * factor ** (1 / 3), crystals.lattice[:, 3:]], 1)


def test_no_strain_costs_nothing(crystals: Crystals) -> None:
    energy = strain_energy(crystals.lattice, crystals.lattice, crystals.volume_per_atom)
    torch.testing.assert_close(energy, torch.zeros_like(energy), rtol=0, atol=1e-12)


@pytest.mark.parametrize("factor", [0.6, 0.9, 1.1, 1.6])
def test_volume_follows_birch_murnaghan(factor: float, crystals: Crystals) -> None:
    volume = crystals.volume_per_atom
    energy = strain_energy(crystals.lattice, scaled(crystals, factor), volume)
    stiffness = (144 / volume).clamp(1.5, 20)
    bare = 9 / 8 * stiffness * (factor ** (-2 / 3) - 1) ** 2
    torch.testing.assert_close(energy, CEILING * (1 - torch.exp(-bare / CEILING)))


MEASURED = {  # Å3 per atom, bulk modulus in GPa
    "diamond": (5.67, 442),
    "MgO": (9.35, 160),
    "Cu": (11.8, 140),
    "Si": (20.0, 98),
    "NaCl": (22.4, 24),
    "K": (75.0, 3.1),
}


@pytest.mark.parametrize("name", MEASURED)
def test_the_bulk_modulus_is_right_to_a_factor_of_two(name: str) -> None:
    volume, measured = MEASURED[name]
    cell, step = example_crystals()[1], 1e-3
    at = torch.tensor([volume]).double()
    energy = [float(strain_energy(cell.lattice, scaled(cell, f), at)) for f in (1 - step, 1, 1 + step)]
    modulus = (energy[0] - 2 * energy[1] + energy[2]) / (volume * step**2)  # V d²E/dV², eV/Å3
    assert 0.5 < modulus * 160.22 / measured < 2


def test_a_pure_shear_costs_twice_its_modulus() -> None:
    crystals = example_crystals()[1]
    strain = 0.01
    after = crystals.lattice.clone()
    after[:, 0] *= np.exp(strain)
    after[:, 1] *= np.exp(-strain)
    energy = strain_energy(crystals.lattice, after, crystals.volume_per_atom)
    shear = 0.5 * 144 / crystals.volume_per_atom
    torch.testing.assert_close(energy, shear * 2 * strain**2, rtol=1e-3, atol=0)


def test_a_turned_description_costs_nothing() -> None:
    """A cell rotated in space is the same cell."""
    one = torch.tensor([[4.0, 5, 6, 80, 95, 100]]).double()
    matrix = Lattice.from_parameters(*one[0].tolist()).matrix
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    other = torch.tensor(Lattice(matrix @ turn).parameters)[None]
    assert float(strain_energy(one, other, torch.tensor([12.0]).double())) == pytest.approx(0, abs=1e-10)


def test_copies_keep_what_their_group_fixes(crystals: Crystals) -> None:
    many = Crystals.cat([crystals] * 200)
    copies, energy = strained(many, torch.Generator().manual_seed(0))
    assert torch.equal(copies.space_group, many.space_group)
    assert torch.equal(copies.composition, many.composition)
    kind = torch.as_tensor(KIND.copy())[many.space_group - 1]
    cell = copies.lattice
    cubic = kind == CUBIC
    torch.testing.assert_close(cell[cubic, 0], cell[cubic, 1])
    torch.testing.assert_close(cell[cubic, 0], cell[cubic, 2])
    torch.testing.assert_close(cell[many.space_group == 154, 0], cell[many.space_group == 154, 1])
    fixed = (kind != TRICLINIC) & (kind != MONOCLINIC)
    assert torch.equal(cell[fixed, 3:], many.lattice[fixed, 3:])
    monoclinic = kind == MONOCLINIC
    assert torch.equal(cell[monoclinic][:, [3, 5]], many.lattice[monoclinic][:, [3, 5]])
    ratio = copies.volume / many.volume
    assert 0.6 * (1 - 1e-9) <= float(ratio.min()) < 0.65 and 1.5 < float(ratio.max()) <= 1.6 * (1 + 1e-9)
    assert (energy >= 0).all() and (energy <= CEILING).all()
    moved = (copies.lattice[monoclinic, 4] - many.lattice[monoclinic, 4]).abs()
    assert float(moved.max()) > 2  # degrees


def test_copies_follow_their_generator(crystals: Crystals) -> None:
    one, _ = strained(crystals, torch.Generator().manual_seed(3))
    other, _ = strained(crystals, torch.Generator().manual_seed(3))
    third, _ = strained(crystals, torch.Generator().manual_seed(4))
    assert torch.equal(one.lattice, other.lattice)
    assert not torch.equal(one.lattice, third.lattice)


def test_jittered_cells_stay_in_their_groups_and_near(crystals: Crystals) -> None:
    many = Crystals.cat([crystals] * 200)
    moved = jittered(many, 0.02, torch.Generator().manual_seed(0))
    change = (moved.volume / many.volume).log()
    assert float(change.mean()) == pytest.approx(0, abs=0.003)
    assert float(change.std()) == pytest.approx(0.02, rel=0.1)
    assert (moved.lattice / many.lattice).log().abs().max() < 0.15
    space = CrystalSpace(alloys=True, mixed_valence=True, volume_per_atom=(2.0, 200.0), angles=(30.0, 150.0))
    assert space.contains(many).sum() > 500
    reasons = [reason for one in space.explain(moved[space.contains(many)]) for reason in one]
    assert all("is not the reduced conventional cell" in reason for reason in reasons)  # as strained copies' may be
    same = jittered(many, 0.0, torch.Generator().manual_seed(0))
    torch.testing.assert_close(same.lattice, many.lattice)
