"""Elements of a space on the places of real crystals; what a discovery takes from its reference."""

import numpy as np
import pandas as pd
import pytest
import torch
from pymatgen.core import Lattice, Structure

from crystalgfn import CrystalSpace
from crystalgfn.crystallography import elements
from crystalgfn.data.structure_index import Prototypes
from crystalgfn.discovery.phases import KnownPhases, read_phases
from crystalgfn.discovery.proposer import ProposerConfig
from crystalgfn.discovery.substitution import Substitution, asked_space, placing
from crystalgfn.structures.config import AFLOW


@pytest.fixture(scope="module")
def index():
    return Prototypes.read(AFLOW)


@pytest.mark.parametrize(
    "constraints",
    [
        {"chemsys": "Li-Mn-O"},
        {"elements": ["Na", "K", "Cl"], "n_elements": (2, 3), "n_atoms": (1, 8)},
        {"elements": ["Cu", "Au"], "space_groups": [221, 225]},
    ],
)
def test_proposals_are_prototypes_with_elements_of_the_space(index, constraints):
    space = CrystalSpace(oxidation_states=None, **constraints)
    made = Substitution(index=index, space=space, seed=1, n=3000)
    drawn = made.draw(0)
    assert len(drawn) > 3 and bool(space.contains(drawn).all())
    kinds = {
        (group, tuple(sorted(row[row > 0].tolist())))
        for group, row in zip(index.space_group.tolist(), index.composition, strict=True)
    }
    for group, row in zip(drawn.space_group.tolist(), drawn.composition.numpy(), strict=True):
        assert (group, tuple(sorted(row[row > 0].tolist()))) in kinds
    names = list(zip(drawn.formulas(), drawn.space_group.tolist(), strict=True))
    assert len(set(names)) == len(names)
    again, other = made.draw(0), made.draw(1)
    assert torch.equal(again.lattice, drawn.lattice) and torch.equal(again.composition, drawn.composition)
    assert len(other) != len(drawn) or not torch.equal(other.composition, drawn.composition)


def test_cells_have_the_volume_of_their_atoms(index):
    """What a real crystal takes up over its atoms' volumes is kept."""
    space = CrystalSpace(elements=["Cs", "F"], space_groups=[225], n_elements=(2, 2), oxidation_states=None)
    drawn = Substitution(index=index, space=space, seed=0).draw(0)
    expected = index.volume_per_atom * index.composition.sum(1) / (index.composition @ elements.VOLUME)
    usual = drawn.composition.double().numpy() @ elements.VOLUME
    ratio = drawn.volume_per_atom.numpy() * drawn.n_atoms.numpy() / usual
    assert len(drawn) and all(np.isclose(expected[index.space_group == 225], one, rtol=1e-4).any() for one in ratio)


def test_a_space_that_no_prototype_fits_has_no_proposals(index):
    space = CrystalSpace(elements=["Na", "Cl"], n_atoms=(1, 1), n_elements=(1, 1), oxidation_states=None)
    one = Substitution(index=index.select(index.composition.sum(1) > 3), space=space, seed=0)
    assert len(one.draw(0)) == 0


def test_the_charge_rule_holds_only_where_it_was_asked_for():
    narrowed = CrystalSpace(chemsys="Li-Mn-O", oxidation_states="common", n_atoms=(1, 12))
    wide = asked_space({"chemsys": "Li-Mn-O"}, narrowed)
    assert wide.oxidation_states is None and wide.n_atoms == (1, 12) and wide.chemsys == "Li-Mn-O"
    asked = asked_space({"chemsys": "Li-Mn-O", "oxidation_states": "icsd"}, narrowed)
    assert asked.oxidation_states == "icsd"
    assert asked_space(None, narrowed) is narrowed
    halides = CrystalSpace(anonymous_formulas=["ABX3"], any_of=["Cl", "Br"])
    wide = asked_space({"any_of": ["Cl", "Br"]}, halides)
    assert wide.element_numbers == halides.element_numbers and wide.any_of == halides.any_of


def test_templates_come_from_the_reference_or_from_aflow(tmp_path):
    salt = Structure.from_spacegroup(225, Lattice.cubic(5.64), ["Na", "Cl"], [[0] * 3, [0.5] * 3])
    frame = pd.DataFrame({"cif": [salt.to(fmt="cif")], "formation_energy_per_atom": [-2.0], "spacegroup": [225]})
    frame.to_csv(tmp_path / "known.csv")
    pd.DataFrame({"formula": ["NaCl"], "formation_energy_per_atom": [-2.0]}).to_csv(tmp_path / "bare.csv")
    both = [str(tmp_path / name) for name in ("known.csv", "bare.csv")]
    for reference, n in ((both[0], 1), (both, 1), (both[1], 288), ({"NaCl": -2.0, "Na": 0.0, "Cl": 0.0}, 288)):
        phases = KnownPhases("given", read_phases(reference, "formation_energy_per_atom")[1])
        config, index = placing(ProposerConfig(), reference, phases)
        assert config.build["lattice"] == "generate" and config.build["n_candidates"] == 2
        assert len(index) == len(config.build["templates"].index) and (len(index) == 1) == (n == 1)
        assert "templates" not in placing(ProposerConfig(build={"refiner": None}), phases, phases)[0].build
    own, index = placing(ProposerConfig(build={"templates": "aflow"}), both[0], phases)
    assert len(index) > 1 and own.build["templates"].index is index
