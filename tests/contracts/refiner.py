"""The contract of a refiner: inherit `RefinerContract` and give the refiner.

class TestSpheres(RefinerContract):
    refiner = Spheres()
"""

import pickle

from crystalgfn.structures.refiner.base import Refiner, check_refiner, example_structures


class RefinerContract:
    refiner: Refiner

    def test_it_keeps_what_it_must_keep(self):
        check_refiner(self.refiner)

    def test_nothing_given_nothing_made(self):
        assert self.refiner.refine([]) == []

    def test_other_seeds_other_structures(self):
        rutile = example_structures()[1]
        one, other = self.refiner.refine([rutile, rutile], steps=2, seeds=[(1,), (2,)])
        assert one != other

    def test_it_can_be_sent_to_another_process(self):
        given = example_structures()[1:2]
        again = pickle.loads(pickle.dumps(self.refiner))
        assert again.refine(given, seeds=[(1,)], steps=2) == self.refiner.refine(given, seeds=[(1,)], steps=2)
