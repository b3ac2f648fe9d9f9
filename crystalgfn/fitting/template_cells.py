"""Real crystals whose positions others may take, to be labelled in their cells."""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property

import numpy as np
from scipy.optimize import linear_sum_assignment

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.standardize import Cell
from crystalgfn.data.standard_cells import Parents


class TemplateCells:
    """Real crystals whose positions others may take: same group, same counts, elements mapped by similarity."""

    def __init__(self, parents: Parents) -> None:
        self.parents = parents
        features = np.stack([2 * elements.ELECTRONEGATIVITY, 2 * elements.RADIUS], axis=1)
        self.distance = np.linalg.norm(features[:, None] - features[None], axis=2)

    @cached_property
    def _index(self) -> dict[tuple[int, tuple[int, ...]], list[int]]:
        index = defaultdict(list)
        for i, atoms in enumerate(one.known_atoms for one in self.parents.entries):
            counts = np.unique(atoms.numbers, return_counts=True)[1]
            index[atoms.space_group, tuple(sorted(counts.tolist()))].append(i)
        return index

    def cells(self, crystal: Crystals, most: int = 3, without: str | None = None) -> list[Cell]:
        """The atoms of a batch of one crystal on the positions of the ``most`` nearest templates, nearest first.

        No template may have the formula ``without`` (as `Cell.formula`).
        """
        group, target = int(crystal.space_group[0]), crystal.composition[0].numpy()
        counts = tuple(sorted(target[target > 0].tolist()))
        rows = self._index.get((group, counts), [])
        numbers = {i: self.parents.entries[i].known_atoms.numbers for i in rows}
        ranked = sorted((self._map(numbers[i], target) + (i,) for i in rows), key=_cost)
        found: list[Cell] = []
        for _, change, i in ranked:
            cell = self.parents.cell(i)
            # Only where the template's setting is the canonical one do its coordinates go with the crystal's lattice.
            if cell is None or cell.space_group != group or cell.formula == without:
                continue
            if np.abs(cell.canonical - cell.lattice).max() > 1e-3:
                continue
            moved = cell.with_numbers(np.array([change[z] for z in cell.numbers]))
            found.append(moved.with_lattice(crystal.lattice[0].double().numpy()))
            if len(found) == most:
                break
        return found

    def _map(self, numbers: np.ndarray, target: np.ndarray) -> tuple[float, dict[int, int]]:
        """The cheapest change of elements that keeps the counts, and its cost."""
        old, counts = np.unique(numbers, return_counts=True)
        new = np.flatnonzero(target) + 1
        cost = self.distance[np.ix_(old - 1, new - 1)] * counts[:, None]
        cost[counts[:, None] != target[new - 1][None]] = 1e6
        rows, columns = linear_sum_assignment(cost)
        return float(cost[rows, columns].sum()), dict(zip(old[rows].tolist(), new[columns].tolist(), strict=True))


def _cost(ranked: tuple[float, dict[int, int], int]) -> float:
    return ranked[0]
