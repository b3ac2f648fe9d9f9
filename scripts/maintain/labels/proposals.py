"""Crystals away from equilibrium, to be labelled: strained, and with swapped elements."""

from __future__ import annotations

import itertools
from math import inf, log

import numpy as np
import torch

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.orbits import cell_matrix
from crystalgfn.crystallography.standardize import Cell, crystals_of
from crystalgfn.data.standard_cells import Parents
from crystalgfn.fitting.perturbations import reshaped_lattice, stiffness
from crystalgfn.space.space import CrystalSpace

VOLUME_RANGE = (0.7, 1.5)

HIGHEST = 1.0  # eV/atom; strains that the rule of thumb (fitting.perturbations) puts above are not made

#: Of the strained copies of one crystal: standard deviation of ln volume (None: log-uniform) and of the shape.
COPIES = ((None, 0.0), (None, 0.04), (0.12, 0.08))

SIMILAR, ANY = 0.55, 0.15  # shares of elements replaced by a similar one, and by any

SWAP_TRIALS = 40

#: Of swapped crystals: standard deviation of ln volume and of the shape; the second pair for the share `WIDE` of them.
SWAP_STRAINS, WIDE = ((0.08, 0.03), (0.2, 0.08)), 0.3


def draw_volume_factor(volume_per_atom: float, std: float | None, rng: np.random.Generator) -> float:
    """A factor on the volume, log-normal or log-uniform, that costs at most `HIGHEST` by the rule of thumb."""
    low, high = np.log(VOLUME_RANGE)
    ends = largest_volume_change(volume_per_atom, HIGHEST)
    while True:
        change = rng.uniform(low, high) if std is None else std * rng.standard_normal()
        if max(low, ends[0]) <= change <= min(high, ends[1]):
            return float(np.exp(change))


def strain_lattice(
    space_group: int, lattice: np.ndarray, factor: float, shape: float, rng: np.random.Generator
) -> np.ndarray:
    """A lattice of the same system with the volume times ``factor``, [6].

    Args:
        space_group: 1-230.
        lattice: a, b, c in Å, alpha, beta, gamma in degrees, [6].
        factor: on the volume.
        shape: standard deviation of ln lengths and of free angles in radians.
        rng: of the draws.
    """
    stretch, turn = np.zeros(3), np.zeros(3)
    if shape > 0:
        stretch, turn = shape * rng.standard_normal(3), np.degrees(shape / 2 * rng.standard_normal(3))
    before, stretched, turned = (torch.as_tensor(x, dtype=torch.float64)[None] for x in (lattice, stretch, turn))
    change = torch.tensor([np.log(factor)], dtype=torch.float64)
    return reshaped_lattice(torch.tensor([space_group]), before, stretched, turned, change)[0].numpy()


def strained_copies(cell: Cell, rng: np.random.Generator) -> list[Cell]:
    """Strained copies, one for each of `COPIES`."""
    factors = [(draw_volume_factor(cell.volume_per_atom, std, rng), shape) for std, shape in COPIES]
    return [cell.with_lattice(strain_lattice(cell.space_group, cell.lattice, *pair, rng)) for pair in factors]


class Swaps:
    """Swaps elements of real crystals, such that the result is in a space."""

    def __init__(self, parents: Parents, space: CrystalSpace) -> None:
        self.space = space
        self.allowed = np.array(space.element_numbers)
        self.volumes = _element_volumes(parents)
        features = np.stack(
            [2 * elements.ELECTRONEGATIVITY, 2 * elements.RADIUS, elements.GROUP / 4, elements.ROW / 4], axis=1
        )
        self.distance = np.linalg.norm(features[:, None] - features[None], axis=2)

    def draw(self, cell: Cell, rng: np.random.Generator) -> Cell | None:
        """The crystal with other elements in a cell of about the right volume; None where no draw was in the space."""
        found = [self._swapped(cell, rng) for _ in range(SWAP_TRIALS)]
        found = [one for one in found if one is not None]
        if not found:
            return None
        inside = np.flatnonzero(self.space.contains(crystals_of(found)).numpy())
        return found[inside[0]] if len(inside) else None

    def expected_volume(self, composition: np.ndarray) -> float:
        """Å3 of the atoms of a composition [118], by volumes of the elements fitted to real crystals."""
        return float(composition @ self.volumes)

    def _swapped(self, cell: Cell, rng: np.random.Generator) -> Cell | None:
        present = np.unique(cell.numbers)
        new = {}
        for z in present:
            kind = rng.random()
            if kind < SIMILAR:
                weight = np.exp(-2 * self.distance[z - 1, self.allowed - 1]) * (self.allowed != z)
                new[z] = rng.choice(self.allowed, p=weight / weight.sum())
            else:
                new[z] = rng.choice(self.allowed) if kind < SIMILAR + ANY else z
        if len(set(new.values())) < len(new) or all(old == to for old, to in new.items()):
            return None
        other = cell.with_numbers(np.array([new[z] for z in cell.numbers]))
        ratio = self.expected_volume(other.composition) / self.expected_volume(cell.composition)
        std, shape = SWAP_STRAINS[int(rng.random() < WIDE)]
        factor = ratio * np.exp(std * rng.standard_normal())
        return other.with_lattice(strain_lattice(cell.space_group, cell.lattice, factor, shape, rng))


def permutations(cell: Cell, most: int = 4) -> list[Cell]:
    """The crystal and its copies in which elements with the same number of atoms change places, ``most`` in all."""
    present = np.unique(cell.numbers)
    counts = [cell.composition[z - 1] for z in present]
    found = []
    for order in itertools.permutations(range(len(present))):
        if all(counts[i] == counts[j] for i, j in enumerate(order)):
            change = {z: present[j] for z, j in zip(present, order, strict=True)}
            found.append(cell.with_numbers(np.array([change[z] for z in cell.numbers])))
        if len(found) == most:
            break
    return found


def _element_volumes(parents: Parents) -> np.ndarray:
    """Å3 of an atom of each element, by ridge regression of the cells' volumes; mean for elements not there, [118]."""
    known = [one.known_atoms for one in parents.entries]
    counts = np.stack([np.bincount(atoms.numbers, minlength=119)[1:119] for atoms in known]).astype(np.float64)
    volume = np.array([abs(np.linalg.det(cell_matrix(atoms.lattice.tolist()))) for atoms in known])
    atoms = counts.sum(1)
    shares, mean = counts / atoms[:, None], float((volume / atoms).mean())
    fitted = np.linalg.solve(shares.T @ shares + np.eye(118), shares.T @ (volume / atoms - mean))
    return np.maximum(mean + fitted, 2.0)


def largest_volume_change(volume_per_atom: float, energy: float) -> tuple[float, float]:
    """Between which ln(V / V0) the prior's energy of a change of volume alone is at most ``energy``, eV/atom.

    The inverse of E = 9/8 B V0 ((V0/V)^(2/3) - 1)²; without an upper end where the dilute limit costs less.
    """
    root = (energy / (9 / 8 * float(stiffness(torch.tensor([volume_per_atom], dtype=torch.float64))))) ** 0.5
    return -1.5 * log(1 + root), -1.5 * log(1 - root) if root < 1 else inf
