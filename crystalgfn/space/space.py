"""The space of crystals: what may be drawn."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from crystalgfn.crystallography import elements as element_tables
from crystalgfn.crystallography import space_groups as groups
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import EmptySpace, InvalidSpace
from crystalgfn.space.cell import CellLimits
from crystalgfn.space.charge import MIXED_VALENCE, ChargeRule
from crystalgfn.space.compositions import CompositionRules
from crystalgfn.space.membership import checks
from crystalgfn.space.tables import SpaceTables, build_tables
from crystalgfn.typing import Booleans

TRIGONAL = ("trigonal-rhombohedral", "trigonal-hexagonal")
RANGES = (
    "n_elements", "atoms_per_element", "n_atoms", "lengths", "angles", "volume_per_atom", "density", "relative_volume",
)  # fmt: skip
LARGEST_Z = 83  # beyond bismuth everything is radioactive
RADIOACTIVE = ("Tc", "Pm")


@dataclass(frozen=True)
class CrystalSpace:
    """Hard constraints on crystals; validated, and refused when empty, at construction.

    Args:
        elements: symbols that may occur; None: Z <= 83 with a non-zero state in the table, no noble gases, Tc, Pm.
        required_elements: symbols that every crystal has.
        excluded_elements: symbols that no crystal has.
        n_elements: lowest and highest number of different elements.
        atoms_per_element: lowest and highest number of atoms of each element, in the primitive cell.
        n_atoms: lowest and highest number of atoms in the primitive cell.
        formula: fixes the composition up to the number of formula units, e.g. ``"LiFePO4"``.
        space_groups: ITA numbers; None: all 230.
        crystal_systems: names of crystal-lattice systems ("trigonal" means both of its lattices); None: all.
        point_symmetries: names of point symmetries; None: all.
        lengths: lowest and highest a, b, c in Å of the conventional cell.
        angles: lowest and highest alpha, beta, gamma in degrees, fixed angles included.
        volume_per_atom: lowest and highest in Å3.
        density: lowest and highest in g/cm3, or None.
        relative_volume: lowest and highest volume over what the atoms take up in known crystals
            (`crystalgfn.space.cell.relative_volume`), or None; 0.65 to 3 holds 99.8 % of MP-20.
        oxidation_states: "icsd", "common", "all", a table such as {"Fe": [2, 3]}, or None for no charge rule.
        mixed_valence: False, "adjacent" (at most one element split over two consecutive states of its table with the
            same sign) or True (any state for any atom).
        alloys: compositions of metals only count as neutral.

    Raises:
        InvalidSpace: a constraint that means nothing (the message names it).
        EmptySpace: constraints that leave no crystal (the message names the one that emptied it).
    """

    elements: tuple[str, ...] | None = None
    required_elements: tuple[str, ...] = ()
    excluded_elements: tuple[str, ...] = ()
    n_elements: tuple[int, int] = (1, 5)
    atoms_per_element: tuple[int, int] = (1, 20)
    n_atoms: tuple[int, int] = (1, 20)
    formula: str | None = None
    space_groups: tuple[int, ...] | None = None
    crystal_systems: tuple[str, ...] | None = None
    point_symmetries: tuple[str, ...] | None = None
    lengths: tuple[float, float] = (2.0, 40.0)
    angles: tuple[float, float] = (45.0, 140.0)
    volume_per_atom: tuple[float, float] = (4.0, 60.0)
    density: tuple[float, float] | None = None
    relative_volume: tuple[float, float] | None = None
    oxidation_states: Any = "icsd"
    mixed_valence: bool | str = "adjacent"
    alloys: bool = False

    def __post_init__(self) -> None:
        for name in ("elements", "required_elements", "excluded_elements"):
            self._set(name, _symbols(name, getattr(self, name)))
        for name, lowest in (("n_elements", 1), ("atoms_per_element", 1), ("n_atoms", 1)):
            self._set(name, _limits(name, getattr(self, name), lowest, whole=True))
        for name in ("lengths", "angles", "volume_per_atom", "density", "relative_volume"):
            if getattr(self, name) is not None or name not in ("density", "relative_volume"):
                self._set(name, _limits(name, getattr(self, name), 0.0, whole=False))
        if self.angles[1] > 180:
            raise InvalidSpace(f"angles={list(self.angles)}: angles end at 180 degrees")
        self._set("space_groups", _numbers(self.space_groups))
        self._set("crystal_systems", _names("crystal_systems", self.crystal_systems, groups.CRYSTAL_LATTICE_SYSTEMS))
        self._set("point_symmetries", _names("point_symmetries", self.point_symmetries, groups.POINT_SYMMETRIES))
        self._set("oxidation_states", _states(self.oxidation_states))
        _check_mixed_valence(self.mixed_valence)
        if not isinstance(self.alloys, bool):
            raise InvalidSpace(f"alloys={self.alloys!r}: choose true or false")
        self._check_elements()
        if not self.tables.allowed.any():
            raise EmptySpace(self._why_empty())

    # ---- what a user asks -------------------------------------------------------------------------------------

    def contains(self, crystals: Crystals) -> Booleans:
        """Whether crystals are in the space (relative 1e-3 on lengths and volumes, 0.01 degrees), bool [B]."""
        passed = torch.ones(len(crystals), dtype=torch.bool, device=crystals.device)
        for _, ok in checks(self, crystals):
            passed &= ok
        return passed

    def explain(self, crystals: Crystals) -> list[list[str]]:
        """For each crystal the reasons why it is outside; an empty list where it is inside."""
        reasons: list[list[str]] = [[] for _ in range(len(crystals))]
        for reason, ok in checks(self, crystals):
            for i in (~ok).nonzero().flatten().tolist():
                reasons[i].append(reason(i))
        return reasons

    def narrowed(self, **constraints: Any) -> CrystalSpace:
        """The intersection of the space with further constraints, given as for the constructor.

        Raises:
            EmptySpace: nothing is left; the message names the constraint.
            InvalidSpace: an unknown constraint, or one that cannot be intersected.
        """
        known = {f.name for f in fields(self)}
        if unknown := sorted(set(constraints) - known):
            raise InvalidSpace(f"unknown constraint {unknown[0]!r}; choose from {', '.join(sorted(known))}")
        # constraint by constraint; the space that comes of it is validated as a whole
        merged = {name: self._intersect(name, value) for name, value in constraints.items()}
        return replace(self, **merged)

    def to_dict(self) -> dict[str, Any]:
        """The constraints as plain lists and numbers, for JSON and YAML."""
        out: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name == "oxidation_states" and isinstance(value, tuple):
                value = {symbol: list(states) for symbol, states in value}
            out[f.name] = list(value) if isinstance(value, tuple) else value
        return out

    # ---- what the package asks --------------------------------------------------------------------------------

    @cached_property
    def element_numbers(self) -> tuple[int, ...]:
        """Atomic numbers that may occur, in the order in which they are drawn: anions first.

        Decreasing electronegativity, so that the last element drawn is the one that has to balance the charge.
        """
        if self.formula is not None:
            numbers = set(self.formula_units)
        elif self.elements is not None:
            numbers = {element_tables.NUMBER[s] for s in self.elements}
        else:
            numbers = set(self._default_elements())
        numbers -= {element_tables.NUMBER[s] for s in self.excluded_elements}
        return tuple(sorted(numbers, key=lambda z: (-element_tables.ELECTRONEGATIVITY[z - 1], z)))

    @cached_property
    def formula_units(self) -> dict[int, int]:
        """Atoms of each element in one formula unit, {Z: count}; empty without a formula."""
        return {} if self.formula is None else _formula(self.formula)

    @cached_property
    def charge_rule(self) -> ChargeRule:
        """The rule of neutrality."""
        return ChargeRule(self._state_table(), self.mixed_valence, self.alloys)

    @cached_property
    def cell_limits(self) -> CellLimits:
        """The limits on lengths and angles."""
        return CellLimits(self.lengths, self.angles)

    @cached_property
    def group_allowed(self) -> np.ndarray:
        """Groups that the user's constraints admit, bool [230]."""
        allowed = np.ones(230, dtype=bool)
        if self.space_groups is not None:
            allowed &= np.isin(np.arange(1, 231), self.space_groups)
        for names, table, column in (
            (self.crystal_systems, groups.CRYSTAL_LATTICE_SYSTEMS, groups.CRYSTAL_LATTICE_SYSTEM),
            (self.point_symmetries, groups.POINT_SYMMETRIES, groups.POINT_SYMMETRY),
        ):
            if names is not None:
                allowed &= np.isin(column, [table.index(name) for name in names])
        return allowed

    @cached_property
    def composition_rules(self) -> CompositionRules:
        """The constraints on compositions, by position in `element_numbers`."""
        zs = self.element_numbers
        required = {element_tables.NUMBER[s] for s in self.required_elements} | set(self.formula_units)
        return CompositionRules(
            zs=zs,
            required=frozenset(zs.index(z) for z in required),
            metal=tuple(bool(element_tables.METAL[z - 1]) for z in zs),
            charge=self.charge_rule,
            n_elements=self.n_elements,
            atoms_per_element=self.atoms_per_element,
            n_atoms=self.n_atoms,
            units=tuple(self.formula_units[z] for z in zs) if self.formula is not None else None,
        )

    @cached_property
    def tables(self) -> SpaceTables:
        """Look-up tables of everything that may follow a partial crystal (built once a space)."""
        return build_tables(self)

    # ---- construction -----------------------------------------------------------------------------------------

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _state_table(self) -> tuple[tuple[int, ...], ...] | None:
        if self.oxidation_states is None:
            return None
        if isinstance(self.oxidation_states, str):
            return element_tables.OXIDATION_STATES[self.oxidation_states]
        table = dict(self.oxidation_states)
        return tuple(table.get(symbol, ()) for symbol in element_tables.SYMBOLS)

    def _default_elements(self) -> list[int]:
        table = self._state_table()
        return [
            z
            for z in range(1, LARGEST_Z + 1)
            if (table is None or table[z - 1])
            and not element_tables.NOBLE_GAS[z - 1]
            and element_tables.SYMBOLS[z - 1] not in RADIOACTIVE
        ]

    def _check_elements(self) -> None:
        asked = [*(self.elements or ()), *self.required_elements]
        if self.formula is not None:
            asked += [element_tables.SYMBOLS[z - 1] for z in self.formula_units]
            for name in ("elements", "excluded_elements"):
                given = getattr(self, name)
                outside = [
                    element_tables.SYMBOLS[z - 1]
                    for z in self.formula_units
                    if given and (element_tables.SYMBOLS[z - 1] in given) == (name == "excluded_elements")
                ]
                if outside:
                    raise EmptySpace(f"formula={self.formula!r} has {outside[0]}, which {name}={list(given)} rules out")
        table = self._state_table()
        for symbol in asked:
            if table is not None and not table[element_tables.NUMBER[symbol] - 1]:
                has = [n for n, t in element_tables.OXIDATION_STATES.items() if t[element_tables.NUMBER[symbol] - 1]]
                remedy = f"tables that have it: {', '.join(has)}" if has else "no table has it"
                raise EmptySpace(
                    f"{symbol} has no non-zero oxidation state in oxidation_states={self.oxidation_states!r}; {remedy}"
                    "; or give your own table, or oxidation_states=null for no charge rule"
                )
        numbers = self.element_numbers
        for symbol in self.required_elements:
            if element_tables.NUMBER[symbol] not in numbers:
                raise EmptySpace(f"required element {symbol} is not among the elements of the space")
        if not numbers:
            raise EmptySpace("no element is left: excluded_elements rules out all of elements")
        if len(self.required_elements) > self.n_elements[1]:
            raise EmptySpace(
                f"{len(self.required_elements)} required_elements do not fit into n_elements={list(self.n_elements)}"
            )

    def _why_empty(self) -> str:
        """Name the first constraint without which there would be crystals."""
        defaults = {f.name: f.default for f in fields(self)}
        given = [f.name for f in fields(self) if getattr(self, f.name) != f.default]
        for name in given:
            loose = object.__new__(CrystalSpace)
            for f in fields(self):
                object.__setattr__(loose, f.name, getattr(self, f.name))
            object.__setattr__(loose, name, None if name == "oxidation_states" else defaults[name])
            try:
                found = loose.tables.allowed.any()
            except Exception:  # a looser space may not stand by itself (a required element without its elements)
                found = False
            if found:
                return f"{name}={_plain(getattr(self, name))} leaves no crystal with the other constraints; loosen it"
        parts = ", ".join(f"{n}={_plain(getattr(self, n))}" for n in given)
        return f"the constraints leave no crystal ({parts}): no composition, group and cell meet all of them"

    def _intersect(self, name: str, value: Any) -> Any:
        mine = getattr(self, name)
        if name in ("elements", "space_groups", "crystal_systems", "point_symmetries"):
            if value is None:
                return mine
            checked = (
                _symbols(name, value)
                if name == "elements"
                else _numbers(value)
                if name == "space_groups"
                else _names(name, value, _NAMES[name])
            )
            if name == "elements":
                allowed = {element_tables.SYMBOLS[z - 1] for z in self.element_numbers}
                if self._state_table() is not None:
                    stateless = [s for s in checked if not self._state_table()[element_tables.NUMBER[s] - 1]]
                    if stateless:
                        replace(self, elements=tuple(stateless))  # raises with the remedy
            else:
                allowed = set(checked if mine is None else mine)
            kept = tuple(x for x in checked if x in allowed)
            if not kept:
                raise EmptySpace(f"{name}={list(checked)} leaves nothing of the space's own {name}")
            return kept
        if name in ("required_elements", "excluded_elements"):
            return tuple(dict.fromkeys([*mine, *_symbols(name, value)]))
        if name in RANGES:
            if value is None or mine is None:
                return mine if value is None else value
            whole = name in ("n_elements", "atoms_per_element", "n_atoms")
            new = _limits(name, value, 1 if whole else 0.0, whole=whole)
            low, high = max(mine[0], new[0]), min(mine[1], new[1])
            if low > high or (low == high and not whole):
                raise EmptySpace(f"{name}={list(new)} does not meet the space's own {name}={list(mine)}")
            return (low, high)
        if name == "formula" and mine is not None and value is not None and _formula(mine) != _formula(value):
            raise EmptySpace(f"formula={value!r} differs from the space's own {mine!r}")
        if name == "oxidation_states" and _states(value) != mine and mine is not None:
            raise InvalidSpace(
                f"oxidation_states={value!r} cannot narrow a space made with {mine!r}: "
                "a different charge table is another space; train or make an untrained sampler for it"
            )
        if name == "mixed_valence":
            _check_mixed_valence(value)
            return value if MIXED_VALENCE.index(value) <= MIXED_VALENCE.index(mine) else mine
        if name == "alloys":
            return mine and value
        return value


