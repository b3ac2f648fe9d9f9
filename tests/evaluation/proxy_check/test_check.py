"""Which energy a reward predicts, what CHGNet finds, and why it finds nothing."""

import numpy as np
import pytest
import torch

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import RewardError
from crystalgfn.evaluation.proxy_check.check import ProxyCheckPlan, formation_energy, reference_energies
from crystalgfn.rewards import Density, boltzmann, energy_above_hull, load_proxy, product, stable, target
from crystalgfn.structures.ground_state import CROWDED, NOT_PLACED

SODIUM, CHLORINE = 10, 16


def crystals(*rows) -> Crystals:
    """Crystals of (group, {column: atoms}, lattice)."""
    composition = torch.zeros(len(rows), 118, dtype=torch.int64)
    for i, (_, counts, _) in enumerate(rows):
        for z, n in counts.items():
            composition[i, z] = n
    lattice = torch.tensor([row[2] for row in rows], dtype=torch.float64)
    return Crystals(torch.tensor([row[0] for row in rows]), composition, lattice)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda energy: boltzmann(energy, 8.0),
        lambda energy: product(target(Density(), 3.0, 0.5), boltzmann(energy, 8.0)),
        lambda energy: stable(prop=energy_above_hull(energy)),
        lambda energy: energy,
    ],
)
def test_the_formation_energy_is_found_wherever_it_is_in_a_reward(wrap):
    energy = load_proxy("formation_energy")
    assert formation_energy(wrap(energy)) is energy


@pytest.mark.parametrize(
    ("reward", "words"),
    [
        (None, "has no reward"),
        (boltzmann(Density(), 1.0), "reward of density"),
        (lambda crystals: crystals.density, "without a property"),
    ],
)
def test_a_reward_without_one_is_refused(reward, words):
    with pytest.raises(RewardError, match=words):
        formation_energy(reward)


@pytest.mark.parametrize("wrong", [{"n": 0}, {"chunk": 0}, {"steps": -1}, {"n_sigma": -0.5}])
def test_plans_that_cannot_be(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"{name}={value}"):
        ProxyCheckPlan(**wrong)


def test_chunks_hold_every_crystal_once():
    plan = ProxyCheckPlan(n=19, chunk=8)
    assert np.concatenate([np.arange(19)[plan.part(i)] for i in plan.chunks]).tolist() == list(range(19))


@pytest.fixture(scope="module")
def found() -> list:
    """Rock salt, stretched, crushed; sodium in a group in which it would have a larger one."""
    pytest.importorskip("chgnet", reason="needs the extra [relax]")
    salt = {SODIUM: 1, CHLORINE: 1}
    cubic = [[a, a, a, 90, 90, 90] for a in (5.69, 6.1, 3.4, 4.0)]
    some = crystals((225, salt, cubic[0]), (225, salt, cubic[1]), (225, salt, cubic[2]), (195, {SODIUM: 1}, cubic[3]))
    return reference_energies(some, ProxyCheckPlan(n=4, n_candidates=2))


def test_rock_salt_has_its_energy_at_its_own_lattice_and_hardly_moves(found):
    one = found[0]
    assert one.e_star == pytest.approx(-2.1, abs=0.06)  # Materials Project, eV/atom
    assert one.e_relaxed == pytest.approx(one.e_star, abs=5e-3)
    assert one.atoms_converged and one.cell_converged and one.is_converged and one.failure is None and one.error is None
    assert one.volume_ratio == pytest.approx(1, abs=0.03)
    assert one.length_ratio**3 == pytest.approx(one.volume_ratio, rel=1e-3)


def test_a_stretched_cell_goes_back(found):
    one = found[1]
    assert one.e_star > found[0].e_star + 0.02
    assert one.e_relaxed == pytest.approx(found[0].e_relaxed, abs=5e-3)
    assert one.length_ratio == pytest.approx(5.69 / 6.1, abs=0.02)


def test_what_fails_says_why(found):
    assert (found[2].failure, found[3].failure) == (CROWDED, NOT_PLACED)
    assert "0.7 of the sum of radii" in found[2].error
    assert "larger group" in found[3].error
    assert all(np.isnan(one.e_star) and np.isnan(one.e_relaxed) for one in found[2:])
