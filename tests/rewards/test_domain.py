"""Spaces that a proxy knows nothing of are refused, by what it was fitted on."""

import re
from dataclasses import dataclass

import pytest
import torch

import crystalgfn as cg
from crystalgfn.cli import app
from crystalgfn.crystallography.elements import NUMBER
from crystalgfn.errors import RewardError
from crystalgfn.properties.ensemble import EnsembleProxy
from crystalgfn.properties.exact import Density
from crystalgfn.properties.training_distance import Domain, NearestCentre, domain_of
from crystalgfn.rewards.base import check_space


def numbers(text):
    return [NUMBER[symbol] for symbol in text.split()]


def compositions(*rows):
    found = torch.zeros(len(rows), 118)
    for i, row in enumerate(rows):
        for symbol, n in row.items():
            found[i, NUMBER[symbol] - 1] = n
    return found


@pytest.fixture
def domain():
    """Of sulfides and chlorides of sodium."""
    data = compositions({"Na": 2, "S": 1}, {"Na": 1, "Cl": 1}, {"Na": 3, "P": 1, "S": 4}, {"Na": 3, "Y": 1, "Cl": 6})
    centres = NearestCentre(data / data.sum(1, keepdim=True), torch.tensor([0.0, 0.1, 0.3]))
    return Domain(name="mine", seen=frozenset(numbers("Na S Cl P Y")), centres=centres)


@pytest.mark.parametrize(
    ("zs", "required", "words"),
    [
        ("Na S", "", None),
        ("Na S Zr", "Na", None),
        ("Na Y F O Cl", "", None),
        ("Li P S", "", "a space of Li, P, S: all of its data have Na; add Na to the elements, or take another reward"),
        ("Na S Zr", "Zr", "every crystal has Zr, which none of its data has; require no Zr, or take another reward"),
        ("Na Pt Au", "", "none of its data has any of these beside Na; add elements of its data"),
        (
            "Na P Pt",
            "",
            r"at least 0.33 from all data \(share of atoms of other elements\), 99 % of which lie within 0.30",
        ),
    ],
)
def test_a_space_is_refused_where_no_crystal_can_be_like_the_data(domain, zs, required, words):
    found = domain.refusal(numbers(zs), numbers(required))
    if words is None:
        assert found is None
    else:
        assert found is not None and found.startswith("the proxy mine knows nothing of")
        assert re.search(words, found), found


def test_the_shipped_conductivity_was_fitted_on_lithium():
    found = domain_of(cg.load_proxy("ionic_conductivity"))
    assert found.shared == {3} and {8, 16, 17, 57} <= found.seen and not {37, 55, 78} & found.seen
    assert found.refusal(numbers("Li P S Cl"), numbers("Li")) is None
    everything = domain_of(cg.load_proxy("formation_energy"))
    assert everything.shared == frozenset() and everything.refusal(numbers("Rb Pt"), numbers("Rb")) is None
    assert domain_of(Density()) is None


def test_seen_elements_of_a_proxy_are_those_of_its_rows():
    proxy = EnsembleProxy("toy", "eV", members=2, width=4)
    crystals = cg.Sampler.untrained(cg.CrystalSpace(elements=["Na", "K", "Cl"], n_atoms=(1, 4))).sample(30)
    proxy.standardise(proxy.features(crystals), crystals, torch.randn(30))
    assert domain_of(proxy).seen == {11, 17, 19}


def test_training_and_sampling_refuse_such_a_space(tmp_path, capsys):
    conducting = cg.rewards.boltzmann(cg.load_proxy("ionic_conductivity"), beta=1.0, direction="maximise")
    reward = cg.rewards.product(one=conducting, other=cg.rewards.dense(beta=0.1))
    with pytest.raises(RewardError, match="knows nothing of a space of Na, P, S: all of its data have Li"):
        cg.train(cg.CrystalSpace(elements=["Na", "P", "S"]), reward)
    check_space(reward, cg.CrystalSpace(elements=["Li", "P", "S"]))
    sampler = cg.Sampler.load("li-conductor")
    with pytest.raises(RewardError, match="every crystal has Cs, which none of its data has; require no Cs"):
        sampler.sample(3, space={"required_elements": ["Cs"]})
    arguments = ["reward=li_conductor", "elements=[Na,P,S]", "steps=1", f"out={tmp_path / 'run'}"]
    assert app.train(arguments) == 2
    assert "all of its data have Li; add Li to the elements" in capsys.readouterr().err


def test_a_property_of_a_users_own_states_its_domain(domain):
    @dataclass(frozen=True)
    class Mine:
        domain: Domain
        name: str = "mine"
        unit: str = ""

        def __call__(self, crystals):
            return crystals.density

        def std(self, crystals):
            return crystals.density * 0

        def confidence_bound(self, crystals, n_sigma):
            return crystals.density

    reward = cg.rewards.boltzmann(Mine(domain), beta=1.0)
    check_space(reward, cg.CrystalSpace(elements=["Na", "S"]))
    with pytest.raises(RewardError, match="add Na"):
        check_space(reward, cg.CrystalSpace(elements=["Li", "S"]))
