"""What the page shows: its HTML, structures as points and sticks, phase diagrams and powder patterns as SVG."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from crystalgfn.app.forms import UPLOADS
from crystalgfn.app.vocabulary import ALL_SYSTEMS
from crystalgfn.crystallography import elements
from crystalgfn.evaluation.report.page import conventional_structure
from crystalgfn.properties.plausibility import FAMILIES
from crystalgfn.rewards import registry
from crystalgfn.space.constraints.prototypes import prototype_names
from crystalgfn.space.space import CrystalSpace

if TYPE_CHECKING:
    from pymatgen.core import Structure

LAST = 86
"""Atomic number of the last element in the table."""
_KINDS = {
    "alkali": FAMILIES["alkali metals"], "earth": FAMILIES["alkaline earths"],
    "lanthanide": FAMILIES["lanthanides"], "transition": FAMILIES["transition metals"],
    "metalloid": FAMILIES["metalloids"], "halogen": FAMILIES["halogens"], "noble": "He Ne Ar Kr Xe Rn",
    "nonmetal": "H C N O P S Se", "metal": "Al Ga In Sn Tl Pb Bi Po",
}  # fmt: skip
_NOBLE = {2: (1, 18), 10: (2, 18), 18: (3, 18), 36: (4, 18), 54: (5, 18), 86: (6, 18)}


def table_cell(z: int) -> tuple[int, int]:
    """Row and column of an element in the periodic table; lanthanides stand in row 8.

    Example:
        >>> table_cell(1), table_cell(13), table_cell(26), table_cell(64)
        ((1, 1), (3, 13), (4, 8), (8, 10))
    """
    if 57 <= z <= 71:
        return 8, z - 57 + 3
    starts = (1, 3, 11, 19, 37, 55)
    row = sum(z >= one for one in starts)
    if z in _NOBLE:
        return _NOBLE[z]
    ahead = z - starts[row - 1]
    if ahead < 2:
        return row, ahead + 1
    gap = {1: 0, 2: 10, 3: 10, 4: 0, 5: 0, 6: -14}[row]
    return row, ahead + 1 + gap


@cache
def page(has_reference: bool) -> str:
    """The whole page; ``has_reference``: whether discoveries can be made."""
    available = set(CrystalSpace().element_numbers)
    buttons = "".join(_element(z, z in available) for z in range(1, LAST + 1))
    systems = "".join(
        f'<label class="chip"><input type="checkbox" name="system" value="{one}"><span>{one}</span></label>'
        for one in ALL_SYSTEMS
    )
    own = "".join(f'<option value="reward:{escape(one)}">{escape(one)}</option>' for one in registry.installed())
    values = {
        "elements": buttons,
        "systems": systems,
        "prototypes": "".join(f'<option value="{escape(one)}">' for one in prototype_names()),
        "own_goals": f'<optgroup label="own rewards">{own}</optgroup>' if own else "",
        "accept": ",".join(UPLOADS),
        "max_atoms": "20",
        "reference": "yes" if has_reference else "no",
    }
    parts = (Path(__file__).parent / "page.html").read_text(encoding="utf-8").split("{{")
    ends = (part.split("}}", 1) for part in parts[1:])
    return parts[0] + "".join(values[name] + rest for name, rest in ends)


def _element(z: int, available: bool) -> str:
    symbol = elements.SYMBOLS[z - 1]
    kind = next((name for name, members in _KINDS.items() if symbol in members.split()), "metal")
    row, column = table_cell(z)
    off = "" if available else " disabled"
    return (
        f'<button type="button" class="element {kind} r{row} c{column}" data-symbol="{symbol}" data-row="{row}" '
        f'data-column="{column}" tabindex="{0 if z == 3 else -1}"{off}><small>{z}</small>{symbol}</button>'
    )


def command_lines(commands: Sequence[Sequence[str]]) -> list[str]:
    """What a terminal is told to do the same."""
    return [shlex.join(["crystalgfn", *one]) for one in commands]


def csv_of(path: Path) -> str:
    """A Parquet table as CSV, without the columns that hold atoms."""
    frame = pd.read_parquet(path)
    plain = [
        name
        for name in frame
        if not frame[name].map(lambda one: hasattr(one, "__len__") and not isinstance(one, str)).to_numpy().any()
    ]
    return frame[plain].to_csv(index=False, float_format="%.6g")  # fmt: skip


ON_A_FACE = 1e-3
"""Fractional coordinate below which an atom is drawn on the opposite face too."""
IONIC = 0.9
"""Range of Pauling's electronegativities above which bonds are drawn between unlike elements only."""
BONDED, SHORT = 1.2, 1.3
"""Of the sum of radii: longest bond, and longest between two atoms of non-metals."""
MOST_BONDS = 2000
SPARE = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#42d4f4", "#f032e6", "#bfef45", "#9a6324", "#ffe119")
"""Colours for elements whose own are too like another's."""
UNLIKE, UNLIKE_WHITE = 150.0, 90.0
"""Distance of two colours that can be told apart, in 0..255 weighted by what eyes see; and from the white ground."""


