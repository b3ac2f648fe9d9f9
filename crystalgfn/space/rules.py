"""What the constraints of a space put into the masks of its moves."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from crystalgfn.crystallography import elements
from crystalgfn.errors import EmptySpace
from crystalgfn.space.automata import Automaton
from crystalgfn.space.cell import CellLimits, VolumeLimit
from crystalgfn.space.charge import ChargeRule
from crystalgfn.space.compositions import CompositionRules


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
