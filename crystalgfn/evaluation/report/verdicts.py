"""What is good and bad about a set of crystals: each headline figure with its number and what it is compared with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from crystalgfn.evaluation.metrics.distributions import Distribution
from crystalgfn.evaluation.metrics.diversity import Diversity
from crystalgfn.evaluation.summary import Evaluation
from crystalgfn.utils.statistics import Share, share_of

if TYPE_CHECKING:
    import pandas as pd

GOOD, FAIR, BAD, UNKNOWN = "good", "fair", "bad", "unknown"
BELOW = (0.05, 0.2)
"""How far a share may lie below the reference's to be good, or fair."""
CHANCE = (2.0, 4.0)
"""Times the distance by chance: up to the first the groups are good, up to the second fair."""
SCALED = (0.25, 1.0)
"""Standard deviations of the reference: Wasserstein distances up to the first are good, up to the second fair."""
LIMITS = {
    "readable": (0.99, 0.9),
    "valid": (0.9, 0.7),
    "unique": (0.95, 0.8),
    "novel": (0.5, 0.2),
    "good": (0.5, 0.2),
    "group": (0.95, 0.8),
    "relaxed": (0.95, 0.8),
    "metastable": (0.5, 0.2),
    "stable": (0.1, 0.02),
    "sun": (0.1, 0.02),
    "msun": (0.5, 0.2),
}
"""Shares from which a figure is good, or fair, where the reference has none; conventions of the report, not physics."""
AGAINST = {
    "apart": "Atoms not too close",
    "usual_volume": "Usual volume",
    "neutral_icsd": "Neutral (states of ICSD)",
    "neutral_common": "Neutral (common states)",
    "smact": "Valid by SMACT",
}
"""Checks among the headline figures; compared with what known crystals do."""


@dataclass(frozen=True)
class Verdict:
    """One headline figure.

    Attributes:
        name: what it is of.
        figure: the number.
        detail: counts and interval.
        level: good, fair, bad or unknown.
        why: what it is compared with.
    """

    name: str
    figure: str
    detail: str
    level: str
    why: str


def verdicts(figures: Evaluation, reference: pd.DataFrame | None = None) -> list[Verdict]:
    """The headline figures; shares are set beside the reference's where that can be asked the same."""
    found = [_share("Readable", figures.readable, "readable")]
    known = (
        None if reference is None else reference["valid_structure"].eq(True) & reference["valid_composition"].eq(True)
    )
    found.append(_beside("Valid structure and composition", figures.valid, known, "valid"))
    for column, name in AGAINST.items():
        if figures.checks.get(column) is not None:
            known = None if reference is None else reference[column].dropna()
            found.append(_beside(name, figures.checks[column], known, "valid"))
    for symprec, share in figures.groups.items():
        if share.n:
            found.append(_share(f"Group as claimed, at {symprec}\u00a0Å", share, "group"))
    found.append(_share("Unique", figures.unique, "unique"))
    if figures.novel is not None:
        found.append(_share("Novel", figures.novel, "novel"))
    words = "Valid and unique" if figures.novel is None else "Valid, unique and novel"
    found += [_share(words, figures.good, "good"), *_groups(figures.diversity)]
    found += [_property(name, one) for name, one in figures.properties.items() if one.scaled is not None]
    return found + _stability(figures)


def _share(name: str, share: Share | None, kind: str) -> Verdict:
    good, fair = LIMITS[kind]
    if share is None or share.share is None:
        return Verdict(name, "unknown", "", UNKNOWN, "Nothing to judge it by.")
    why = f"Limits: good from {100 * good:g} %, fair from {100 * fair:g} %."
    return Verdict(name, _percent(share), _detail(share), _level(share.share, good, fair), why)


def _beside(name: str, share: Share, known: pd.Series | None, kind: str) -> Verdict:
    """Beside the reference's share; without one by the limits of its kind."""
    beside = None if known is None else share_of(known)
    if beside is None or beside.share is None or share.share is None:
        return _share(name, share, kind)
    level = _level(share.share, beside.share - BELOW[0], beside.share - BELOW[1])
    why = f"Compared with {_percent(beside)} of {beside.n:,} crystals of the reference."
    return Verdict(name, _percent(share), _detail(share), level, why)


def _percent(share: Share) -> str:
    return f"{100 * share.share:.1f} %"


def _detail(share: Share) -> str:
    return f"{share.k:,} of {share.n:,}; 95 %: {100 * share.low:.1f}-{100 * share.high:.1f} %"


def _level(value: float, good: float, fair: float) -> str:
    return GOOD if value >= good else FAIR if value >= fair else BAD


def _groups(found: Diversity) -> list[Verdict]:
    if found.distance is None or found.noise is None:
        return []
    level = _level(-found.distance, -CHANCE[0] * found.noise, -CHANCE[1] * found.noise)
    chance = f"Compared with {found.noise:.3f}, what as many of the reference have by chance"
    why = f"{chance}; good up to {CHANCE[0]:g}, fair up to {CHANCE[1]:g} times that."
    return [Verdict("Distance of groups to the reference", f"{found.distance:.3f}", "0: equal, 1: apart", level, why)]


def _property(name: str, one: Distribution) -> Verdict:
    middles = f"median {one.samples.quantiles[2]:.3g}, reference {one.reference.quantiles[2]:.3g} {one.unit}".rstrip()
    level = _level(-one.scaled, -SCALED[0], -SCALED[1])
    why = f"Wasserstein, in standard deviations of the reference; good up to {SCALED[0]:g}, fair up to {SCALED[1]:g}."
    return Verdict(f"Distance: {plain_name(name)}", f"{one.scaled:.2f}", middles, level, why)


def plain_name(column: str) -> str:
    """A column in words."""
    words = {
        "n_elements": "number of elements",
        "n_atoms": "atoms in the cell",
        "e_above_hull": "energy above the hull",
        "source_energy_above_hull": "energy above the hull (source)",
        "source_e_above_hull": "energy above the hull (source)",
    }
    return words.get(column, column.replace("_", " "))


def _stability(figures: Evaluation) -> list[Verdict]:
    found = figures.stability
    if found is None:
        return []
    rows = {
        "Energy above the hull found": (found.relaxed, "relaxed"),
        "Stable": (found.stable, "stable"),
        "Metastable (0.1 eV/atom)": (found.metastable, "metastable"),
        "S.U.N.": (found.sun, "sun"),
        "M.S.U.N.": (found.msun, "msun"),
    }
    found_of = [_share(f"{name}, {found.label}", share, kind) for name, (share, kind) in rows.items()]
    caution = f" The hull is of {found.hull_entries:,} entries; potentials and hulls with gaps make too many stable."
    return [found_of[0], *(replace(one, why=one.why + caution) for one in found_of[1:])]
