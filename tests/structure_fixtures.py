"""Crystals to place: known ones, and random ones of every group.

``crystalgfn`` is imported inside the functions: typeguard's import hook checks only what is imported later.
"""

import numpy as np
import pytest
import torch


def crystals_of(*rows):
    """Crystals of (group, {symbol: atoms per primitive cell}, (a, b, c, alpha, beta, gamma))."""
    from crystalgfn.crystallography import elements
    from crystalgfn.crystallography.crystals import Crystals

    composition = torch.zeros(len(rows), 118, dtype=torch.int64)
    for i, (_, counts, _) in enumerate(rows):
        for symbol, count in counts.items():
            composition[i, elements.NUMBER[symbol] - 1] = count
    number = torch.tensor([row[0] for row in rows])
    return Crystals(number, composition, torch.tensor([row[2] for row in rows], dtype=torch.float64))


def cell_of(space_group, volume, rng):
    """A random conventional cell of this volume (Å3) with the metric of the group's lattice system."""
    from crystalgfn.crystallography import space_groups

    x, y = np.exp(rng.uniform(-0.35, 0.35, 2))
    alpha, beta, gamma = rng.uniform(62, 85), rng.uniform(95, 110), rng.uniform(62, 85)
    system = space_groups.CRYSTAL_LATTICE_SYSTEMS[space_groups.CRYSTAL_LATTICE_SYSTEM[space_group - 1]]
    shape = {
        "triclinic": (1, x, y, alpha, rng.uniform(62, 85), gamma),
        "monoclinic": (1, x, y, 90, beta, 90),
        "orthorhombic": (1, x, y, 90, 90, 90),
        "tetragonal": (1, 1, x, 90, 90, 90),
        "cubic": (1, 1, 1, 90, 90, 90),
    }.get(system, (1, 1, x * 1.3, 90, 90, 120))
    ca, cb, cg = np.cos(np.radians(shape[3:]))
    unit = np.prod(shape[:3]) * np.sqrt(1 - ca**2 - cb**2 - cg**2 + 2 * ca * cb * cg)
    scale = (volume / unit) ** (1 / 3)
    return (*(scale * length for length in shape[:3]), *shape[3:])


@pytest.fixture
def make_crystals():
    """Crystals of (group, counts by symbol, cell) rows."""
    return crystals_of


@pytest.fixture(scope="session")
def random_crystals():
    """One crystal of every group that at most 20 atoms realise, with 12 to 25 Å3 an atom."""
    from crystalgfn.crystallography import space_groups
    from crystalgfn.crystallography.realizable import REALISABLE, patterns

    rng = np.random.default_rng(0)
    symbols = ["Li", "O", "Fe", "Na", "Cl", "Ti", "S", "Mg", "F", "Si", "Ba", "N"]
    rows = []
    for number in range(1, 231):
        choices = np.flatnonzero(REALISABLE[number - 1])
        if len(choices):
            counts = [int(c) for c in patterns()[rng.choice(choices)] if c]
            chosen = rng.choice(symbols, len(counts), replace=False)
            volume = rng.uniform(12, 25) * sum(counts) * space_groups.CENTRING[number - 1]
            rows.append((number, dict(zip(chosen.tolist(), counts, strict=True)), cell_of(number, volume, rng)))
    return crystals_of(*rows)


@pytest.fixture(scope="session")
def built(random_crystals, once):
    """The structures of ``random_crystals``."""
    from crystalgfn.structures.build import build_structures

    return once("built", lambda: build_structures(random_crystals, refiner=None, seed=1))


def orbits_in(space_group, rng, n=3, species=(3, 8, 26, 17, 56)):
    """A random `OrbitStructure` of a group: at most ``n`` orbits at random coordinates, at least one free if any is."""
    from crystalgfn.crystallography import space_groups
    from crystalgfn.crystallography.orbits import Orbit, OrbitStructure

    positions = [p for p in space_groups.WYCKOFF[space_group - 1] if p.primitive_multiplicity <= 12]
    positions = positions or list(space_groups.WYCKOFF[space_group - 1][:1])
    free = [p for p in positions if p.free]
    chosen = [free[rng.integers(len(free))]] if free else []
    for _ in range(n - len(chosen)):
        position = positions[rng.integers(len(positions))]
        if position.free or position not in chosen:
            chosen.append(position)
    generic = [0.043, 0.087, 0.139, 0.187, 0.213, 0.291, 0.319, 0.361, 0.417, 0.463, 0.561, 0.689, 0.793, 0.877, 0.931]
    values = [rng.choice(generic, 3, replace=False) for _ in chosen]  # away from special points, and from each other
    orbits = [Orbit(p.letter, int(rng.choice(species)), tuple(v.tolist())) for p, v in zip(chosen, values, strict=True)]
    atoms = sum(p.multiplicity for p in chosen)
    return OrbitStructure(space_group, cell_of(space_group, 15.0 * atoms, rng), tuple(orbits))


def cif_of(structure, space_group):
    """A CIF of a pymatgen structure, which is in the package's setting of its group."""
    from crystalgfn.crystallography.site_assignment import orbits_of
    from crystalgfn.crystallography.standardize import conventional
    from crystalgfn.structures.writers import cif

    numbers = np.array([site.specie.Z for site in structure])
    lattice = np.array(structure.lattice.parameters)
    return cif(orbits_of(conventional(space_group, lattice, structure.frac_coords, numbers)))


@pytest.fixture(scope="session")
def random_orbits():
    """One random `OrbitStructure` of every group."""
    rng = np.random.default_rng(3)
    return [orbits_in(number, rng) for number in range(1, 231)]