_NAMES = {"crystal_systems": groups.CRYSTAL_LATTICE_SYSTEMS, "point_symmetries": groups.POINT_SYMMETRIES}


def _check_mixed_valence(value: Any) -> None:
    if value not in MIXED_VALENCE:
        raise InvalidSpace(f"mixed_valence={value!r}: choose False, 'adjacent' or True")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _as_sequence(name: str, value: Any) -> list:
    if isinstance(value, (str, int)):
        return [value]
    try:
        return list(value)
    except TypeError:
        raise InvalidSpace(f"{name}={value!r}: give a list") from None


def _symbols(name: str, value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None if name == "elements" else ()
    symbols = _as_sequence(name, value)
    for symbol in symbols:
        if not isinstance(symbol, str) or symbol not in element_tables.NUMBER:
            raise InvalidSpace(f"{name}: {symbol!r} is not an element; give symbols such as Li, Fe, O")
    if name == "elements" and not symbols:
        raise EmptySpace("elements=[] leaves no element; give symbols, or null for the default elements")
    return tuple(dict.fromkeys(symbols))


def _numbers(value: Any) -> tuple[int, ...] | None:
    if value is None:
        return None
    numbers = _as_sequence("space_groups", value)
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, (int, np.integer)) or not 1 <= number <= 230:
            raise InvalidSpace(f"space_groups: {number!r} is not an ITA number from 1 to 230")
    if not numbers:
        raise EmptySpace("space_groups=[] leaves no group; give ITA numbers, or null for all 230")
    return tuple(sorted({int(n) for n in numbers}))


