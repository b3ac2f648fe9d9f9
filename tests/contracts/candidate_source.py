"""The contract of a source of candidates: inherit `CandidateSourceContract` and give the source.

class TestRockSalt(CandidateSourceContract):
    source = RockSalt()
"""

import pickle
from dataclasses import replace

from crystalgfn.structures.sources.base import CandidateSource, check_candidate_source, example_requests


class CandidateSourceContract:
    source: CandidateSource

    def test_answers_are_what_was_asked_for(self):
        check_candidate_source(self.source)

    def test_what_cannot_be_is_an_error_in_its_place(self):
        good = example_requests()[0]
        first, second = self.source.propose([replace(good, counts={"Na": 1, "Cl": 1, "O": 1}), good], 1, 0)
        (alone,) = self.source.propose([good], 1, 0)
        assert first.structures == () and first.error
        assert second == alone

    def test_nothing_asked_nothing_answered(self):
        assert self.source.propose([], 3, 0) == []

    def test_it_can_be_sent_to_another_process(self):
        request = example_requests()[:1]
        assert pickle.loads(pickle.dumps(self.source)).propose(request, 1, 0) == self.source.propose(request, 1, 0)
