"""What can be said of one structure without energies: distances, volume, charge."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.distances import CLOSEST, IMAGES, reduced_basis
from crystalgfn.evaluation.metrics.base import (
    LATTICE,
    CrystalSet,
    DescribedCrystal,
    Panel,
    Verdict,
    judged_share,
    stated_share,
    values_of,
)
from crystalgfn.evaluation.metrics.compositions import (
    amounts,
    rules,
    smact_installed,
    smact_valid,
    valid_composition,
    whole,
)
from crystalgfn.evaluation.metrics.matching import SHORTEST, SMALLEST
from crystalgfn.space.charge import ChargeRule
from crystalgfn.utils.statistics import Share, share, share_of

if TYPE_CHECKING:
    from pymatgen.core import Structure

TABLES = tuple(elements.OXIDATION_STATES)
"""Of oxidation states that charges are balanced by."""
VOLUMES = (0.65, 3.0)
"""Limits of the relative volume, those that the shipped samplers draw within (``config/space``)."""
FULL = 1 + 1e-3
"""Sites that hold at most one atom together are alternatives, so their distance says nothing."""
ROWS = 64
"""Atoms whose distances to all others are held in memory at once."""
CHECKS = {
    "valid_structure": "no pair closer than 0.5 Å, own images included, and at least 0.1 Å3",
    "no_short_contacts": "no pair closer than 0.7 of its sum of radii",
    "usual_volume": "volume 0.65 to 3 times that of such atoms in known crystals",
    "neutral_icsd": "neutral by ICSD's oxidation states",
    "neutral_common": "neutral by common oxidation states",
    "neutral_all": "neutral by all oxidation states",
    "valid_composition": "neutral by CDVAE's rule, or metals only",
    "smact": "valid by SMACT",
}
"""Column -> what it says, of checks that are true or false for a structure."""
HEADLINES = {
    "no_short_contacts": "No short contacts",
    "usual_volume": "Usual volume",
    "neutral_icsd": "Neutral (states of ICSD)",
    "neutral_common": "Neutral (common states)",
    "smact": "Valid by SMACT",
}
"""Checks among the headline figures; compared with what known crystals do."""
NOT_INSTALLED = "not installed"
LIMITS = (0.9, 0.7)
"""Shares from which a check is good, or fair, where there is no reference; a convention, not physics."""


@dataclass(frozen=True, kw_only=True)
class Validity:
    """One structure.

    Attributes:
        shortest: the smallest distance between two atoms in Å, own images included; of alternatives none counts.
        ratio: the smallest ratio of a distance to the sum of the two radii.
        volume_per_atom: Å3.
        relative_volume: of the cell to what its atoms typically take up in known crystals.
        longest_edge: Å, of the reduced cell.
        neutral_icsd: neutral by this table of oxidation states, one element split over two neighbouring states at most;
            a pure element counts as neutral. None where a disordered composition has no small formula unit.
        neutral_common: the same by the common states.
        neutral_all: the same by all states.
        valid_structure: no pair closer than 0.5 Å, own images included, and at least 0.1 Å3.
        valid_composition: by CDVAE's rule (`compositions.valid_composition`).
        smact: by ``smact_validity`` of the library SMACT; None where it is not installed or has no data on an element.
        no_short_contacts: no pair closer than 0.7 of its sum of radii.
        usual_volume: the relative volume lies within `VOLUMES`.
    """

    shortest: float
    ratio: float
    volume_per_atom: float
    relative_volume: float
    longest_edge: float
    neutral_icsd: bool | None
    neutral_common: bool | None
    neutral_all: bool | None
    valid_structure: bool
    valid_composition: bool
    smact: bool | None
    no_short_contacts: bool
    usual_volume: bool


def validity(structure: Structure) -> Validity:
    """Judge a structure; a primitive cell is cheapest."""
    occupied = amounts(structure)
    atoms = sum(occupied.values())
    shortest, ratio = nearest(structure)
    typical = sum(elements.VOLUME[z - 1] * n for z, n in occupied.items())
    relative = structure.volume / typical
    counts = whole(occupied)
    balanced = [None if counts is None else _neutral(table, counts) for table in TABLES]
    neutral = dict(zip((f"neutral_{table}" for table in TABLES), balanced, strict=True))
    return Validity(
        shortest=shortest,
        ratio=ratio,
        volume_per_atom=structure.volume / atoms,
        relative_volume=relative,
        longest_edge=float(np.linalg.norm(reduced_basis(structure.lattice.matrix), axis=1).max()),
        valid_structure=shortest >= SHORTEST and structure.volume >= SMALLEST,
        valid_composition=valid_composition(counts),
        smact=None if counts is None else smact_valid(counts),
        no_short_contacts=ratio >= CLOSEST,
        usual_volume=VOLUMES[0] <= relative <= VOLUMES[1],
        **neutral,
    )


def nearest(structure: Structure) -> tuple[float, float]:
    """The smallest distance (Å) and the smallest ratio of a distance to the sum of radii, own images included."""
    basis = reduced_basis(structure.lattice.matrix)
    points = structure.frac_coords @ structure.lattice.matrix @ np.linalg.inv(basis)
    images = IMAGES @ basis
    radius, filled = np.array([_site(site) for site in structure]).T
    squares = (images**2).sum(axis=1)
    shortest = ratio = np.inf
    for start in range(0, len(points), ROWS):
        rows = np.arange(start, min(start + ROWS, len(points)))
        gaps = points[rows, None] - points[None]
        vectors = (gaps - np.rint(gaps)) @ basis
        distances = (vectors**2).sum(axis=-1)[..., None] + 2 * vectors @ images.T + squares
        distances[rows - start, rows, 0] = np.inf  # an atom and itself
        found = np.sqrt(np.maximum(distances.min(axis=-1), 0.0))
        alternatives = filled[rows, None] + filled[None] <= FULL
        alternatives[rows - start, rows] = False  # a half-filled site still has its own images
        found[alternatives] = np.inf
        shortest = min(shortest, float(found.min()))
        ratio = min(ratio, float((found / (radius[rows, None] + radius[None])).min()))
    return shortest, ratio


def _site(site: Any) -> tuple[float, float]:
    """Mean radius of the atoms of a site, and how many they are."""
    parts = [(float(elements.RADIUS[element.Z - 1]), float(amount)) for element, amount in site.species.items()]
    filled = sum(amount for _, amount in parts)
    return sum(r * amount for r, amount in parts) / filled, filled


@cache
def _rule(table: str) -> ChargeRule:
    return ChargeRule(elements.OXIDATION_STATES[table], "adjacent", False)


@cache
def _neutral(table: str, counts: tuple[tuple[int, int], ...]) -> bool:
    return _rule(table).neutral(dict(counts))


@dataclass(frozen=True, kw_only=True)
class ValiditySummary:
    """Validity of a set of crystals.

    Attributes:
        valid: share with a valid structure and a valid composition (CDVAE's two checks), of all given.
        checks: column -> share of those read that pass; None where it could not be asked.
        notes: what figures lack, in words.
        rules: check of a composition -> the rule and the tables behind it.
    """

    valid: Share
    checks: dict[str, Share | None]
    notes: dict[str, str]
    rules: dict[str, str]


class ValidityMetric:
    """Distances, volumes and charges of each crystal, and the shares that pass."""

    name = "validity"

    def columns(self, sample: DescribedCrystal) -> dict[str, Any]:
        """The fields of `Validity`, of the primitive cell."""
        return asdict(validity(sample.primitive))

    def summary(self, samples: CrystalSet, reference: CrystalSet | None) -> ValiditySummary:
        """Shares of the checks."""
        return ValiditySummary(
            valid=share(int(valid_rows(samples.frame).sum()), samples.given),
            checks={name: _passed(samples.frame, name) for name in CHECKS},
            notes={} if smact_installed() else {"smact": NOT_INSTALLED},
            rules=rules(),
        )

    def verdict(self, summary: ValiditySummary, reference: CrystalSet | None) -> list[Verdict]:
        """Beside what known crystals do; other checks are stated only."""
        known = None if reference is None else share_of(valid_rows(reference.frame))
        found = [judged_share("Valid structure and composition", summary.valid, LIMITS, known)]
        for column, words in CHECKS.items():
            own = summary.checks[column]
            if column in HEADLINES and own is not None:
                beside = None if reference is None else _passed(reference.frame, column)
                found.append(judged_share(HEADLINES[column], own, LIMITS, beside))
            else:
                found.append(stated_share(words[0].upper() + words[1:], own, summary.notes.get(column, "unknown")))
        return found

    def figure(self, samples: CrystalSet, reference: CrystalSet | None, summary: ValiditySummary) -> list[Panel]:
        """Histograms of volumes and closest pairs, and the volume of each crystal."""
        from crystalgfn.evaluation.report import figures

        def histogram(column: str, words: str, caption: str) -> Panel:
            own, known = samples.values(column), values_of(reference, column)
            return Panel(
                section=LATTICE, caption=caption, name=column, draw=lambda: figures.histogram(own, known, words)
            )

        low, high = VOLUMES
        return [
            histogram(
                "relative_volume", "volume over the usual one of these atoms",
                f"Relative volume ({low:g} to {high:g} is usual)",
            ),
            histogram(
                "ratio", "closest pair over the sum of its radii", f"Closest pair (below {CLOSEST:g}: a short contact)"
            ),
            Panel(
                section=LATTICE, caption="Volume of each crystal", name="volumes",
                draw=lambda: figures.volumes(samples.frame, VOLUMES),
            ),
        ]  # fmt: skip


def valid_rows(frame: pd.DataFrame) -> pd.Series:
    """Which rows have a valid structure and a valid composition."""
    return pd.Series(frame["valid_structure"].eq(True) & frame["valid_composition"].eq(True))


def _passed(frame: pd.DataFrame, name: str) -> Share | None:
    found = share_of(frame[name].dropna())
    return found if found.n else None
