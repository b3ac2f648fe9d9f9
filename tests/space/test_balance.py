"""Packed sets of charges against sums over the oxidation states, one at a time."""

import itertools
import random

import pytest
import torch

import crystalgfn as cg
from crystalgfn.space.charge_lookahead import ChargeSets

ELEMENTS = ["O", "S", "Fe", "Mn", "Na", "Cl", "Cu"]


def reached(rule, moves, half):
    """Charges within the half width after each of the moves (Z, count), without and with a split element."""
    whole, mixed = {0}, set()
    for z, count in moves:
        plain, split = rule.plain(z, count), rule.split(z, count)
        new = {q + d for q, d in itertools.product(whole, plain)}
        mixed = {q + d for q, d in itertools.product(mixed, plain)} | {
            q + d for q, d in itertools.product(whole, split)
        }
        whole, mixed = ({q for q in found if abs(q) <= half} for found in (new, mixed))
    return whole, mixed


@pytest.mark.parametrize("alloys", [False, True])
@pytest.mark.parametrize("n_atoms", [20, 80])
@pytest.mark.parametrize("mixed_valence", [False, "known", "adjacent", True])
@pytest.mark.unchecked
def test_sets_of_charges_are_the_sums_over_the_states(mixed_valence, n_atoms, alloys):
    space = cg.CrystalSpace(
        elements=ELEMENTS, n_elements=(1, 4), n_atoms=(1, n_atoms), atoms_per_element=(1, min(n_atoms, 24)),
        mixed_valence=mixed_valence, alloys=alloys,
    )  # fmt: skip
    table, rule, zs = space.tables.composition, space.rules.composition.charge, space.element_numbers
    sets, half = ChargeSets(table, alloys, torch.device("cpu")), table.half_width
    assert (n_atoms > 20) == (table.finish.shape[1] > 2)  # one or two words, and several
    draw = random.Random(0)
    paths = [sorted(draw.sample(range(len(zs)), 3)) for _ in range(60)]
    counts = [[draw.randint(1, min(n_atoms, 24)) for _ in range(3)] for _ in paths]
    charge = sets.initial.expand(len(paths), -1, -1)
    for depth in range(3):
        column, count = torch.tensor(paths)[:, depth], torch.tensor(counts)[:, depth]
        charge = sets.after(charge, column, count)
        assert bool((charge >= 0).all())
        bits = sets.unpack(charge)
        for row, (path, number) in enumerate(zip(paths, counts, strict=True)):
            moves = [(zs[e], c) for e, c in zip(path[: depth + 1], number, strict=False)]
            for found, expected in zip(bits[row, :, :-1], reached(rule, moves, half), strict=True):
                assert {q - half for q in found.nonzero().flatten().tolist()} == expected
            metals = all(space.rules.composition.metal[e] for e in path[: depth + 1])
            assert bits[row, :, -1].tolist() == [False, alloys and metals]
