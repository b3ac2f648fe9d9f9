"""The contract of a constraint: inherit `ConstraintContract` and give the constraint, and a space if it needs one.

class TestOneHalogen(ConstraintContract):
    constraint = AtMost(("F", "Cl"))
"""

import json
import pickle

import pytest

from crystalgfn.envs.constraint_check import check_constraint
from crystalgfn.space.constraint import Constraint
from crystalgfn.space.space import CrystalSpace


class ConstraintContract:
    """What every constraint does."""

    constraint: Constraint
    space: CrystalSpace | None = None

    def test_masks_and_words_agree(self):
        check_constraint(self.constraint, self.space)

    def test_it_is_a_value(self):
        copy = pickle.loads(pickle.dumps(self.constraint))
        assert copy == self.constraint and hash(copy) == hash(self.constraint)
        assert self.constraint.intersect(copy) == self.constraint

    def test_its_arguments_are_plain(self):
        values = self.constraint.to_dict()
        assert json.loads(json.dumps(values)) == values

    @pytest.fixture(autouse=True)
    def _is_a_constraint(self):
        assert isinstance(self.constraint, Constraint)
