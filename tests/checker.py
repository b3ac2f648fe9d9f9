"""An independent, slow judge of single crystals: pymatgen and pyxtal themselves, brute force, none of our tables."""

import itertools
from functools import cache

import numpy as np
from pymatgen.core import Element
from pymatgen.symmetry.groups import SpaceGroup
from pyxtal.symmetry import Group

CENTRING = {"P": 1, "A": 2, "B": 2, "C": 2, "I": 2, "R": 3, "F": 4}


@cache
def charges(symbol: str, count: int) -> tuple[frozenset[int], frozenset[int]]:
    """All total charges of ``count`` atoms with one state for all, and with two consecutive states of one sign."""
    states = sorted({s for s in Element(symbol).icsd_oxidation_states if s})
    one = frozenset(s * count for s in states)
    two = frozenset(
        m * s + (count - m) * t for s, t in itertools.pairwise(states) if s * t > 0 for m in range(1, count)
    )
    return one, two


def neutral(counts: dict[str, int]) -> bool:
    """Neutral by ICSD states, at most one element split ("adjacent"); pure elements are neutral."""
    if len(counts) == 1:
        return True
    items = list(counts.items())
    if 0 in sums([charges(*item)[0] for item in items]):
        return True
    return any(
        0 in sums([charges(*item)[1 if i == split else 0] for i, item in enumerate(items)])
        for split in range(len(items))
    )


def sums(sets: list[frozenset[int]]) -> set[int]:
    out = {0}
    for values in sets:
        out = {a + b for a in out for b in values}
    return out


@cache
def positions(number: int) -> tuple[tuple[int, bool], ...]:
    """(multiplicity in the primitive cell, whether it has a free parameter) of pyxtal's Wyckoff positions."""
    group = Group(number)
    centring = CENTRING[group.symbol[0]]
    return tuple((wp.multiplicity // centring, wp.get_dof() > 0) for wp in group)


@cache
def packs(number: int, counts: tuple[int, ...]) -> bool:
    """Whether the counts can be laid on Wyckoff positions, those without a free parameter at most once."""
    fixed = tuple(sorted(m for m, free in positions(number) if not free))
    free = tuple(sorted({m for m, is_free in positions(number) if is_free}))

    @cache
    def fill(n: int) -> bool:
        return n == 0 or any(m <= n and fill(n - m) for m in free)

    def place(left: tuple[int, ...], available: tuple[int, ...]) -> bool:
        if not left:
            return True
        tried = set()
        for size in range(len(available) + 1):
            for chosen in itertools.combinations(range(len(available)), size):
                used = tuple(available[i] for i in chosen)
                if sum(used) > left[0] or used in tried:
                    continue
                tried.add(used)
                rest = tuple(m for i, m in enumerate(available) if i not in chosen)
                if fill(left[0] - sum(used)) and place(left[1:], rest):
                    return True
        return False

    return place(counts, fixed)


@cache
def crystal_system(number: int) -> str:
    return SpaceGroup.from_int_number(number).crystal_system


def lattice_matches(number: int, cell: np.ndarray) -> bool:
    """Whether lengths and angles obey the crystal system of the group (R groups on hexagonal axes)."""
    a, b, c, alpha, beta, gamma = cell
    system = crystal_system(number)
    same = np.isclose

    def right(*angles: float) -> bool:
        return all(same(x, 90, atol=1e-6) for x in angles)

    return {
        "triclinic": True,
        "monoclinic": right(alpha, gamma) and beta >= 90 - 1e-9,
        "orthorhombic": right(alpha, beta, gamma),
        "tetragonal": right(alpha, beta, gamma) and same(a, b, rtol=1e-9),
        "trigonal": right(alpha, beta) and same(gamma, 120) and same(a, b, rtol=1e-9),
        "hexagonal": right(alpha, beta) and same(gamma, 120) and same(a, b, rtol=1e-9),
        "cubic": right(alpha, beta, gamma) and same(a, b, rtol=1e-9) and same(b, c, rtol=1e-9),
    }[system]


def volume(cell: np.ndarray) -> float:
    """Volume from the metric tensor."""
    lengths, cosines = cell[:3], np.cos(np.radians(cell[3:]))
    metric = np.outer(lengths, lengths)
    for (i, j), cosine in zip(((1, 2), (0, 2), (0, 1)), cosines, strict=True):
        metric[i, j] *= cosine
        metric[j, i] *= cosine
    return float(np.sqrt(np.linalg.det(metric)))


def judge(number: int, counts: dict[str, int], cell: np.ndarray) -> list[str]:
    """What is wrong with a crystal of the default space; empty if nothing."""
    wrong = []
    atoms = sum(counts.values())
    if not (1 <= len(counts) <= 5 and 1 <= atoms <= 20):
        wrong.append(f"{len(counts)} elements, {atoms} atoms")
    if not neutral(counts):
        wrong.append("charged")
    if not packs(number, tuple(sorted(counts.values(), reverse=True))):
        wrong.append("does not pack")
    if not lattice_matches(number, cell):
        wrong.append("lattice")
    if not all(2 - 1e-9 <= x <= 40 + 1e-9 for x in cell[:3]) or not all(45 <= x <= 140 for x in cell[3:]):
        wrong.append("lengths or angles")
    per_atom = volume(cell) / (atoms * CENTRING[Group(number).symbol[0]])
    if not 4 - 1e-6 <= per_atom <= 60 + 1e-6:
        wrong.append(f"volume per atom {per_atom}")
    return wrong
