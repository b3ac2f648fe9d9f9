"""The constraint that the documentation adds keeps the contract, works in a space, and is saved by its entry point."""

import importlib.metadata
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import crystalgfn as cg
from crystalgfn.crystallography import elements
from crystalgfn.envs.constraint_check import check_constraint
from crystalgfn.space.constraint import Check
from tests.contracts.constraint import ConstraintContract

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "add-a-constraint.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)


@dataclass(frozen=True)
class Heavy:
    """At least half of the atoms' mass is metal: a rule on a sum over the atoms."""

    def _weights(self):
        return np.where(elements.METAL, 1.0, -1.0) * elements.MASS

    def intersect(self, other):
        return self

    def mask(self, tables):
        tables.limit_sum(self._weights(), low=0.0)

    def explain(self, crystals):
        total = crystals.composition.double() @ crystals.composition.new_tensor(self._weights(), dtype=float)
        return Check(total >= 0, lambda i: f"non-metals weigh {-float(total[i]):.1f} u more than metals")

    def to_dict(self):
        return {}


@dataclass(frozen=True)
class Cubic:
    """Space groups from 195, and with them only even numbers of atoms: rules on groups and on counts."""

    lowest: int = 195

    def intersect(self, other):
        return type(self)(max(self.lowest, other.lowest))

    def mask(self, tables):
        tables.only_groups(np.arange(1, 231) >= self.lowest)
        tables.keep_patterns(lambda counts: counts.sum(1) % 2 == 0)

    def explain(self, crystals):
        ok = (crystals.space_group >= self.lowest) & (crystals.n_atoms % 2 == 0)
        return Check(ok, lambda i: f"group {int(crystals.space_group[i])} with {int(crystals.n_atoms[i])} atoms")

    def to_dict(self):
        return {"lowest": self.lowest}


@dataclass(frozen=True)
class Talk(Cubic):
    """Its masks do nothing."""

    def mask(self, tables):
        pass


class TestASumOverTheAtoms(ConstraintContract):
    constraint = Heavy()


class TestGroupsAndCounts(ConstraintContract):
    constraint = Cubic()


@pytest.fixture
def page(tmp_path, monkeypatch):
    (tmp_path / "at_most.py").write_text(BLOCKS[0], encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("at_most", None)


def test_the_constraint_of_the_page(page):
    exec(BLOCKS[1], {})  # noqa: S102


def test_it_is_saved_by_the_name_of_its_entry_point(page, monkeypatch):
    from at_most import AtMost

    space = cg.CrystalSpace(elements=["Na", "F", "Cl"], n_atoms=(1, 6), constraints=[AtMost(["F", "Cl"])])
    narrow = space.narrowed(constraints=[AtMost(["F", "Cl"], 2)], n_atoms=(2, 4))
    assert narrow.constraints == (AtMost(["F", "Cl"], 1),)
    saved = space.to_dict()
    assert saved["constraints"] == [{"constraint": "at_most:AtMost", "symbols": ["F", "Cl"], "n": 1}]
    with pytest.raises(cg.InvalidSpace, match="there is no constraint 'at_most:AtMost'"):
        cg.CrystalSpace(**saved)  # a stranger's file imports nothing of its own choosing
    point = importlib.metadata.EntryPoint("at-most", "at_most:AtMost", "crystalgfn.constraints")
    monkeypatch.setattr("crystalgfn.space.constraint.entry_points", lambda group: [point])
    saved = space.to_dict()
    assert saved["constraints"][0]["constraint"] == "at-most"
    assert cg.CrystalSpace(**saved) == space


def test_masks_that_do_not_agree_are_named():
    with pytest.raises(cg.InvalidSpace, match="its masks let through what it refuses"):
        check_constraint(Talk())


@pytest.mark.parametrize("value", [3, "x", Cubic, [{"symbols": ["F"]}]])
def test_what_is_no_constraint_is_refused(value):
    with pytest.raises(cg.InvalidSpace, match="constraint"):
        cg.CrystalSpace(constraints=value)
