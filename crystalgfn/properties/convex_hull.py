"""The convex hull of reference entries: the lowest energy per atom that mixtures of them reach at a composition."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import combinations
from typing import Any, Self

import torch

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import DataError
from crystalgfn.properties.energy_scale import scale_shift
from crystalgfn.properties.hull_entries import Phase, compositions, read_entries
from crystalgfn.typing import Floats, Fractions, RowFractions, RowValues, Values

BASE = 119  # atomic numbers of a chemical system are the digits of its key
MOST = 9  # elements of an entry at most: so many digits fit into 63 bits
CELLS = 400_000  # compositions times entries in one tableau, so that it stays in the processor's cache
TOLERANCE = 1e-9  # eV/atom


#: Smaller shares of the atoms are rounding.
SMALLEST_SHARE = 1e-6


class ExactHull:
    """Formation energy of the most stable mixture at a composition, eV/atom, from entries that are given.

    At composition c (atomic fractions) it is ``min Σ x_i E_i`` over amounts x of the entries and of the elements
    (energy 0) with ``Σ x_i c_i = c``: what pymatgen's ``PhaseDiagram.get_hull_energy_per_atom`` says. Here whole
    batches are solved at once by the simplex method, each composition with the entries of its own chemical system, so
    that 10,000 compositions take a fraction of a second and a reward may use it while training.

    Args:
        composition: atoms per formula unit of each entry, [E, 118].
        energies: formation energy of each entry, eV/atom, [E]; the elements' own are 0.
        identifiers: names of the entries, [E], which `decompose` gives back; none without.

    Attributes:
        n_entries: entries that were given.
        known_elements: atomic numbers that an entry holds, stable or not.

    Raises:
        DataError: no entry; an energy that is not finite; an entry without atoms or with more than nine elements.
    """

    def __init__(
        self, composition: RowFractions, energies: RowValues, identifiers: Sequence[str] | None = None
    ) -> None:
        composition, energies = composition.double().cpu(), energies.double().cpu()
        _check(composition, energies)
        self.n_entries = len(energies)
        self.known_elements = frozenset(((composition > 0).any(0).nonzero().flatten() + 1).tolist())
        fractions = composition / composition.sum(1, keepdim=True)
        # Entries of positive energy lie above the mixture of their elements, and of one composition the lowest counts.
        order = torch.argsort(energies, stable=True)
        order = order[energies[order] < -TOLERANCE]
        fractions, energies = fractions[order], energies[order]
        _, group = (fractions * 1e9).round().unique(dim=0, return_inverse=True)
        first = torch.full((int(group.max()) + 1 if len(group) else 0,), len(group))
        first.scatter_reduce_(0, group, torch.arange(len(group)), "amin")
        self._index(fractions[first], energies[first], order[first])
        # What lies above the hull of all can never be part of a mixture: fewer columns to look at later.
        kept = self._energies <= self._solve(self._fractions) + TOLERANCE
        self._index(self._fractions[kept], self._energies[kept], self._rows[kept])
        self._composition = composition[self._rows]
        self._identifiers = [str(identifiers[row]) if identifiers else "" for row in self._rows.tolist()]

    def _index(self, fractions: torch.Tensor, energies: torch.Tensor, rows: torch.Tensor) -> None:
        """Sort the entries by chemical system."""
        keys = _keys(_elements(fractions > 0))
        order = torch.argsort(keys, stable=True)
        self._fractions, self._energies, self._rows = fractions[order], energies[order], rows[order]
        self._systems, self._sizes = keys[order].unique_consecutive(return_counts=True)
        self._starts = self._sizes.cumsum(0) - self._sizes
        self._widest = int((fractions > 0).sum(1).max()) if len(fractions) else 0

    @property
    def n_stable(self) -> int:
        """Compounds on the hull."""
        return len(self._energies)

    @classmethod
    def from_entries(
        cls,
        entries: Any,
        formula: str = "formula",
        energy: str = "formation_energy_per_atom",
        skip: bool = False,
        identifier: str = "material_id",
        scale: str = "mp2020",
    ) -> Self:
        """A hull from a Parquet or CSV file or several, a pandas table, a mapping, or an iterable of entries.

        Args:
            entries: the path of a Parquet or CSV file or a table, with one row an entry; a mapping formula -> energy;
                or pairs (formula, energy). Formation energies in eV/atom, all on one scale; several rows of one
                formula are allowed.
            formula: column of the formulas.
            energy: column of the formation energies.
            skip: leave out rows without an energy, instead of raising.
            identifier: column of the entries' names, if the table has it.
            scale: of the hull; entries are taken to be on the Materials Project's, "mp2020", and moved to it.

        Raises:
            DataError: no such file or column, a formula that cannot be read (with its row), an energy that is missing,
                no entry at all.
        """
        composition, energies, names = read_entries(entries, formula, energy, skip, identifier)
        return cls._on_scale(composition, energies, names, scale)

    @classmethod
    def _on_scale(cls, composition: RowFractions, energies: RowValues, names: Sequence[str] | None, scale: str) -> Self:
        return cls(composition, energies + scale_shift(composition, scale), names)

    def energy(self, crystals: Crystals | Sequence[str] | Fractions) -> Floats:
        """Energy of the hull at each composition, eV/atom, at most 0, float64 [B].

        Args:
            crystals: crystals, compositions (counts or fractions, [B, 118]) or formulas.

        Raises:
            DataError: a formula that cannot be read.
            InvalidCrystal: a composition without atoms or with a negative amount.
        """
        composition, device = compositions(crystals)
        return self._solve(composition / composition.sum(1, keepdim=True)).to(device)

    __call__ = energy

    def moments(self, crystals: Crystals | Sequence[str] | Fractions) -> tuple[Values, Values]:
        """Energy and standard error, which is 0: what the entries say is taken as exact."""
        energy = self.energy(crystals)
        return energy, torch.zeros_like(energy)

    def above(self, crystals: Crystals | Sequence[str] | Fractions, energies: Floats) -> Floats:
        """How far formation energies (eV/atom) lie above the hull; negative below it: a new stable phase, [B]."""
        hull = self.energy(crystals).to(energies)
        if energies.ndim and hull.shape != energies.shape:
            raise DataError(
                f"{len(hull)} compositions need energies of shape [{len(hull)}], not {list(energies.shape)}"
            )
        return energies - hull

    def decompose(self, crystals: Crystals | Sequence[str] | Fractions) -> list[list[Phase]]:
        """The phases that make up the most stable mixture at each composition, the largest share first.

        ``ExactHull.from_entries({"Li2O": -2.06}).decompose(["Li3O"])`` gives Li2O (share 0.75) and Li (0.25).
        """
        composition, _ = compositions(crystals)
        fractions = composition / composition.sum(1, keepdim=True)
        found: list[list[Phase]] = []
        for row in fractions:
            present = (row > 0).nonzero().flatten()
            starts, sizes = self._members(row[None] > 0)
            entries = _ranges(starts, sizes, int(sizes.sum()))
            _, basis, amounts = self._simplex(row[None], entries)
            phases = [
                self._phase(int(column), float(share), present, entries[0])
                for column, share in zip(basis[0], amounts[0], strict=True)
                if share > SMALLEST_SHARE
            ]
            found.append(sorted(phases, key=lambda phase: -phase.share))
        return found

    def _phase(self, column: int, share: float, present: torch.Tensor, entries: torch.Tensor) -> Phase:
        """What a column of a tableau stands for: an element, or an entry."""
        if column < len(present):
            return Phase(formula=elements.SYMBOLS[int(present[column])], share=share, energy=0.0)
        i = int(entries[column - len(present)])
        return Phase(
            formula=_formula(self._composition[i]),
            share=share,
            energy=float(self._energies[i]),
            identifier=self._identifiers[i],
        )

    def _members(self, present: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Start and number of the entries of each subsystem of each row, [rows, subsystems]."""
        keys = _subsystem_keys(_elements(present), self._widest)
        if not len(self._systems):
            return torch.zeros_like(keys), torch.zeros_like(keys)
        place = torch.searchsorted(self._systems, keys).clamp_max(len(self._systems) - 1)
        found = self._systems[place] == keys
        return self._starts[place], torch.where(found, self._sizes[place], 0)

    def _solve(self, fractions: torch.Tensor) -> torch.Tensor:
        """The hull at each row of fractions, in groups of the same number of elements and much the same of entries."""
        result = torch.zeros(len(fractions), dtype=torch.float64)
        arity = (fractions > 0).sum(1)
        for k in arity.unique().tolist():
            if k < 2:
                continue  # an element: 0
            rows = (arity == k).nonzero().flatten()
            starts, sizes = self._members(fractions[rows] > 0)
            totals, order = sizes.sum(1).sort()
            rows, starts, sizes = rows[order], starts[order], sizes[order]
            begin = int((totals == 0).sum())  # nothing but the elements: 0
            while begin < len(rows):
                # As many rows as fit with the widest of them.
                width = totals[begin:] * (1 + torch.arange(len(rows) - begin))
                end = begin + max(1, int((width <= CELLS).sum()))
                part = slice(begin, end)
                entries = _ranges(starts[part], sizes[part], int(totals[end - 1]))
                result[rows[part]] = self._simplex(fractions[rows[part]], entries)[0]
                begin = end
        return result

    def _simplex(self, fractions: torch.Tensor, entries: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Revised simplex for many compositions at once, from the elements as the first basis.

        Returns:
            Energies [n], and the mixtures: columns (elements, then entries) and their shares of the atoms, [n, k].
        """
        n, k = len(fractions), int((fractions[0] > 0).sum())
        present = _elements(fractions > 0)
        amounts = fractions.gather(1, present)
        # The elements may come back into a mixture that they had left, so they are columns too: [n, k + entries, k].
        columns = self._fractions[entries.clamp_min(0)[:, :, None], present[:, None, :]]
        columns = torch.cat([torch.eye(k, dtype=torch.float64).expand(n, k, k), columns], 1)
        costs = torch.where(entries >= 0, self._energies[entries.clamp_min(0)], torch.inf)
        costs = torch.cat([torch.zeros(n, k, dtype=torch.float64), costs], 1)
        # A little more of each element, all different, so that no mixture needs 0 of a phase and none can cycle. The
        # potentials found are those of the composition itself too, and there the energy is taken.
        x = amounts + 1e-7 * torch.rand(k, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        inverse = torch.eye(k, dtype=torch.float64).expand(n, k, k).clone()
        basis_costs = torch.zeros(n, k, dtype=torch.float64)
        energy = torch.zeros(n, dtype=torch.float64)
        basis, shares = torch.arange(k).repeat(n, 1), amounts.clone()
        rows = torch.arange(n)
        while len(rows):
            potentials = (basis_costs[:, None] @ inverse)[:, 0]
            reduced = costs - (columns @ potentials[:, :, None])[:, :, 0]
            gain, enters = reduced.min(1)
            done = gain >= -TOLERANCE
            if bool(done.any()):
                energy[rows[done]] = (potentials[done] * amounts[rows[done]]).sum(1)
                shares[rows[done]] = (inverse[done] @ amounts[rows[done]][:, :, None])[:, :, 0]
                going = ~done
                rows, columns, costs, x, inverse = (t[going] for t in (rows, columns, costs, x, inverse))
                basis_costs, enters = basis_costs[going], enters[going]
                if not len(rows):
                    break
            every = torch.arange(len(rows))
            direction = (inverse @ columns[every, enters][:, :, None])[:, :, 0]
            ratio = torch.where(direction > 1e-11, x / direction, torch.inf)
            step, leaves = ratio.min(1)
            x = x - step[:, None] * direction
            x[every, leaves] = step
            pivot = inverse[every, leaves] / direction[every, leaves][:, None]
            inverse = inverse - direction[:, :, None] * pivot[:, None]
            inverse[every, leaves] = pivot
            basis_costs[every, leaves] = costs[every, enters]
            basis[rows, leaves] = enters
        return energy, basis, shares


def _check(composition: torch.Tensor, energies: torch.Tensor) -> None:
    if not len(energies):
        raise DataError("a hull needs at least one entry, and there is none")
    if composition.shape != (len(energies), 118):
        raise DataError(f"{len(energies)} energies need compositions [{len(energies)}, 118], not {composition.shape}")
    if not bool(torch.isfinite(energies).all()):
        row = int((~torch.isfinite(energies)).nonzero()[0])
        raise DataError(f"the formation energy of entry {row} is {float(energies[row])}; it must be finite, eV/atom")
    n_elements = (composition > 0).sum(1)
    if bool(((n_elements < 1) | (n_elements > MOST) | (composition < 0).any(1)).any()):
        row = int(((n_elements < 1) | (n_elements > MOST) | (composition < 0).any(1)).nonzero()[0])
        raise DataError(
            f"entry {row} has {int(n_elements[row])} elements or a negative amount; an entry has one to {MOST} elements"
        )


def _elements(present: torch.Tensor) -> torch.Tensor:
    """Columns of the elements of each row, ascending, padded with -1 at the end, [rows, most]."""
    most = int(present.sum(1).max()) if len(present) else 0
    found = torch.full((len(present), most), -1)
    row, column = present.nonzero(as_tuple=True)
    place = present.long().cumsum(1)[row, column] - 1
    found[row, place] = column
    return found


def _formula(composition: torch.Tensor) -> str:
    """Reduced formula of amounts [118], which may be fractions of atoms."""
    whole = next(
        (n for n in range(1, 101) if (n * composition - (n * composition).round()).abs().max() < 1e-3 * n), 100
    )
    counts = (whole * composition).round().long()[None]
    return Crystals(torch.ones(1, dtype=torch.int64), counts, torch.ones(1, 6)).formulas()[0]


def _keys(elements: torch.Tensor) -> torch.Tensor:
    """One number a chemical system, whatever the order of its elements' columns ascending, padded with -1."""
    key = torch.zeros(len(elements), dtype=torch.int64)
    for column in elements.T:
        key = torch.where(column >= 0, key * BASE + column + 1, key)
    return key


@cache
def _subsets(k: int, most: int) -> tuple[tuple[int, ...], ...]:
    return tuple(chosen for size in range(2, min(k, most) + 1) for chosen in combinations(range(k), size))


def _subsystem_keys(elements: torch.Tensor, most: int) -> torch.Tensor:
    """Keys of the subsystems of two to ``most`` elements, [rows, subsystems]."""
    subsets = _subsets(elements.shape[1], most)
    if not subsets:
        return torch.zeros(len(elements), 0, dtype=torch.int64)
    keys = []
    for chosen in subsets:
        key = torch.zeros(len(elements), dtype=torch.int64)
        whole = torch.ones(len(elements), dtype=torch.bool)
        for i in chosen:
            key = key * BASE + elements[:, i] + 1
            whole &= elements[:, i] >= 0
        keys.append(torch.where(whole, key, -1))
    return torch.stack(keys, 1)


def _ranges(starts: torch.Tensor, sizes: torch.Tensor, width: int) -> torch.Tensor:
    """For each row the integers of all its ranges, padded with -1, [rows, width]."""
    totals = sizes.sum(1)
    filled = torch.arange(width) < totals[:, None]
    flat = starts.flatten().repeat_interleave(sizes.flatten())
    within = torch.arange(len(flat)) - (sizes.flatten().cumsum(0) - sizes.flatten()).repeat_interleave(sizes.flatten())
    found = torch.full((len(starts), width), -1)
    found[filled] = flat + within
    return found
