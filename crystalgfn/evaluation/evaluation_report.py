"""The short table that an evaluation prints."""

from __future__ import annotations

from crystalgfn.evaluation.distributions import Distribution, Spread
from crystalgfn.evaluation.evaluate import CHECKS, Evaluation
from crystalgfn.evaluation.record import markdown
from crystalgfn.evaluation.shares import Share


def tables(figures: Evaluation) -> str:
    """Headline figures, diversity, distributions and stability in Markdown."""
    parts = ["## Crystals", _shares(_headline(figures)), "## Diversity", _diversity(figures)]
    if figures.properties:
        whose = f" (formation energies: {figures.energies})" if figures.energies else ""
        parts += [f"## Properties{whose}", _properties(figures.properties)]
    if figures.stability is not None:
        parts += [f"## Stability ({figures.stability.label})", _stability(figures)]
    return "\n\n".join(parts)


def _headline(figures: Evaluation) -> dict[str, Share | str | None]:
    rows: dict[str, Share | str | None] = {
        "read": figures.readable,
        "valid structure and composition, of all given": figures.valid,
        **{words: figures.checks[name] or figures.notes.get(name) for name, words in CHECKS.items()},
    }
    for symprec, agrees in figures.groups.items():
        rows[f"group as claimed, at {symprec} Å"] = agrees if agrees.n else "no group claimed"
    rows["unique"] = figures.unique
    rows["novel"] = figures.novel or "no reference"
    if figures.swap_unique is not None:
        rows["unique, elements exchanged"] = figures.swap_unique
        rows["novel, elements exchanged"] = figures.swap_novel or "no reference"
    rows["valid, unique and novel, of all given"] = figures.good
    return rows


def _shares(rows: dict[str, Share | str | None]) -> str:
    cells = []
    for words, value in rows.items():
        if isinstance(value, Share):
            cells.append([words, f"{value.k} of {value.n}", str(value)])
        else:
            cells.append([words, "", value or "unknown"])
    return markdown(["", "crystals", "share (95 %)"], cells)


def _diversity(figures: Evaluation) -> str:
    sets = {"all": figures.diversity}
    if figures.diversity_best is not None:
        sets[f"best {figures.diversity_best.n} by {figures.best_by}"] = figures.diversity_best
    rows = []
    for name in figures.diversity.kinds:
        row = [name.replace("_", " ")]
        for one in sets.values():
            row.append(f"{one.kinds[name].distinct} ({one.kinds[name].effective:.1f})")
        rows.append(row)
    rows.append(["P1", *(str(one.p1) for one in sets.values())])
    if figures.diversity.distance is not None:
        words = [
            "" if one.distance is None else f"{one.distance:.3f} (by chance {one.noise:.3f})" for one in sets.values()
        ]
        rows.append(["distance of groups to the reference", *words])
    return markdown(["distinct (effective number)", *sets], rows)


def _properties(properties: dict[str, Distribution]) -> str:
    rows = []
    for name, one in properties.items():
        other = "" if one.reference is None else _spread(one.reference)
        distance = "" if one.wasserstein is None else f"{one.wasserstein:.3g}"
        scaled = "" if one.scaled is None else f"{one.scaled:.2f}"
        rows.append(
            [f"{name.replace('_', ' ')}, {one.unit}".rstrip(", "), _spread(one.samples), other, distance, scaled]
        )
    return markdown(["median (5-95 %)", "samples", "reference", "Wasserstein", "in std of reference"], rows)


def _stability(figures: Evaluation) -> str:
    found = figures.stability
    rows: dict[str, Share | str | None] = {
        "relaxed, with an energy above the hull": found.relaxed,
        "came to rest": found.converged,
        "stable (on or below the hull)": found.stable,
        "metastable (at most 0.1 eV/atom above)": found.metastable,
        "S.U.N.: stable, unique, novel": found.sun,
        "M.S.U.N.: metastable, unique, novel": found.msun,
    }
    spreads = {
        "eV/atom above the hull": found.e_above_hull,
        "eV/atom that relaxing brought": found.relaxation_energy,
        "displacement, Å": found.displacement,
        "change of the volume": found.volume_change,
        "seconds a crystal": found.seconds,
    }
    lines = [
        _shares(rows),
        markdown(["median (5-95 %)", ""], [[k, _spread(v) if v else ""] for k, v in spreads.items()]),
    ]
    if found.failures:
        lines.append("\n".join(f"- {n} without: {reason}" for reason, n in found.failures.items()))
    return "\n\n".join(lines)


def _spread(one: Spread) -> str:
    low, _, middle, _, high = one.quantiles
    return f"{middle:.3g} ({low:.3g}-{high:.3g})" if low >= 0 else f"{middle:.3g} ({low:.3g} to {high:.3g})"
