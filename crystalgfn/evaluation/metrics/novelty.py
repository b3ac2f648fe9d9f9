"""Which structures are the same: among the samples (uniqueness), and as a known crystal (novelty).

Buckets come first, made of compositions alone: the reduced formula; for element-swap matching the anonymous formula;
for disordered crystals the set of elements. Only within a bucket are structures built and compared, by pymatgen's
StructureMatcher, and only until the first that matches. In which order samples come decides which of several that match
each other counts as the first.
"""

from __future__ import annotations

import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import gcd
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.atoms import reduced_formula
from crystalgfn.evaluation.metrics.base import (
    CrystalSet,
    Metric,
    Verdict,
    judged_share,
    stated_share,
)
from crystalgfn.evaluation.metrics.validity import valid_rows
from crystalgfn.evaluation.reference import Entry
from crystalgfn.utils.statistics import Share, share, share_of

if TYPE_CHECKING:
    from pymatgen.core import Structure

SAME, SWAP, DISORDER = "same", "swap", "disorder"
"""Kinds of comparison: as they are; with elements exchanged for others; where one of the two is partially occupied."""
CHUNK = 32
"""Samples of one bucket that are compared with known crystals together."""
NEAR = 0.05
"""Largest difference in the share of an element between a disordered crystal and an ordered version of it."""
LARGEST = 8
"""Times that one primitive cell may hold the other's atoms in comparing disordered crystals."""


@dataclass(frozen=True)
class Tolerances:
    """Of pymatgen's StructureMatcher; these are its own.

    Attributes:
        ltol: fraction by which lengths may differ.
        stol: displacement of the atoms over the cube root of the volume per atom.
        angle_tol: degrees.
    """

    ltol: float = 0.2
    stol: float = 0.3
    angle_tol: float = 5.0


def formula_key(amounts: Sequence[tuple[int, float]]) -> str:
    """The reduced formula, elements in alphabetical order, every count written; amounts must be whole."""
    return reduced_formula({elements.SYMBOLS[z - 1]: round(n) for z, n in amounts})


