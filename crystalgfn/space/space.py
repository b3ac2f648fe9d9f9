"""The space of crystals: what may be drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from math import gcd
from time import process_time
from typing import Any

import torch

from crystalgfn.crystallography import elements as element_tables
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import CrystalGFNError, EmptySpace, InvalidCrystal, InvalidSpace, check_kind
from crystalgfn.space.constraint import Check, Constraint, given, saved
from crystalgfn.space.constraints.composition import AnonymousFormulas, Formula, Formulas, Neutral, plain_states
from crystalgfn.space.constraints.elements_and_groups import (
    AnyOf,
    ChemicalSystem,
    ConventionalCell,
    CrystalSystems,
    Elements,
    ExcludedElements,
    PointSymmetries,
    RequiredElements,
    SpaceGroups,
    WyckoffPositions,
    foreign,
)
from crystalgfn.space.constraints.limits import (
    MOST_ATOMS,
    Angles,
    AtomsPerElement,
    Density,
    Lengths,
    NumberOfAtoms,
    NumberOfElements,
    RelativeVolume,
    VolumePerAtom,
    countable,
)
from crystalgfn.space.constraints.parse import Rule, numbers_of, plain
from crystalgfn.space.constraints.prototypes import NamedPrototypes
from crystalgfn.space.rules import MaskRules, SpaceTables, build_tables
from crystalgfn.typing import Booleans

#: In the order in which `CrystalSpace.explain` names reasons.
RULES: tuple[type[Rule], ...] = (
    Elements, RequiredElements, ExcludedElements, AnyOf, ChemicalSystem, NumberOfElements, NumberOfAtoms,
    AtomsPerElement, Formula, Formulas, AnonymousFormulas, NamedPrototypes, SpaceGroups, CrystalSystems,
    PointSymmetries, Lengths, Angles, VolumePerAtom, Density, RelativeVolume,
)  # fmt: skip
#: Argument -> what reads it.
READERS: dict[str, Callable[[Any], Rule]] = {rule.name: rule.parse for rule in RULES}
CHARGE = ("oxidation_states", "mixed_valence", "alloys")
#: What makes more compositions neutral, the narrowest first.
NEUTRAL_REMEDIES = (
    ("mixed_valence", "adjacent"), ("alloys", True), ("oxidation_states", "common"), ("oxidation_states", "all"),
    ("mixed_valence", True), ("oxidation_states", None),
)  # fmt: skip
DIAGNOSIS_SECONDS = 4.0
INTRINSIC = (WyckoffPositions(), ConventionalCell())


@dataclass(frozen=True, kw_only=True)
class CrystalSpace:
    """Hard constraints on crystals; validated, and refused when empty, at construction.

    A range holds both of its ends; one of a single real value stands for 0.05 % to either side.

    Args:
        elements: symbols that may occur; None: Z <= 83 with a non-zero state in the table, no noble gases, Tc, Pm.
        required_elements: symbols that every crystal has.
        excluded_elements: symbols that no crystal has.
        any_of: symbols of which every crystal has at least one; or several such lists.
        chemsys: the elements that every crystal has, and no others, e.g. ``"Li-Mn-O"``.
        n_elements: lowest and highest number of different elements.
        atoms_per_element: lowest and highest number of atoms of each element, in the primitive cell.
        n_atoms: lowest and highest number of atoms in the primitive cell.
        formula: fixes the composition up to the number of formula units, e.g. ``"LiFePO4"`` or ``"Ca(OH)2"``.
        formulas: several of them.
        anonymous_formulas: forms of the composition with letters for elements, e.g. ``["ABX3"]``.
        prototypes: structure types by name, e.g. ``["perovskite", "spinel"]``: their space groups, each with its counts
            of atoms (`crystalgfn.space.constraints.prototypes.prototype_names` lists them).
        space_groups: ITA numbers or Hermann-Mauguin symbols; None: all 230.
        crystal_systems: names of crystal-lattice systems ("trigonal" means both of its lattices); None: all.
        point_symmetries: names of point symmetries; None: all.
        lengths: lowest and highest a, b, c in Å of the conventional cell.
        angles: lowest and highest alpha, beta, gamma in degrees, fixed angles included.
        volume_per_atom: lowest and highest in Å3.
        density: lowest and highest in g/cm3, or None.
        relative_volume: lowest and highest volume over what the atoms take up in known crystals
            (`crystalgfn.space.constraints.limits.relative_volume`), or None; 0.65 to 3 holds 99.8 % of MP-20.
        oxidation_states: "icsd", "common", "all", a table such as {"Fe": [2, 3]}, or None for no charge rule.
        mixed_valence: False, "known" (at most one element split over two consecutive states of its table, as it is in
            known compounds), "adjacent" (any element, states with the same sign) or True (any state for any atom).
        alloys: compositions of metals only count as neutral.
        constraints: further ones (`crystalgfn.space.constraint.Constraint`).

    Raises:
        InvalidSpace: a constraint that means nothing (the message names it).
        EmptySpace: constraints that leave no crystal (the message names the one that emptied it).

    Example:
        >>> space = CrystalSpace(chemsys="Li-Mn-O", n_atoms=(1, 8), space_groups=["Fd-3m"])
        >>> space.narrowed(n_atoms=(7, 14)).n_atoms
        (7, 8)
    """

    elements: tuple[str, ...] | None = None
    required_elements: tuple[str, ...] = ()
    excluded_elements: tuple[str, ...] = ()
    any_of: tuple = ()
    chemsys: str | None = None
    n_elements: tuple[int, int] = (1, 5)
    atoms_per_element: tuple[int, int] = (1, 20)
    n_atoms: tuple[int, int] = (1, 20)
    formula: str | None = None
    formulas: tuple[str, ...] | None = None
    anonymous_formulas: tuple[str, ...] | None = None
    prototypes: tuple[str, ...] | None = None
    space_groups: tuple[int, ...] | None = None
    crystal_systems: tuple[str, ...] | None = None
    point_symmetries: tuple[str, ...] | None = None
    lengths: tuple[float, float] = (2.0, 40.0)
    angles: tuple[float, float] = (45.0, 140.0)
    volume_per_atom: tuple[float, float] = (4.0, 60.0)
    density: tuple[float, float] | None = None
    relative_volume: tuple[float, float] | None = None
    oxidation_states: Any = "icsd"
    mixed_valence: bool | str = "known"
    alloys: bool = False
    constraints: tuple[Constraint, ...] = ()

    def __post_init__(self) -> None:
        parts = _read({f.name: getattr(self, f.name) for f in fields(self)})
        for name, part in parts.items():
            if name in READERS:
                object.__setattr__(self, name, _frozen(part.to_dict()[name]))
        fewest, most = self.n_elements  # no crystal has more elements than atoms; the tables have a column for each
        object.__setattr__(self, "n_elements", (fewest, max(fewest, min(most, self.n_atoms[1]))))
        charge = parts["oxidation_states"]
        assert isinstance(charge, Neutral)
        object.__setattr__(self, "oxidation_states", charge.oxidation_states)
        object.__setattr__(self, "constraints", given(self.constraints))
        self.rules.check()
        if not self.tables.allowed.any():
            raise EmptySpace(self._why_empty())

    # ---- what a user asks -------------------------------------------------------------------------------------

    def contains(self, crystals: Crystals) -> Booleans:
        """Whether crystals are in the space (relative 1e-3 on lengths and volumes, 0.01 degrees), bool [B]."""
        check_kind("crystals", crystals, Crystals, "Crystals", InvalidCrystal)
        passed = countable(crystals)
        inner = passed.nonzero().flatten()
        for check in self._checks(crystals[inner]):
            passed[inner] &= check.ok
        return passed

    def explain(self, crystals: Crystals) -> list[list[str]]:
        """For each crystal the reasons why it is outside; an empty list where it is inside."""
        check_kind("crystals", crystals, Crystals, "Crystals", InvalidCrystal)
        reasons: list[dict[str, None]] = [{} for _ in range(len(crystals))]
        possible = countable(crystals)
        inner = possible.nonzero().flatten()
        for check in self._checks(crystals[inner]):
            for i in (~check.ok).nonzero().flatten().tolist():
                reasons[int(inner[i])][check.reason(i)] = None
        for i in (~possible).nonzero().flatten().tolist():
            reasons[i][f"has no number of atoms from 0 to {MOST_ATOMS} of each element and in all"] = None
        return [list(own) for own in reasons]

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
        merged: dict[str, Any] = {}
        for name in READERS:
            if constraints.get(name) is None:
                continue
            mine: Any = self.parts[name]
            new = READERS[name](constraints[name])
            if isinstance(new, Elements) and new.value is not None:
                self.rules.check_states(numbers_of(new.value))
                mine = Elements(tuple(element_tables.SYMBOLS[z - 1] for z in self.element_numbers))
            merged[name] = _frozen(mine.intersect(new).to_dict()[name])
        if any(name in constraints for name in CHARGE):
            own = {name: constraints.get(name, getattr(self, name)) for name in CHARGE}
            merged |= self.parts["oxidation_states"].intersect(Neutral.parse(**own)).to_dict()
        if new := given(constraints.get("constraints", ())):
            merged["constraints"] = _joined(self.constraints, new)
        return replace(self, **merged)

    def to_dict(self) -> dict[str, Any]:
        """The constraints as plain lists and numbers, for JSON and YAML."""
        values = {name: value for part in self.parts.values() for name, value in part.to_dict().items()}
        values["constraints"] = [saved(one) for one in self.constraints]
        return {f.name: values[f.name] for f in fields(self)}

    # ---- what the package asks --------------------------------------------------------------------------------

    @cached_property
    def parts(self) -> dict[str, Constraint]:
        """The constraint of each argument, the three of neutrality under "oxidation_states"."""
        return _read({f.name: getattr(self, f.name) for f in fields(self)})

    @cached_property
    def rules(self) -> MaskRules:
        """What all constraints put into the masks."""
        return _rules([*self.parts.values(), *self.constraints])

    @cached_property
    def tables(self) -> SpaceTables:
        """Look-up tables of everything that may follow a partial crystal (built once a space)."""
        return build_tables(self.rules)

    @property
    def element_numbers(self) -> tuple[int, ...]:
        """Atomic numbers that may occur, in the order in which they are drawn: anions first."""
        return self.rules.zs

    @property
    def formula_units(self) -> dict[int, int]:
        """Atoms of each element in one formula unit, {Z: count}, as they are written; empty without a formula."""
        if self.formula is None:
            return {}
        counts = element_tables.parse_formula(self.formula)
        return {z: n // gcd(*counts.values()) for z, n in counts.items()}

    def cell_inside(self, crystals: Crystals) -> Booleans:
        """Whether cells obey all limits on them, bool [B]."""
        limits = [self.parts[name] for name in ("lengths", "angles", "volume_per_atom", "density", "relative_volume")]
        return torch.stack([part.explain(crystals).ok for part in (INTRINSIC[1], *limits)]).all(0)

    def _checks(self, crystals: Crystals) -> Iterator[Check]:
        yield foreign(crystals, self.element_numbers)
        for name, part in self.parts.items():
            yield part.explain(crystals)
            if name == "point_symmetries":
                yield from (one.explain(crystals) for one in INTRINSIC)
        for one in self.constraints:
            yield one.explain(crystals)

    def _why_empty(self) -> str:
        """Name the charges where they leave no composition, else the first constraint without which there are crystals.

        What is looked for is bounded by `DIAGNOSIS_SECONDS` of computation; after it all constraints are named.
        """
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        defaults = {f.name: f.default for f in fields(self)} | {"oxidation_states": None}
        narrow = [f.name for f in fields(self) if values[f.name] != f.default]
        stop = process_time() + DIAGNOSIS_SECONDS
        if not self.tables.composition.first.any() and (words := self._not_neutral(values, narrow, stop)):
            return words
        for name in narrow:
            if _some(values | {name: defaults[name]}, stop):
                return f"{name}={plain(values[name])} leaves no crystal with the other constraints; loosen it"
        parts = ", ".join(f"{name}={plain(values[name])}" for name in narrow)
        return f"the constraints leave no crystal ({parts}): no composition, group and cell meet all of them"

    def _not_neutral(self, values: dict[str, Any], narrow: list[str], stop: float) -> str | None:
        """What leaves no neutral composition, and the narrowest change of the charge rule that leaves some."""
        for name, value in NEUTRAL_REMEDIES:
            if _some(values | {name: value}, stop):
                asked = ", ".join(f"{n}={plain(values[n])}" for n in narrow if n not in CHARGE) or "the space"
                tables = ", ".join(f"{n}={plain_states(values[n])!r}" for n in CHARGE)
                return (
                    f"{asked} leaves no crystal that is neutral by {tables} (peroxides, superoxides and other "
                    f"bonds between anions need states that a table may lack); {name}={value!r} has some"
                )
        return None

    def __getstate__(self) -> dict[str, Any]:
        # the rules hold functions, which cannot be sent to other processes; they are made again when asked for
        return {name: value for name, value in self.__dict__.items() if name not in ("parts", "rules")}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)


def _read(values: Mapping[str, Any]) -> dict[str, Constraint]:
    """The constraint of each argument."""
    parts: dict[str, Constraint] = {}
    for name, read in READERS.items():
        parts[name] = read(values[name])
        if name == "prototypes":
            parts["oxidation_states"] = Neutral.parse(*(values[name] for name in CHARGE))
    return parts


def _some(values: Mapping[str, Any], stop: float) -> bool:
    """Whether there are crystals in a space, as far as can be said until the processor time ``stop``."""
    if process_time() > stop:
        return False
    try:
        rules = _rules([*_read(values).values(), *values["constraints"]])
        rules.check()
        return bool(build_tables(rules).allowed.any())
    except CrystalGFNError:  # a looser space may not stand by itself (a required element without its elements)
        return False


def _rules(constraints: list[Constraint]) -> MaskRules:
    rules = MaskRules()
    # the default elements go by the table of states, so that comes first
    for one in sorted((*constraints, *INTRINSIC), key=lambda one: not isinstance(one, Neutral)):
        one.mask(rules)
    return rules


def _joined(mine: tuple[Constraint, ...], new: tuple[Constraint, ...]) -> tuple[Constraint, ...]:
    """The user's constraints of both; those of one class intersected."""
    found = {type(one): one for one in mine}
    for one in new:
        found[type(one)] = found[type(one)].intersect(one) if type(one) in found else one
    return tuple(found.values())


def _frozen(value: Any) -> Any:
    return tuple(_frozen(one) for one in value) if isinstance(value, list) else value
