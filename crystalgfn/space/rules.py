"""What the constraints of a space put into the masks of its moves, and the tables of everything that may follow."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from crystalgfn.crystallography import elements, space_groups
from crystalgfn.errors import EmptySpace
from crystalgfn.space.automata import Automaton
from crystalgfn.space.cell import CellLimits, SumLimits, VolumeLimit, sum_limits
from crystalgfn.space.charge import ChargeRule
from crystalgfn.space.completions import CompletionTables
from crystalgfn.space.compositions import CompositionRules, CompositionTables, composition_tables
from crystalgfn.space.patterns import admitted
from crystalgfn.space.sum_lookahead import SumLookahead


@dataclass(frozen=True)
class SumRule:
    """A range of a sum over the atoms of a primitive cell: what an atom of each element adds [118], lowest, highest."""

    weights: np.ndarray
    low: float
    high: float


class MaskRules:
    """Collects the rules of all constraints (`Constraint.mask`); the look-ahead of the tables then answers for them.

    Everything is intersected: a constraint can only narrow. Numbers of atoms are those of the primitive cell.
    """

    def __init__(self) -> None:
        self.default_elements: Collection[int] = range(1, 119)
        self.required: set[int] = set()
        self.automata: list[Automaton] = []
        self.charge = ChargeRule(None, True, True)
        self.charge_name = "null"
        self.groups = np.ones(230, dtype=bool)
        self.volumes: list[VolumeLimit] = []
        self.sums: list[SumRule] = []
        self.pattern_rules: list[Callable[[np.ndarray], np.ndarray]] = []
        self.n_elements, self.n_atoms, self.atoms_per_element = ((1, 118), (1, 10**6), (1, 10**6))
        self.lengths, self.angles = (1e-3, 1e6), (0.0, 180.0)
        self.volume_per_atom = (1e-3, 1e6)
        self._offered: list[tuple[frozenset[int], str]] = []
        self._excluded: dict[int, str] = {}
        self._given: Callable[[int], Iterable[tuple[int, ...]]] | None = None
        self._needs: list[tuple[frozenset[int], str]] = []
        self._any: list[tuple[frozenset[int], str]] = []

    # ---- what a constraint may ask ----------------------------------------------------------------------------

    def only_elements(self, zs: Collection[int], why: str) -> None:
        """No other elements may occur; ``why`` names the constraint and its value."""
        self._offered.append((frozenset(zs), why))

    def no_elements(self, zs: Collection[int], why: str) -> None:
        """These elements may not occur."""
        for z in zs:
            self._excluded.setdefault(z, why)

    def require_elements(self, zs: Collection[int], why: str) -> None:
        """All of these elements occur."""
        self.required |= set(zs)
        self._needs.append((frozenset(zs), why))

    def require_any(self, zs: Collection[int], why: str) -> None:
        """At least one of these elements occurs."""
        own = frozenset(zs)
        self._any.append((own, why))
        self.read(Automaton(False, lambda seen, z, _: seen or z in own, lambda seen: seen))

    def only_patterns(self, patterns: Callable[[int], Iterable[tuple[int, ...]]]) -> None:
        """No other count patterns may be: a function of the largest number of atoms that lists them, falling."""
        before = self._given
        if before is None:
            self._given = patterns
        else:
            self._given = lambda n: set(before(n)) & set(patterns(n))

    def keep_patterns(self, rule: Callable[[np.ndarray], np.ndarray]) -> None:
        """A rule on count patterns [P, K], falling, filled up with zeros: bool [P], or [230, P] by space group."""
        self.pattern_rules.append(rule)

    def read(self, automaton: Automaton) -> None:
        """A rule on compositions that is read element by element."""
        self.automata.append(automaton)

    def limit_sum(self, weights: np.ndarray, low: float = 0.0, high: float = np.inf) -> None:
        """A sum over the atoms, with what each element adds, [118], lies in a range."""
        self.sums.append(SumRule(np.asarray(weights, dtype=np.float64), low, high))

    def only_groups(self, allowed: np.ndarray) -> None:
        """Which space groups may be, bool [230]."""
        self.groups = self.groups & allowed

    def limit_volume(self, limit: VolumeLimit) -> None:
        """The volume of the cell lies between multiples of a sum over its atoms."""
        self.volumes.append(limit)

    # ---- what the package asks ----------------------------------------------------------------------------------

    @cached_property
    def zs(self) -> tuple[int, ...]:
        """Atomic numbers that may occur, in the order in which they are drawn: anions first.

        Decreasing electronegativity, so that the last element drawn is the one that has to balance the charge.
        """
        offered = [zs for zs, _ in self._offered]
        numbers = set(frozenset.intersection(*offered)) if offered else set(self.default_elements)
        numbers -= set(self._excluded)
        return tuple(sorted(numbers, key=lambda z: (-elements.ELECTRONEGATIVITY[z - 1], z)))

    @cached_property
    def cell(self) -> CellLimits:
        """The limits on lengths and angles."""
        return CellLimits(self.lengths, self.angles)

    @cached_property
    def composition(self) -> CompositionRules:
        """The rules on compositions, by position in ``zs``."""
        zs = self.zs
        return CompositionRules(
            zs=zs,
            required=frozenset(zs.index(z) for z in self.required),
            metal=tuple(bool(elements.METAL[z - 1]) for z in zs),
            charge=self.charge,
            n_elements=self.n_elements,
            atoms_per_element=self.atoms_per_element,
            n_atoms=self.n_atoms,
            patterns=None if self._given is None else tuple(self._given(self.n_atoms[1])),
            automata=tuple(self.automata),
        )

    def check(self) -> None:
        """Refuse what contradicts itself at a glance, in words.

        Raises:
            EmptySpace: elements without a state, required ones that are excluded, more than fit.
        """
        self.check_states({z for zs, _ in (*self._offered, *self._needs) for z in zs})
        self._check_elements()
        self._check_counts()

    def _check_elements(self) -> None:
        for zs, why in self._needs:
            for z in zs:
                symbol = elements.SYMBOLS[z - 1]
                out = next((other for own, other in self._offered if z not in own), self._excluded.get(z))
                if out is not None:
                    raise EmptySpace(f"{why} needs {symbol}, which {out} rules out")
                if z not in self.zs:
                    raise EmptySpace(f"{why} needs {symbol}, which is not among the default elements; give elements")
        for zs, why in self._any:
            if not zs & set(self.zs):
                raise EmptySpace(f"{why}: none of these is among the elements of the space")
        if not self.zs:
            rules = ", ".join(dict.fromkeys([why for _, why in self._offered] + list(self._excluded.values())))
            raise EmptySpace(f"no element is left: {rules} have none in common")

    def _check_counts(self) -> None:
        (k_low, k_high), (low, high), (n_low, n_high) = self.n_elements, self.atoms_per_element, self.n_atoms
        if len(self.required) > k_high:
            raise EmptySpace(
                f"{len(self.required)} required elements do not fit into n_elements={list(self.n_elements)}"
            )
        most = min(k_high, len(self.zs))
        if most < k_low:
            raise EmptySpace(f"n_elements={list(self.n_elements)} needs more elements than the {most} of the space")
        if n_low > most * high:
            raise EmptySpace(
                f"n_atoms={list(self.n_atoms)} needs more than the {most} elements with "
                f"atoms_per_element={list(self.atoms_per_element)} can have, {most * high} atoms; loosen one of them"
            )
        if n_high < k_low * low:
            raise EmptySpace(
                f"n_atoms={list(self.n_atoms)} is less than n_elements={list(self.n_elements)} with "
                f"atoms_per_element={list(self.atoms_per_element)} need, {k_low * low} atoms; loosen one of them"
            )

    def check_states(self, zs: Collection[int]) -> None:
        """Refuse elements that no neutral compound can hold by the table of oxidation states.

        Raises:
            EmptySpace: names the first, and the tables that have it.
        """
        if self.charge.states is None:
            return
        for z in sorted(zs):
            if not self.charge.states[z - 1]:
                has = [name for name, table in elements.OXIDATION_STATES.items() if table[z - 1]]
                raise EmptySpace(
                    f"{elements.SYMBOLS[z - 1]} has no non-zero oxidation state in "
                    f"oxidation_states={self.charge_name}; "
                    + (f"tables that have it: {', '.join(has)}" if has else "no table has it")
                    + "; or give your own table, or oxidation_states=null for no charge rule"
                )


@dataclass(frozen=True, kw_only=True)
class SpaceTables:
    """What may be drawn.

    Attributes:
        composition: the tables of the compositions.
        allowed: [230, P] which count patterns each group admits: realisable, neutral, with a cell.
        below: [230, P + 1] patterns admitted before each pattern; differences count those in a range.
        sums: ranges of sums over the atoms that leave a cell, where not every composition does.
        completions: of these sums.
    """

    composition: CompositionTables
    allowed: np.ndarray
    below: np.ndarray
    sums: SumLimits | None = None
    completions: CompletionTables | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "completions": None}  # large, and made again where they are needed


def build_tables(rules: MaskRules) -> SpaceTables:
    """The tables of the rules of a space.

    Raises:
        InvalidSpace: limits that cannot be looked ahead within bounds on memory and work; what to loosen.
    """
    own = rules.composition
    rows = admitted(own.n_elements, own.atoms_per_element, own.n_atoms, len(own.zs), own.patterns)
    width = max((row[0] for row in rows), default=1)
    patterns = np.array([row + (0,) * (own.n_elements[1] - len(row)) for row in rows], dtype=np.int64)
    patterns = patterns.reshape(len(rows), own.n_elements[1])
    allowed = _with_cells(rules, patterns) if rows else np.zeros((230, 0), dtype=bool)
    kept = allowed.any(0)  # the others need no tables
    table = composition_tables(own, patterns[kept], width)
    allowed = allowed[:, kept] & table.first.any((1, 2))
    sums = completions = None
    if kept.any():
        cases = np.zeros((230, rules.n_atoms[1] + 1), dtype=bool)
        group, pattern = np.nonzero(allowed)
        cases[group, table.n_atoms[pattern]] = True
        sums = sum_limits(rules, cases)
        if sums is not None:
            lookahead = SumLookahead(own, table, sums.weights, torch.device("cpu"))
            completions = lookahead.tables
            allowed &= _sums_allowed(lookahead, table, allowed, sums)
    below = np.zeros((230, allowed.shape[1] + 1), dtype=np.int32)
    np.cumsum(allowed, axis=1, dtype=np.int32, out=below[:, 1:])
    return SpaceTables(composition=table, allowed=allowed, below=below, sums=sums, completions=completions)


def _with_cells(rules: MaskRules, patterns: np.ndarray) -> np.ndarray:
    """Which patterns each group admits by the rules on them and by the cells that are left, bool [230, P]."""
    allowed = np.repeat(rules.groups[:, None], len(patterns), axis=1)
    for rule in rules.pattern_rules:
        allowed &= rule(patterns)
    low, high = rules.volume_per_atom
    n_atoms = patterns.sum(1)
    for group in np.flatnonzero(rules.groups):
        atoms = n_atoms * int(space_groups.CENTRING[group])
        allowed[group] &= rules.cell.feasible(int(group) + 1, atoms * low, atoms * high)
    return allowed


def _sums_allowed(
    lookahead: SumLookahead, table: CompositionTables, allowed: np.ndarray, sums: SumLimits
) -> np.ndarray:
    """Which patterns have a composition with sums in the group's ranges, bool [230, P]."""
    group, pattern = np.nonzero(allowed)
    ranges = sums.ranges[group, table.n_atoms[pattern]].reshape(len(group), -1)
    cases, inverse = np.unique(np.column_stack([pattern, ranges]), axis=0, return_inverse=True)
    low, high = torch.from_numpy(cases[:, 1:].reshape(len(cases), -1, 2).copy()).unbind(-1)
    reach = lookahead.possible(torch.from_numpy(cases[:, 0].astype(np.int64)), low, high).numpy()
    out = np.zeros_like(allowed)
    out[group, pattern] = reach[inverse.reshape(-1)]
    return out
