"""The space group of a structure at several tolerances, its primitive cell and its prototype."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalgfn.crystallography import space_groups
from crystalgfn.crystallography.normalizer import letter_permutations
from crystalgfn.crystallography.symmetry import symmetry
from crystalgfn.evaluation.metrics.base import (
    LATTICE,
    SYMMETRY,
    CrystalSet,
    DescribedCrystal,
    Panel,
    Verdict,
    judged_share,
    values_of,
)
from crystalgfn.utils.statistics import Share, share_of

if TYPE_CHECKING:
    from pymatgen.core import Structure

SYMPRECS = (0.01, 0.1, 0.3)
"""Å."""
MAIN = 0.1
"""Å; of groups and prototypes that are counted. That of the Materials Project's own records and of MP-20."""
LIMITS = (0.95, 0.8)
"""Shares of space groups as the source says from which they are good, or fair."""


@dataclass(frozen=True)
class Symmetry:
    """What spglib finds in one structure.

    Attributes:
        groups: tolerance in Å -> number of the space group, 0 where spglib finds none.
        primitive: the primitive cell at the tightest tolerance; the cell as it is where there is no group.
        prototype: anonymous formula, group and Wyckoff letters at the main tolerance, equal for all choices of origin;
            None where there is no group.
        point_group: its symbol at the main tolerance; None where there is no group.
    """

    groups: dict[float, int]
    primitive: Structure
    prototype: str | None
    point_group: str | None


def symmetry_of(structure: Structure, symprecs: Sequence[float] = SYMPRECS, main: float = MAIN) -> Symmetry:
    """Groups at the tolerances and at the main one, which is added where it is missing; sites may be disordered."""
    kinds = site_kinds(structure)
    cell = (structure.lattice.matrix, structure.frac_coords, kinds)
    found: dict[float, Any] = {}
    primitive = structure
    for symprec in sorted({*symprecs, main}):
        found[symprec] = symmetry(cell, symprec)
        if symprec == min({*symprecs, main}) and found[symprec] is not None:
            primitive = _primitive(structure, found[symprec])
    label = None if found[main] is None else _prototype(found[main], kinds)
    groups = {s: 0 if one is None else int(one.number) for s, one in found.items()}
    return Symmetry(groups, primitive, label, None if found[main] is None else str(found[main].pointgroup))


def site_kinds(structure: Structure) -> np.ndarray:
    """A whole number a site: the atomic number, or one of its own for each mixture of atoms, [N]."""
    mixtures: dict[str, int] = {}
    kinds = []
    for site in structure:
        if site.is_ordered:
            kinds.append(site.specie.Z)
        else:
            kinds.append(mixtures.setdefault(site.species.formula, 200 + len(mixtures)))
    return np.array(kinds)


def _primitive(structure: Structure, found: Any) -> Structure:
    from pymatgen.core import Lattice, Structure

    _, first = np.unique(found.mapping_to_primitive, return_index=True)
    if len(first) == len(structure):
        return structure
    lattice = Lattice(found.primitive_lattice)
    if abs(lattice.volume * len(structure) / len(first) / structure.volume - 1) > 1e-3:
        return structure
    first = np.sort(first)
    sites = [structure[int(i)] for i in first]
    return Structure(
        lattice,
        [site.species for site in sites],
        [site.coords for site in sites],
        coords_are_cartesian=True,
        to_unit_cell=True,
    )


def _prototype(found: Any, kinds: np.ndarray) -> str:
    """Anonymous formula, group, letters of each kind of site; kinds with the fewest atoms first.

    Of one crystal in all choices of origin it is the same. Crystals of one prototype whose lengths order their axes
    otherwise, as orthorhombic ones may, count as two.
    """
    letters: dict[int, list[str]] = defaultdict(list)
    orbits, first = np.unique(found.crystallographic_orbits, return_index=True)
    for _, i in zip(orbits, first, strict=True):
        letters[int(kinds[i])].append(found.wyckoffs[i])
    counts = {kind: int((kinds == kind).sum()) for kind in letters}
    divisor = gcd(*counts.values())
    formula = "".join(f"{chr(65 + i)}{n // divisor}" for i, n in enumerate(sorted(counts.values())))
    label = min(
        sorted((counts[kind], "".join(sorted(new[letter] for letter in own))) for kind, own in letters.items())
        for new in letter_permutations(int(found.number))
    )
    return f"{re.sub(r'(?<=[A-Z])1(?![0-9])', '', formula)}_{found.number}_{'_'.join(own for _, own in label)}"


