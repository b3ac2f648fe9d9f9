"""What the policy sees of the room in a cell, against pymatgen; and networks that were trained before it was seen."""

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice

import crystalgfn as cg
from crystalgfn.crystallography import elements, space_groups
from crystalgfn.envs.crystal import KNOTS, OFFSET, ROOM, CrystalEnvironment
from crystalgfn.gfn.rollout import teacher_forced
from crystalgfn.policy.network import PolicyConfig, PolicyNetwork
from crystalgfn.sampling.sampler import Sampler

SMALL = PolicyConfig(width=16, blocks=1, components=2)
CENTRED = {
    "A": [[0, 0.5, 0.5]], "C": [[0.5, 0.5, 0]], "I": [[0.5] * 3], "F": [[0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
    "R": [[2 / 3, 1 / 3, 1 / 3], [1 / 3, 2 / 3, 2 / 3]], "P": [],
}  # fmt: skip


def minima(cell, symbol):
    """Lengths of three independent translations, the shortest first, by enumeration."""
    points = np.array([[0, 0, 0], *CENTRED[symbol[0]]])
    steps = np.stack(np.meshgrid(*[range(-2, 3)] * 3, indexing="ij"), -1).reshape(-1, 1, 3)
    vectors = (steps + points).reshape(-1, 3) @ cell.matrix
    found = []
    for vector in vectors[np.argsort(np.linalg.norm(vectors, axis=1))]:
        if np.linalg.matrix_rank([*found, vector], tol=1e-6) > len(found):
            found.append(vector)
    return np.linalg.norm(found, axis=1)


def test_the_room_in_a_finished_shape():
    """Between two knots the hat functions give back the logarithms."""
    space = cg.CrystalSpace(n_atoms=(2, 12), relative_volume=(0.5, 3))
    crystals = Sampler.untrained(space, policy=SMALL).sample(150, seed=1)
    turn = next(t for t in teacher_forced(CrystalEnvironment(space), crystals, 150).steps if t.head == "volume")
    index, weight = turn.observation.index, turn.observation.weight.double()
    place = index - OFFSET["room"]
    here = (place >= 0) & (place < len(ROOM) * len(KNOTS)) & (weight >= 0)
    for row, i in enumerate(turn.rows.tolist()):
        seen = torch.zeros(len(ROOM) * len(KNOTS), dtype=torch.float64)
        seen.index_add_(0, place[row][here[row]], weight[row][here[row]])
        seen = seen.reshape(len(ROOM), len(KNOTS))
        assert torch.allclose(seen.sum(1), torch.ones(len(ROOM), dtype=torch.float64))
        counts = crystals.composition[i].numpy()
        volume, symbol = counts @ elements.VOLUME[: len(counts)], space_groups.SYMBOL[int(crystals.space_group[i]) - 1]
        cell = Lattice.from_parameters(*crystals.lattice[i].tolist())
        cell = cell.scale(volume * space_groups.CENTRING[int(crystals.space_group[i]) - 1])
        lengths = minima(cell, symbol)
        size, largest = (volume / counts.sum()) ** (1 / 3), elements.VOLUME[: len(counts)][counts > 0].max() ** (1 / 3)
        expected = [np.prod(cell.abc) ** (1 / 3) / size, *(lengths / size), lengths[0] / largest]
        expected = np.log(expected).clip(float(KNOTS[0]), float(KNOTS[-1]))
        assert (seen @ KNOTS).numpy() == pytest.approx(expected, abs=1e-5)


def test_weights_from_before_a_feature_do_not_see_it():
    space = cg.CrystalSpace(n_atoms=(2, 6))
    env = CrystalEnvironment(space)
    network = PolicyNetwork.for_environment(SMALL, env)
    state = {name: value + 0.1 for name, value in network.state_dict().items()}
    cut = {**state, "embedding.weight": state["embedding.weight"][: OFFSET["room"]]}
    network.load_state_dict(cut)
    assert (network.embedding.weight[: OFFSET["room"]] == state["embedding.weight"][: OFFSET["room"]]).all()
    assert (network.embedding.weight[OFFSET["room"] :] == 0).all()
    crystals = Sampler.untrained(space, policy=SMALL).sample(20, seed=2)
    assert torch.isfinite(Sampler(space, network).log_prob(crystals)).all()


def test_each_row_sees_what_it_would_see_alone():
    """The moves up to the group look at each kind of row once."""
    space = cg.CrystalSpace(n_atoms=(2, 6))
    crystals = Sampler.untrained(space, policy=SMALL).sample(60, seed=3)
    env = CrystalEnvironment(space)
    steps = {one.head: one for one in teacher_forced(env, crystals, 60).steps}
    shared = {head: one for head, one in steps.items() if one.observation.inverse is not None}
    assert "group" in shared
    for i in range(len(crystals)):
        for alone in teacher_forced(env, crystals[i : i + 1], 1).steps:
            if alone.head in shared:
                seen = shared[alone.head].observation
                at = seen.inverse[shared[alone.head].rows == i]
                assert torch.equal(seen.index[at], alone.observation.index)
                assert torch.equal(seen.weight[at], alone.observation.weight)