def _names(option: str, value: Any, table: tuple[str, ...]) -> tuple[str, ...] | None:
    if value is None:
        return None
    names: list[str] = []
    for name in _as_sequence(option, value):
        expanded = TRIGONAL if name == "trigonal" and option == "crystal_systems" else (name,)
        for one in expanded:
            if one not in table:
                raise InvalidSpace(f"{option}: {one!r} is not one of {', '.join(table)}")
            names.append(one)
    if not names:
        raise EmptySpace(f"{option}=[] leaves nothing; give names, or null for all")
    return tuple(name for name in table if name in names)


def _limits(name: str, value: Any, lowest: float, *, whole: bool) -> tuple:
    pair = _as_sequence(name, value)
    number = (int, np.integer) if whole else (int, float, np.integer, np.floating)
    if len(pair) == 1 and whole:
        pair = pair * 2
    if len(pair) != 2 or any(isinstance(x, bool) or not isinstance(x, number) or not np.isfinite(x) for x in pair):
        kind = "whole numbers" if whole else "numbers"
        raise InvalidSpace(f"{name}={value!r}: give two {kind}, lowest and highest")
    low, high = (int(x) if whole else float(x) for x in pair)
    if low > high or (low == high and not whole):
        raise InvalidSpace(f"{name}=[{low}, {high}]: the first limit must be below the second")
    if low < lowest or (not whole and high <= 0):
        raise InvalidSpace(f"{name}=[{low}, {high}]: limits start at {lowest}")
    if name == "lengths" and low <= 0:
        raise InvalidSpace(f"lengths=[{low}, {high}]: lengths must be above 0")
    if name == "volume_per_atom" and low <= 0:
        raise InvalidSpace(f"volume_per_atom=[{low}, {high}]: volumes must be above 0")
    return low, high