def crystal_system(space_group: int) -> str | None:
    """One of the seven, None for no space group."""
    if not space_group:
        return None
    name = space_groups.CRYSTAL_LATTICE_SYSTEMS[space_groups.CRYSTAL_LATTICE_SYSTEM[space_group - 1]]
    return "trigonal" if name.startswith("trigonal") else name


@dataclass(frozen=True, kw_only=True)
class SymmetrySummary:
    """Tolerance in Å -> share of the crystals whose source names a space group above P1 that have it.

    ``claims_p1``: crystals of which the source names P1, which most writers of CIFs say of anything.
    """

    groups: dict[str, Share]
    claims_p1: int


class SymmetryMetric:
    """Space groups at several tolerances, point groups, prototypes."""

    name = "symmetry"

    def columns(self, sample: DescribedCrystal) -> dict[str, Any]:
        """``group_claimed``, ``group_<symprec>`` for each tolerance, ``space_group`` and what follows of it."""
        group = sample.space_group
        lattice, point = space_groups.CRYSTAL_LATTICE_SYSTEM[group - 1], space_groups.POINT_SYMMETRY[group - 1]
        return {
            "group_claimed": sample.group_claimed,
            **{f"group_{symprec:g}": number for symprec, number in sample.symmetry.groups.items()},
            "space_group": group,
            "crystal_system": crystal_system(group),
            "lattice_system": space_groups.CRYSTAL_LATTICE_SYSTEMS[lattice] if group else None,
            "point_symmetry": space_groups.POINT_SYMMETRIES[point] if group else None,
            "point_group": sample.symmetry.point_group,
            "prototype": sample.symmetry.prototype,
        }

    def summary(self, samples: CrystalSet, reference: CrystalSet | None) -> SymmetrySummary:
        """How often the space group is the one that the source names."""
        frame = samples.frame
        named = frame[frame["group_claimed"] > 1]
        found = [name for name in frame if name.startswith("group_") and name != "group_claimed"]
        return SymmetrySummary(
            groups={name.removeprefix("group_"): share_of(named[name] == named["group_claimed"]) for name in found},
            claims_p1=int(np.count_nonzero(frame["group_claimed"] == 1)),
        )

    def verdict(self, summary: SymmetrySummary, reference: CrystalSet | None) -> list[Verdict]:
        """For each tolerance."""
        words = {symprec: f"Space group as the source says, at {symprec}\u00a0Å" for symprec in summary.groups}
        return [
            judged_share(words[symprec], one, LIMITS)
            if one.n
            else Verdict(name=words[symprec], figure="no space group is named")
            for symprec, one in summary.groups.items()
        ]

    def figure(self, samples: CrystalSet, reference: CrystalSet | None, summary: SymmetrySummary) -> list[Panel]:
        """Crystal systems, space groups of samples and reference."""
        from crystalgfn.evaluation.report import figures

        known = None if reference is None else reference.frame
        found = [
            Panel(
                section=LATTICE, caption="Crystal systems", name="systems",
                draw=lambda: figures.systems(samples.frame, known),
            ),
            *_sunburst("sunburst", "samples", samples),
            *_sunburst("sunburst_known", "reference", reference),
        ]  # fmt: skip
        if len(found) == 1:
            found.append(Panel(section=SYMMETRY, caption="No space group was found of any crystal."))
        return found


def _sunburst(name: str, words: str, crystals: CrystalSet | None) -> list[Panel]:
    from crystalgfn.evaluation.report import figures

    numbers = [int(one) for one in values_of(crystals, "space_group") if one]
    if not numbers:
        return []
    caption = f"Space groups of the {words}: press a system to look into it"
    title = f"{len(numbers):,} {words}"
    return [
        Panel(section=SYMMETRY, caption=caption, name=name, size="two", draw=lambda: figures.sunburst(numbers, title))
    ]