def colours(symbols: Sequence[str]) -> dict[str, str]:
    """A colour for each element: Jmol's, or where two are alike one that is not.

    Example:
        >>> own = colours(["Li", "Mn", "O"])
        >>> own["O"]
        '#ff0d0d'
    """
    from ase.data.colors import jmol_colors

    found: dict[str, str] = {}
    for symbol in sorted(symbols, key=lambda one: -elements.ELECTRONEGATIVITY[elements.NUMBER[one] - 1]):
        rgb = [round(255 * float(part)) for part in jmol_colors[elements.NUMBER[symbol]]]
        own = "#{:02x}{:02x}{:02x}".format(*rgb)
        alike = any(_unlike(own, one) < UNLIKE for one in found.values())
        if alike or _unlike(own, "#ffffff") < UNLIKE_WHITE:
            own = max(SPARE, key=lambda one: min([_unlike(one, other) for other in found.values()], default=0))
        found[symbol] = own
    return found


def _unlike(one: str, other: str) -> float:
    """Distance of two colours (the "redmean" of Riemersma)."""
    a, b = (np.array([int(text[i : i + 2], 16) for i in (1, 3, 5)], dtype=float) for text in (one, other))
    mean, (red, green, blue) = (a[0] + b[0]) / 2, a - b
    return float(np.sqrt((2 + mean / 256) * red**2 + 4 * green**2 + (2 + (255 - mean) / 256) * blue**2) / 1.7)


def scene(structure: Structure) -> dict[str, Any]:
    """The conventional cell with the atoms on its faces, for the viewer; lengths in Å, the centre at 0.

    Returns:
        ``elements`` (symbol, colour, radius), ``atoms`` (x, y, z, element), ``bonds`` (pairs of atoms), ``cell`` (the
        eight corners), and ``edges`` (pairs of corners).
    """
    shown = conventional_structure(structure)
    matrix = np.asarray(shown.lattice.matrix)
    symbols = [max(site.species.items(), key=lambda one: one[1])[0].symbol for site in shown]
    fractional, kinds = [], []
    for site, symbol in zip(shown, symbols, strict=True):
        own = np.mod(site.frac_coords + ON_A_FACE, 1) - ON_A_FACE
        for shift in product(*[(0, 1) if abs(x) < ON_A_FACE else (0,) for x in own]):
            fractional.append(own + shift)
            kinds.append(symbol)
    middle = matrix.sum(0) / 2
    at = np.array(fractional) @ matrix - middle
    names = sorted(set(kinds), key=lambda one: elements.ELECTRONEGATIVITY[elements.NUMBER[one] - 1])
    own = colours(names)
    corners = np.array(list(product((0, 1), repeat=3))) @ matrix - middle
    edges = [(i, j) for i in range(8) for j in range(i) if bin(i ^ j).count("1") == 1]
    return {
        "elements": [[one, own[one], float(elements.RADIUS[elements.NUMBER[one] - 1])] for one in names],
        "atoms": [[*np.round(x, 4).tolist(), names.index(kind)] for x, kind in zip(at, kinds, strict=True)],
        "bonds": _bonds(at, kinds),
        "cell": np.round(corners, 4).tolist(),
        "edges": edges,
    }


def _bonds(at: np.ndarray, kinds: Sequence[str]) -> list[list[int]]:
    """Pairs of atoms that are drawn with a bond."""
    z = np.array([elements.NUMBER[one] - 1 for one in kinds])
    radius, chi = elements.RADIUS[z], elements.ELECTRONEGATIVITY[z]
    apart = np.linalg.norm(at[:, None] - at[None], axis=2)
    near = apart / (radius[:, None] + radius[None])
    unlike = np.abs(chi[:, None] - chi[None])
    span = np.ptp(chi)
    bonded = near < BONDED
    if span >= IONIC:
        covalent = (near < SHORT) & (chi[:, None] > 2) & (chi[None] > 2)
        bonded = (bonded & (unlike > 0.35 * span)) | covalent
    pairs = np.argwhere(np.triu(bonded & (apart > 0.3), 1))
    return pairs[:MOST_BONDS].tolist()


def pattern_svg(structure: Structure) -> str:
    """The powder pattern, Cu Kα, 5 to 90 degrees."""
    from pymatgen.analysis.diffraction.xrd import XRDCalculator

    found = XRDCalculator("CuKa").get_pattern(structure, two_theta_range=(5, 90))
    width, height, left, bottom = 460, 260, 12, 212

    def x(angle: float) -> float:
        return left + (angle - 5) / 85 * (width - left - 12)

    parts = [_line(left, bottom, width - 12, bottom, "axis")]
    for angle in range(10, 91, 10):
        parts += [_line(x(angle), bottom, x(angle), bottom + 5, "axis"), _text(x(angle), bottom + 20, str(angle))]
    for angle, intensity, families in zip(found.x, found.y, found.hkls, strict=True):
        plane = " ".join(str(one) for one in families[0]["hkl"])
        title = f"{angle:.2f}°, ({plane}), intensity {intensity:.0f}"
        parts.append(_line(x(angle), bottom, x(angle), bottom - 1.9 * intensity, "peak", title))
    parts.append(_text((left + width) / 2, bottom + 37, "2θ, degrees (Cu Kα)"))
    return _svg(width, height, parts, "Powder pattern")


