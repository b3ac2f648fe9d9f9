"""Whether given crystals are in a space, and why not: independent of the moves by which crystals are drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from crystalgfn.crystallography import elements, space_groups
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.lattice import in_domain
from crystalgfn.space.cell import relative_volume
from crystalgfn.space.tables import realisable_compositions
from crystalgfn.typing import Booleans

if TYPE_CHECKING:
    from crystalgfn.space.space import CrystalSpace

LENGTH_TOLERANCE = 1e-3  # relative, on lengths, volumes and densities
ANGLE_TOLERANCE = 0.01  # degrees

Check = tuple[Callable[[int], str], torch.Tensor]


def checks(space: CrystalSpace, crystals: Crystals) -> list[Check]:
    """All rules of a space on a batch: for each a function that words the reason for crystal i, and bool [B]."""
    return [*_composition(space, crystals), *_group(space, crystals), *_cell(space, crystals)]


def cell_inside(space: CrystalSpace, crystals: Crystals) -> Booleans:
    """Whether the cells obey all limits on them, bool [B]."""
    return torch.stack([ok for _, ok in _cell(space, crystals)]).all(0)


def _composition(space: CrystalSpace, crystals: Crystals) -> list[Check]:
    counts = crystals.composition
    formulas = crystals.formulas()
    allowed = torch.zeros(118, dtype=torch.bool, device=counts.device)
    allowed[[z - 1 for z in space.element_numbers]] = True
    foreign = (counts > 0) & ~allowed
    required = sorted({elements.NUMBER[s] for s in space.required_elements})
    missing = counts[:, [z - 1 for z in required]] == 0

    def between(name: str, values: torch.Tensor) -> Check:
        low, high = getattr(space, name)
        return lambda i: f"{name} {int(values[i])} outside [{low}, {high}]", (values >= low) & (values <= high)

    present = counts > 0
    largest = counts.max(1).values
    smallest = torch.where(present, counts, counts.max() + 1).min(1).values
    low, high = space.atoms_per_element
    out: list[Check] = [
        (lambda i: f"element {elements.SYMBOLS[int(foreign[i].nonzero()[0])]} is not in the space", ~foreign.any(1)),
        (lambda i: f"required element {elements.SYMBOLS[required[int(missing[i].nonzero()[0])] - 1]} is missing",
         ~missing.any(1)),
        between("n_elements", crystals.n_elements),
        between("n_atoms", crystals.n_atoms),
        (lambda i: f"atoms_per_element {int(smallest[i])} to {int(largest[i])} outside [{low}, {high}]",
         (smallest >= low) & (largest <= high)),
    ]  # fmt: skip
    if space.formula is not None:
        units = torch.zeros(118, dtype=torch.int64, device=counts.device)
        for z, n in space.formula_units.items():
            units[z - 1] = n
        z0, n0 = next(iter(space.formula_units.items()))
        multiple = counts[:, z0 - 1] // n0
        same = (counts == multiple[:, None] * units).all(1) & (multiple > 0)
        out.append((lambda i: f"{formulas[i]} is not {space.formula}", same))
    rule = space.charge_rule
    table = counts.cpu().numpy()
    unique, inverse = np.unique(table, axis=0, return_inverse=True)
    neutral = np.array(
        [rule.neutral({int(z) + 1: int(row[z]) for z in np.flatnonzero(row)}) for row in unique] or [True]
    )
    neutral_rows = torch.from_numpy(neutral[inverse.reshape(-1)] if len(table) else np.zeros(0, bool)).to(counts.device)
    name = space.oxidation_states if isinstance(space.oxidation_states, str) else "the given"
    out.append(
        (lambda i: f"{formulas[i]} is not neutral by {name} oxidation states, mixed_valence={space.mixed_valence}",
         neutral_rows)
    )  # fmt: skip
    return out


def _group(space: CrystalSpace, crystals: Crystals) -> list[Check]:
    number = crystals.space_group
    inside = (number >= 1) & (number <= 230)
    index = (number - 1).clamp(0, 229)
    allowed = torch.as_tensor(space.group_allowed, device=number.device)[index] & inside
    fits = realisable_compositions(index.cpu().numpy(), crystals.composition.cpu().numpy())

    def place(i: int) -> str:
        row = crystals.composition[i]
        counts = "+".join(str(int(c)) for c in row[row > 0].sort(descending=True).values)
        symbol = space_groups.SYMBOL[int(index[i])]
        return f"{counts} atoms cannot be laid on Wyckoff positions of {symbol} with exactly that group"

    return [
        (lambda i: f"space group {int(number[i])} is not in the space", allowed),
        (place, torch.from_numpy(fits).to(number.device)),
    ]


def _cell(space: CrystalSpace, crystals: Crystals) -> list[Check]:
    lattice = crystals.lattice.double()
    number = crystals.space_group.clamp(1, 230)
    lengths, angles = lattice[:, :3], lattice[:, 3:]

    def between(name: str, values: torch.Tensor, relative: float, absolute: float) -> Check:
        low, high = getattr(space, name)
        ok = (values >= low * (1 - relative) - absolute) & (values <= high * (1 + relative) + absolute)
        ok = ok.reshape(len(values), -1).all(1)
        return (
            lambda i: f"{name} {[round(float(x), 4) for x in values[i].reshape(-1)]} outside [{low}, {high}]",
            ok,
        )

    out = [
        (
            lambda i: (
                f"the cell {[round(float(x), 4) for x in lattice[i]]} is not the reduced conventional cell of "
                f"{space_groups.SYMBOL[int(number[i]) - 1]}"
            ),
            in_domain(number, lattice, LENGTH_TOLERANCE, ANGLE_TOLERANCE),
        ),
        between("lengths", lengths, LENGTH_TOLERANCE, 0.0),
        between("angles", angles, 0.0, ANGLE_TOLERANCE),
        between("volume_per_atom", crystals.volume_per_atom.double(), LENGTH_TOLERANCE, 0.0),
    ]
    if space.density is not None:
        out.append(between("density", crystals.density.double(), LENGTH_TOLERANCE, 0.0))
    if space.relative_volume is not None:
        out.append(between("relative_volume", relative_volume(crystals).double(), LENGTH_TOLERANCE, 0.0))
    return out