def _states(value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, str):
        if value not in element_tables.OXIDATION_STATES:
            raise InvalidSpace(
                f"oxidation_states={value!r}: choose one of {', '.join(element_tables.OXIDATION_STATES)}, "
                'a table such as {"Fe": [2, 3]}, or null'
            )
        return value
    table = dict(value) if isinstance(value, (Mapping, tuple, list)) else None
    if not table:
        raise InvalidSpace(f'oxidation_states={value!r}: give a name, a table such as {{"Fe": [2, 3]}}, or null')
    for symbol, states in table.items():
        if symbol not in element_tables.NUMBER:
            raise InvalidSpace(f"oxidation_states: {symbol!r} is not an element")
        states = table[symbol] = _as_sequence(f"oxidation_states of {symbol}", states)
        if not states or any(not isinstance(s, (int, np.integer)) or s == 0 or abs(s) > 8 for s in states):
            raise InvalidSpace(
                f"oxidation_states of {symbol}: {list(states)} must be whole numbers from -8 to 8, not 0"
            )
    return tuple(sorted((symbol, tuple(sorted({int(s) for s in states}))) for symbol, states in table.items()))


def _formula(text: str) -> dict[int, int]:
    if not isinstance(text, str) or not re.fullmatch(r"([A-Z][a-z]?\d*)+", text):
        raise InvalidSpace(f"formula={text!r}: write symbols and whole numbers, such as LiFePO4")
    units: dict[int, int] = {}
    for symbol, count in re.findall(r"([A-Z][a-z]?)(\d*)", text):
        if symbol not in element_tables.NUMBER:
            raise InvalidSpace(f"formula={text!r}: {symbol!r} is not an element")
        if count == "0":
            raise InvalidSpace(f"formula={text!r}: {symbol}0 has no atoms")
        units[element_tables.NUMBER[symbol]] = units.get(element_tables.NUMBER[symbol], 0) + int(count or 1)
    divisor = int(np.gcd.reduce(list(units.values())))
    return {z: n // divisor for z, n in units.items()}