def anonymous_key(amounts: Sequence[tuple[int, float]]) -> str:
    """The counts of the reduced formula, ascending."""
    counts = [round(n) for _, n in amounts]
    divisor = gcd(*counts)
    return "-".join(str(n // divisor) for n in sorted(counts))


def elements_key(amounts: Sequence[tuple[int, float]]) -> str:
    """The elements."""
    return "-".join(elements.SYMBOLS[z - 1] for z, _ in amounts)


KEYS: dict[str, Callable[[Sequence[tuple[int, float]]], str]] = {
    SAME: formula_key,
    SWAP: anonymous_key,
    DISORDER: elements_key,
}


class Comparer:
    """Decides whether two structures are the same, in one of the kinds of comparison."""

    def __init__(self, kind: str, tolerances: Tolerances = Tolerances()) -> None:  # noqa: B008 - it is frozen
        from pymatgen.analysis.structure_matcher import OrderDisorderElementComparator, StructureMatcher

        self.kind = kind
        more: dict[str, Any] = {}
        if kind == DISORDER:
            # Sites may be empty, and an ordered version has a larger cell.
            more = {
                "comparator": OrderDisorderElementComparator(),
                "attempt_supercell": True,
                "allow_subset": True,
                "supercell_size": "num_atoms",
            }
        self.matcher = StructureMatcher(**asdict(tolerances), **more)

    def reduced(self, structure: Structure) -> Structure:
        """The primitive, Niggli-reduced cell, so that it is found once for many comparisons."""
        try:
            return self.matcher._get_reduced_structure(structure)
        except (ValueError, ArithmeticError, np.linalg.LinAlgError):
            return structure  # a cell that cannot be reduced is compared as it is

    def same(self, one: Structure, other: Structure) -> bool:
        """Whether two reduced structures match."""
        if self.kind == DISORDER:
            return self._near(one, other) and bool(self.matcher.fit(one, other, skip_structure_reduction=True))
        if len(one) != len(other):
            return False
        fit = self.matcher.fit if self.kind == SAME else self.matcher.fit_anonymous
        return bool(fit(one, other, skip_structure_reduction=True))

    def _near(self, one: Structure, other: Structure) -> bool:
        """Compositions and sizes of cells that a disordered crystal and an ordered version of it may have."""
        sizes = one.composition.num_atoms, other.composition.num_atoms
        if max(sizes) > LARGEST * min(sizes):
            return False
        shares = one.composition.fractional_composition, other.composition.fractional_composition
        names = set(shares[0]) | set(shares[1])
        return all(abs(shares[0][name] - shares[1][name]) <= NEAR for name in names)


@dataclass(frozen=True, eq=False, kw_only=True)
class ComparisonTask:
    """Comparisons within one bucket.

    Attributes:
        name: the same in every run on the same sources.
        kind: of comparison.
        indices: of the samples.
        samples: the same, with their structures.
        known: crystals that each of them is compared with; None: the samples are compared with each other.
        tolerances: of the matcher.
    """

    name: str
    kind: str
    indices: tuple[int, ...]
    samples: tuple[Entry, ...]
    known: tuple[Entry, ...] | None
    tolerances: Tolerances

    def run(self) -> dict[str, Any]:
        """The task's name and seconds, and for each sample that matches something its index and what it matches."""
        start = time.perf_counter()
        comparer = Comparer(self.kind, self.tolerances)
        own = [comparer.reduced(entry.structure()) for entry in self.samples]
        pairs = self._among(comparer, own) if self.known is None else self._known(comparer, own, self.known)
        matches = [list(pair) for pair in pairs]
        return {"task": self.name, "matches": matches, "seconds": round(time.perf_counter() - start, 4)}

    def _among(self, comparer: Comparer, own: Sequence[Structure]) -> Iterator[tuple[int, int]]:
        """(index, index of the first sample that it matches)."""
        first: list[int] = []
        for i, structure in enumerate(own):
            skip = self.kind == DISORDER and self.samples[i].ordered
            others = (j for j in first if not (skip and self.samples[j].ordered))
            match = next((j for j in others if comparer.same(own[j], structure)), None)
            if match is None:
                first.append(i)
            else:
                yield self.indices[i], self.indices[match]

    def _known(self, comparer: Comparer, own: Sequence[Structure], known: Sequence[Entry]) -> Iterator[tuple[int, str]]:
        """(index, where the first known crystal that it matches stands)."""
        reduced: dict[int, Structure] = {}
        for i, structure in enumerate(own):
            group = self.samples[i].group
            # Those of the same group are the likeliest, so that the first match comes early.
            for j in sorted(range(len(known)), key=lambda j, g=group: known[j].group != g):
                if self.kind == DISORDER and self.samples[i].ordered and known[j].ordered:
                    continue
                if j not in reduced:
                    reduced[j] = comparer.reduced(known[j].structure())
                if comparer.same(structure, reduced[j]):
                    yield self.indices[i], known[j].where
                    break


def comparison_tasks(
    samples: Mapping[int, Entry],
    known: Sequence[Entry] = (),
    swap: bool = False,
    tolerances: Tolerances = Tolerances(),  # noqa: B008 - it is frozen
) -> list[ComparisonTask]:
    """All comparisons that samples need, with each other and with known crystals; empty buckets make none.

    The first of a kind is chosen in the order of the samples. ``swap``: also element-swap matching, of ordered
    crystals.
    """
    found: list[ComparisonTask] = []
    for kind in (SAME, *((SWAP,) if swap else ()), DISORDER):
        own, others = _buckets(samples, kind), _buckets(dict(enumerate(known)), kind)
        for key, indices in own.items():
            near = [known[j] for j in others.get(key, ())]
            found += [
                ComparisonTask(
                    name=_name(kind, key, part, beside),
                    kind=kind,
                    indices=tuple(part),
                    samples=tuple(samples[i] for i in part),
                    known=beside,
                    tolerances=tolerances,
                )
                for part, beside in _parts(kind, indices, [samples[i] for i in indices], near)
            ]
    return found


def _parts(
    kind: str, indices: list[int], own: Sequence[Entry], near: Sequence[Entry]
) -> Iterator[tuple[list[int], tuple[Entry, ...] | None]]:
    """Samples of a bucket that are compared with each other (None), and with known crystals."""
    if kind == DISORDER and all(one.ordered for one in own):  # ordered ones have been compared as they are
        near = [one for one in near if not one.ordered]
    elif len(indices) > 1:
        yield indices, None
    if near:
        yield from ((indices[i : i + CHUNK], tuple(near)) for i in range(0, len(indices), CHUNK))


def _name(kind: str, key: str, indices: list[int], known: Sequence[Entry] | None) -> str:
    """The same for the same comparisons only."""
    return f"{kind} {key} {zlib.crc32(str(indices).encode()):08x} {len(known or ())}"


def _buckets(entries: Mapping[int, Entry], kind: str) -> dict[str, list[int]]:
    """Key -> indices; disordered crystals are compared by their elements only."""
    found = defaultdict(list)
    for i, entry in entries.items():
        if kind == DISORDER or entry.ordered:
            found[KEYS[kind](entry.amounts)].append(i)
    return found


@dataclass(frozen=True)
class Matches:
    """What the samples match, by their indices.

    Attributes:
        duplicate_of: the first sample that each one matches, for those that match one.
        known_as: where the known crystal stands that each one matches.
        swap_duplicate_of: the same with elements exchanged.
        swap_known_as: the same with elements exchanged.
    """

    duplicate_of: dict[int, int]
    known_as: dict[int, str]
    swap_duplicate_of: dict[int, int]
    swap_known_as: dict[int, str]


def gather_matches(records: Sequence[Mapping[str, Any]]) -> Matches:
    """The matches of all tasks together, from the records that `ComparisonTask.run` gives."""
    found = Matches({}, {}, {}, {})
    for record in records:
        kind = record["task"].split()[0]
        for i, other in record["matches"]:
            if isinstance(other, str):
                (found.swap_known_as if kind == SWAP else found.known_as).setdefault(i, other)
            else:
                (found.swap_duplicate_of if kind == SWAP else found.duplicate_of).setdefault(i, other)
    # With elements exchanged, or not at all: the same is the same.
    for i, other in found.duplicate_of.items():
        found.swap_duplicate_of.setdefault(i, other)
    for i, where in found.known_as.items():
        found.swap_known_as.setdefault(i, where)
    return found


LIMITS = {"unique": (0.95, 0.8), "novel": (0.5, 0.2), "good": (0.5, 0.2)}
"""Shares from which a figure is good, or fair; conventions, not physics."""


@dataclass(frozen=True, kw_only=True)
class NoveltySummary:
    """Uniqueness and novelty of a set of crystals.

    Attributes:
        unique: share of those read that match no earlier one.
        novel: share of those read that match nothing in the reference; None without one.
        good: valid, unique and novel (where there is a reference), of all given.
        swap_unique: as ``unique`` with elements exchanged; None where not asked for.
        swap_novel: as ``novel`` with elements exchanged.
    """

    unique: Share
    novel: Share | None
    good: Share
    swap_unique: Share | None
    swap_novel: Share | None


class NoveltyMetric(Metric):
    """Which crystals are new, from the comparisons that an evaluation makes of all (`comparison_tasks`)."""

    name = "novelty"

    def summary(self, samples: CrystalSet, reference: CrystalSet | None) -> NoveltySummary:
        """Shares."""
        frame = samples.frame

        def asked(name: str) -> Share | None:
            return share_of(frame[name]) if name in frame else None

        good = valid_rows(frame) & frame["unique"] & (frame["novel"] if "novel" in frame else True)
        return NoveltySummary(
            unique=share_of(frame["unique"]),
            novel=asked("novel"),
            good=share(int(good.sum()), samples.given),
            swap_unique=asked("swap_unique"),
            swap_novel=asked("swap_novel"),
        )

    def verdict(self, summary: NoveltySummary, reference: CrystalSet | None) -> list[Verdict]:
        """By limits; with elements exchanged they are stated only."""
        words = "Valid and unique" if summary.novel is None else "Valid, unique and novel"
        found = [judged_share("Unique", summary.unique, LIMITS["unique"])]
        if summary.novel is not None:
            found.append(judged_share("Novel", summary.novel, LIMITS["novel"]))
        found.append(judged_share(words, summary.good, LIMITS["good"]))
        if summary.swap_unique is not None:
            found.append(stated_share("Unique, elements exchanged", summary.swap_unique))
            found.append(stated_share("Novel, elements exchanged", summary.swap_novel, "no reference"))
        return found
