"""Who may take the last count, against compositions that are judged one by one; and what a policy makes of it."""

import pytest
import torch

import crystalgfn as cg
from crystalgfn.envs.base import Discrete, Lookahead
from crystalgfn.envs.crystal import CrystalEnvironment
from crystalgfn.gfn.rollout import rollout
from crystalgfn.policy.network import PolicyConfig, PolicyNetwork
from crystalgfn.typing import Mask

SPACES = {
    "plain": {"elements": ["Li", "Na", "Fe", "Cu", "O", "S", "Cl"], "n_elements": (2, 4), "n_atoms": (2, 12)},
    "known valence": {"elements": ["Ni", "Co", "Fe", "La", "Se", "Te", "O"], "n_elements": (2, 4), "n_atoms": (2, 12)},
    "any valence": {"elements": ["Li", "Fe", "Mn", "O", "F"], "n_elements": (2, 4), "mixed_valence": True},
    "required": {"elements": ["Li", "Na", "K", "O", "S"], "n_elements": (3, 4), "required_elements": ["Na"]},
    "alloys": {"elements": ["Li", "Al", "Fe", "Cu", "O"], "n_elements": (3, 4), "n_atoms": (3, 9), "alloys": True},
    "no rule of charge": {"elements": ["Li", "Al", "O", "S"], "n_elements": (3, 4), "oxidation_states": None},
}


@pytest.mark.parametrize("name", SPACES)
def test_the_last_element_is_one_that_makes_the_crystal_neutral(name: str) -> None:
    space = cg.CrystalSpace(**SPACES[name])
    env = CrystalEnvironment(space)
    network = PolicyNetwork.for_environment(PolicyConfig(width=8, blocks=0), env)
    walked = rollout(env, network, 60, 0.0, None, torch.Generator().manual_seed(0))
    rule, zs, required = space.rules.composition.charge, space.element_numbers, space.rules.composition.required
    final, seen = walked.state, 0
    for turn in walked.steps:
        if not turn.head.startswith("element") or turn.options.last is None:
            continue
        ahead, i, n = turn.options.last, int(turn.head[7:]), len(zs)
        for row, action, may in zip(ahead.row.tolist(), ahead.action.tolist(), ahead.may, strict=True):
            at = int(turn.rows[row])
            slot, column = divmod(action, n)
            counts = turn.options.counts[row].tolist()
            taken = dict(zip(final.element[at, :i].tolist(), final.amount[at, :i].tolist(), strict=True))
            (left,) = _without(final.counts[at].tolist(), [*taken.values(), counts[slot]])
            for last in range(n):
                whole = {**taken, column: counts[slot], last: left}
                fits = (
                    len(whole) == i + 2
                    and last > column
                    and rule.neutral({zs[e]: count for e, count in whole.items()})
                    and required <= set(whole)
                )
                assert bool(may[last]) == fits, (name, whole)
                seen += 1
    assert seen > 100


def _without(counts: list[int], taken: list[int]) -> list[int]:
    left = [count for count in counts if count > 0]
    for count in taken:
        left.remove(count)
    return left


def test_a_pair_is_worth_the_sum_over_those_that_may_follow() -> None:
    env = CrystalEnvironment(cg.CrystalSpace(elements=["Li", "Na", "O"], n_elements=(2, 3), n_atoms=(2, 6)))
    head = PolicyNetwork.for_environment(PolicyConfig(width=8, blocks=0), env).heads["element"]
    torch.nn.init.normal_(head.last.query.weight)
    hidden, counts = torch.randn(2, 8), torch.tensor([[3, 1], [2, 0]])
    mask: Mask = torch.ones(2, 6, dtype=torch.bool)
    row, action = torch.tensor([0, 0, 1]), torch.tensor([1, 3, 0])
    may = torch.tensor([[False, True, True], [True, False, False], [False, False, True]])
    name = next(name for name in env.heads if name.startswith("element"))
    plain = head(hidden, env.heads[name], Discrete(mask, counts))
    more = head(hidden, env.heads[name], Discrete(mask, counts, Lookahead(row, action, may))) - plain
    column = torch.tensor(env.heads[name].elements) - 1
    # the first row's slots leave each other's count, the second row's slot the same count again
    score = [head.last(hidden[r : r + 1], torch.tensor([[left]]), column)[0, 0] for r, left in ((0, 1), (0, 3), (1, 2))]
    expected = torch.zeros(2, 6)
    for i, (r, a) in enumerate(zip(row, action, strict=True)):
        expected[r, a] = score[i][may[i]].logsumexp(0)
    torch.testing.assert_close(more, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("keep", [[False, True, True, True], [1, 2, 3]])
def test_a_selection_keeps_what_belongs_to_its_rows(keep: list) -> None:
    ahead = Lookahead(torch.tensor([0, 2, 2, 3]), torch.tensor([5, 6, 7, 8]), torch.eye(4, dtype=torch.bool))
    some = ahead.select(torch.tensor(keep), 4)
    assert some.row.tolist() == [1, 1, 2] and some.action.tolist() == [6, 7, 8]
    assert torch.equal(some.may, torch.eye(4, dtype=torch.bool)[1:])