def phases_svg(diagram: Any, chosen: str) -> str:
    """A phase diagram of two or three axes; ``chosen``: name of the entry that is marked."""
    from pymatgen.analysis.phase_diagram import PDPlotter

    lines, stable, unstable = PDPlotter(diagram).pd_plot_data
    marks = {tuple(at): (entry, 0.0) for at, entry in stable.items()}
    others = [(tuple(at), entry, diagram.get_e_above_hull(entry)) for entry, at in unstable.items()]
    others = [one for one in others if one[2] < 0.3 or _name(one[1]) == chosen]
    draw = _binary if diagram.dim == 2 else _ternary
    return draw(lines, marks, others, chosen, [one.symbol for one in diagram.elements])


def _name(entry: Any) -> str:
    return getattr(getattr(entry, "original_entry", entry), "name", "")


def _formula(entry: Any) -> str:
    own = getattr(entry, "original_entry", entry).composition
    return own.reduced_formula if len(own.elements) > 1 else own.elements[0].symbol


def _mark(x: float, y: float, entry: Any, above: float, chosen: str) -> list[str]:
    """A point of a diagram with its title; the chosen one larger."""
    original = getattr(entry, "original_entry", entry)
    formula, own = _formula(entry), _name(entry)
    known = getattr(original, "attribute", None) is None
    kind = "chosen" if own == chosen else "phase" if known else "found"
    where = "on the hull" if above < 1e-6 else f"{above:.3f} eV/atom above the hull"
    radius = 8 if own == chosen else 4.5 if above < 1e-6 else 2.6
    title = f"{own if known is False else formula if own in (formula, '') else f'{formula} ({own})'}: {where}"
    return [
        f'<circle class="{kind}{"" if above < 1e-6 else " above"}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}">'
        f"<title>{escape(title)}</title></circle>"
    ]


def _binary(lines: Any, marks: Mapping[Any, Any], others: Any, chosen: str, axes: Sequence[str]) -> str:
    width, height, left, right, top, bottom = 460, 320, 52, 22, 16, 262
    energies = [at[1] for at in marks] + [at[1] for at, _, _ in others] + [0.0]
    low, high = min(energies) * 1.08 - 1e-3, max(0.02, max(energies))

    def xy(at: Sequence[float]) -> tuple[float, float]:
        x = left + at[0] * (width - left - right)
        return x, top + (high - at[1]) / (high - low) * (bottom - top)

    parts = [_line(*xy((0, 0)), *xy((1, 0)), "grid")]
    for value in np.linspace(low, high, 5):
        parts.append(_text(left - 8, xy((0, value))[1] + 4, f"{value:.2f}", "end"))
    parts += [_line(*xy((x[0], y[0])), *xy((x[1], y[1])), "hull") for x, y in lines]
    for at, entry, above in others:
        parts += _mark(*xy(at), entry, above, chosen)
    for at, (entry, above) in marks.items():
        parts += _mark(*xy(at), entry, above, chosen)
        x, y = xy(at)
        parts.append(_text(x, y + 19, _formula(entry)))
    parts.append(_text((left + width) / 2, bottom + 40, f"{axes[0]} to {axes[1]}; formation energy, eV/atom"))
    return _svg(width, height, parts, "Phase diagram")


def _ternary(lines: Any, marks: Mapping[Any, Any], others: Any, chosen: str, axes: Sequence[str]) -> str:
    width, height, side, left, bottom = 460, 410, 390, 35, 370

    def xy(at: Sequence[float]) -> tuple[float, float]:
        return left + at[0] * side, bottom - at[1] * side

    parts = [_line(*xy((x[0], y[0])), *xy((x[1], y[1])), "hull") for x, y in lines]
    for at, entry, above in others:
        parts += _mark(*xy(at), entry, above, chosen)
    for at, (entry, above) in marks.items():
        parts += _mark(*xy(at), entry, above, chosen)
    places: list[tuple[float, float]] = []
    for at, (entry, _) in sorted(marks.items(), key=lambda one: _name(one[1][0]) != chosen):
        x, y = xy(at)
        corner = len(getattr(entry, "original_entry", entry).composition.elements) == 1
        y = y + 24 if at[1] < 0.02 else y - 11
        if corner or all(
            abs(x - a) > 56 or abs(y - b) > 14 for a, b in places
        ):  # names that would overlap are left out
            places.append((x, y))
            parts.append(_text(x, y, _formula(entry)))
    return _svg(width, height, parts, "Phase diagram")


def _line(x: float, y: float, x2: float, y2: float, kind: str, title: str = "") -> str:
    said = f"<title>{escape(title)}</title>" if title else ""
    return f'<line class="{kind}" x1="{x:.1f}" y1="{y:.1f}" x2="{x2:.1f}" y2="{y2:.1f}">{said}</line>'


def _text(x: float, y: float, words: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _svg(width: int, height: int, parts: Sequence[str], title: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{title}">'
        f"{''.join(parts)}</svg>"
    )
