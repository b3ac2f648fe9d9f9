"""Labels of proposals: relaxed at fixed cell by a calculator, the lowest of several where atoms are placed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from crystalgfn.calculators.base import Calculator, calculate_energies
from crystalgfn.calculators.registry import DEFAULT, load_calculator
from crystalgfn.calculators.relaxation import relax
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.distances import CLOSEST
from crystalgfn.crystallography.standardize import Cell, crystals_of, nearest_ratio
from crystalgfn.data.standard_cells import Parents
from crystalgfn.fitting.template_cells import TemplateCells
from crystalgfn.sampling.sampler import Sampler
from crystalgfn.space.space import CrystalSpace
from crystalgfn.structures.ground_state import MAX_FORCE, GroundState, apart, lowest_structures
from scripts.maintain.labels.proposals import Swaps, permutations, strained_copies

STEPS, N_CANDIDATES = 40, 8

TOO_HIGH = 4.0
"""eV/atom above the unstrained crystal; strained ones beyond are not relaxed."""


@dataclass(frozen=True, kw_only=True)
class RawLabel:
    """One labelled crystal.

    Attributes:
        space_group: 1-230.
        composition: atoms per primitive cell, [118].
        lattice: canonical, [6].
        energy: the calculator's total energy in eV/atom at that lattice, atoms relaxed.
        change: energy against the unstrained real crystal, NaN where there is none.
        base: formation energy of that crystal.
        converged: whether no force is above `MAX_FORCE`.
        candidates: structures that the energy is the lowest of.
        given: how many of these came from a real crystal (strained, swapped or a template).
        placed: whether the lowest was placed, by the refiner or at random, rather than given.
    """

    space_group: int
    composition: np.ndarray
    lattice: np.ndarray
    energy: float
    change: float
    base: float
    converged: bool
    candidates: int
    given: int
    placed: bool


class Labeller:
    """Makes labels, unit by unit; a unit depends on its number and the seed alone."""

    def __init__(
        self,
        parents: Parents,
        held: Parents,
        seed: int = 0,
        sampler: str = "formation-energy",
        calculator: Calculator | str = DEFAULT,
    ) -> None:
        """Make labels of four sources, and of strained copies of ``held``, which only serve to report.

        Args:
            parents: real crystals to start from.
            held: others.
            seed: of all draws.
            sampler: name or folder of the sampler whose draws are labelled.
            calculator: gives the energies, see `load_calculator`.
        """
        self.seed, self.sampler, self.calculator = seed, sampler, load_calculator(calculator)
        self.parents, self.held = parents, held
        self.orders = [np.random.default_rng((seed, k)).permutation(len(p)) for k, p in enumerate((parents, held))]
        self.space = CrystalSpace()
        self.swaps = Swaps(parents, self.space)
        self.templates = TemplateCells(parents)
        self.samplers: dict[str, Sampler] = {}
        #: source -> (share of the time, function of a unit's number)
        self.sources: dict[str, tuple[float, Callable[[int], list[RawLabel]]]] = {
            "strained": (0.40, lambda k: self._strained(self.parents, self.orders[0], k)),
            "swapped": (0.25, self._swapped),
            "placed": (0.08, self._placed),
            "proposed": (0.24, self._proposed),
            "held": (0.03, lambda k: self._strained(self.held, self.orders[1], k)),
        }

    def _strained(self, parents: Parents, order: np.ndarray, k: int, size: int = 8) -> list[RawLabel]:
        rng = np.random.default_rng((self.seed, 10, k))
        families = []
        for i in order[k * size : (k + 1) * size].tolist():
            cell = parents.cell(i)
            if cell is not None:
                families.append((parents.formation_energy(i), [cell, *strained_copies(cell, rng)]))
        return strained_labels(families, self.calculator)

    def _swapped(self, k: int, size: int = 6) -> list[RawLabel]:
        rng = np.random.default_rng((self.seed, 20, k))
        cells = []
        while len(cells) < size:
            parent = self.parents.cell(int(rng.integers(len(self.parents))))
            cell = parent and self.swaps.draw(parent, rng)
            if cell is not None:
                cells.append(cell)
        return self._lowest(crystals_of(cells), [permutations(cell) for cell in cells], (self.seed, k, 2))

    def _placed(self, k: int, size: int = 6) -> list[RawLabel]:
        """Random groups and compositions, in cells of about the right volume."""
        rng = np.random.default_rng((self.seed, 30, k))
        if "random" not in self.samplers:
            self.samplers["random"] = Sampler.untrained(self.space, seed=self.seed)
        drawn = self.samplers["random"].sample(size, seed=int(rng.integers(2**31)))
        wanted = np.array([self.swaps.expected_volume(row) for row in drawn.composition.numpy()])
        factor = torch.from_numpy(wanted * np.exp(0.12 * rng.standard_normal(size))) / (drawn.volume / drawn.centring)
        lattice = drawn.lattice.clone()
        lattice[:, :3] *= factor[:, None] ** (1 / 3)
        return self._draws(Crystals(drawn.space_group, drawn.composition, lattice), (self.seed, k, 3))

    def _proposed(self, k: int, size: int = 6) -> list[RawLabel]:
        """Draws of the sampler."""
        rng = np.random.default_rng((self.seed, 40, k))
        if "trained" not in self.samplers:
            self.samplers["trained"] = Sampler.load(self.sampler)
        drawn = self.samplers["trained"].sample(size, seed=int(rng.integers(2**31)))
        return self._draws(drawn, (self.seed, k, 4))

    def _draws(self, drawn: Crystals, seed: tuple[int, int, int]) -> list[RawLabel]:
        drawn = Crystals(drawn.space_group, drawn.composition, drawn.lattice.double())
        return self._lowest(drawn, [self.templates.cells(drawn[i]) for i in range(len(drawn))], seed)

    def _lowest(self, crystals: Crystals, given: Sequence[list[Cell]], seed: tuple[int, ...]) -> list[RawLabel]:
        """Labels of the crystals for which there is a structure."""
        number = int(np.random.default_rng(seed).integers(2**31))
        found = lowest_structures(crystals, given, N_CANDIDATES, STEPS, number, calculator=self.calculator)
        return [
            RawLabel(
                space_group=int(crystals.space_group[i]),
                composition=crystals.composition[i].numpy(),
                lattice=crystals.lattice[i].double().numpy(),
                energy=one.energy,
                change=np.nan,
                base=np.nan,
                converged=one.converged,
                candidates=one.candidates,
                given=one.given,
                placed=one.placed,
            )
            for i, one in enumerate(found)
            if isinstance(one, GroundState)
        ]


def strained_labels(
    families: Sequence[tuple[float, list[Cell]]], calculator: Calculator | str = DEFAULT
) -> list[RawLabel]:
    """Labels of strained copies.

    Args:
        families: formation energy (eV/atom) of a real crystal, and its cell followed by the strained ones.
        calculator: gives the energies, see `load_calculator`.
    """
    cells = [cell for _, family in families for cell in family]
    sizes = [len(family) for _, family in families]
    real = np.repeat(np.cumsum([0, *sizes[:-1]]), sizes).astype(int)  # place of each one's unstrained crystal
    structures = [cell.structure() for cell in cells]
    potential = load_calculator(calculator)
    start = calculate_energies(potential, structures)
    low = start - start[real] < TOO_HIGH
    good = [j for j in np.flatnonzero(low).tolist() if nearest_ratio(structures[j]) >= CLOSEST]
    relaxed = relax([structures[j] for j in good], potential, STEPS, max_force=MAX_FORCE)
    found = dict(zip(good, relaxed, strict=True))
    bases = np.repeat([base for base, _ in families], sizes)
    labels = []
    for j, one in found.items():
        rest = found.get(int(real[j]))
        if j == real[j] or rest is None or not rest.converged or not apart(one):
            continue
        change, cell = one.energy - rest.energy, cells[j]
        labels.append(
            RawLabel(
                space_group=cell.space_group,
                composition=cell.composition,
                lattice=cell.canonical,
                energy=one.energy,
                change=change,
                base=float(bases[j]),
                converged=one.converged,
                candidates=1,
                given=1,
                placed=False,
            )
        )
    return labels
