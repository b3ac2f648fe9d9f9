"""Compounds that a list of entries lacks: known crystals with elements swapped, at the energy that a proxy gives them.

A hull of a part of the known compounds has holes, and a sampler finds each: without YF3 every mixture of Y and F looks
stable by 4 eV/atom. Most holes have a neighbour: TbF3 with Y for Tb, at the volume where the proxy puts its minimum.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.properties.base import Property
from crystalgfn.typing import Compositions, ElementTable, Floats
from crystalgfn.utils.progress import Bar

#: Swaps that are tried: for crystals of so many elements, the neighbours that stand in for one element.
NEIGHBOURS = {2: 10, 3: 8, 4: 3}
BOTH = 6  # in binary crystals both elements at once, each by so many
#: Volumes that are tried: of the original times (ratio of the atoms' spheres) ** exponent * factor.
EXPONENTS, FACTORS = (0.0, 0.35, 0.7), (0.95, 1.0, 1.05)


def swapped(
    crystals: Crystals, proxy: Property, n_sigma: float = 1.0, progress: bool = True
) -> tuple[Compositions, Floats]:
    """Compositions of swapped copies and their energies, mean + n_sigma * std at the best of the volumes tried.

    What the proxy does not know well gets a high energy, so that it hardly lowers a hull.

    Args:
        crystals: stable crystals, of which those with two to four elements are swapped.
        proxy: of the formation energy.
        n_sigma: how many standard errors the energies are raised.
        progress: whether to show a progress bar.
    """
    near = neighbours()
    jobs = list(_jobs())
    compositions, energies = [], []
    for n_elements, swaps in Bar(jobs, description="swapping elements", shown=progress):
        part = crystals[crystals.n_elements == n_elements]
        new, made = _swap(part, near, swaps)
        if bool(made.any()):
            part, new = part[made], new[made]
            compositions.append(new)
            energies.append(_lowest(part, new, proxy, n_sigma))
    if not compositions:
        return crystals.composition[:0], crystals.lattice[:0, 0]
    return torch.cat(compositions), torch.cat(energies)


def neighbours() -> ElementTable:
    """For each element the others, most similar first, -1 where none is left: a common oxidation state is needed."""
    # Differences that count alike: 0.4 on Pauling's scale, 15 % of the radius, one and a half rows, two groups.
    table = torch.stack(
        [
            torch.tensor(elements.ELECTRONEGATIVITY) / 0.4,
            torch.tensor(elements.RADIUS).log() / 0.15,
            torch.tensor(elements.ROW) / 1.5,
            torch.tensor(elements.GROUP) / 2.0,
        ],
        1,
    )
    apart = torch.cdist(table, table)
    states = [set(some) for some in elements.OXIDATION_STATES["icsd"]]
    common = torch.tensor([[bool(one & other) for other in states] for one in states])
    apart = torch.where(common, apart, torch.inf).fill_diagonal_(torch.inf)
    distance, order = apart.sort(1)
    return torch.where(torch.isfinite(distance), order, -1)


def _jobs() -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Number of elements, and which element (first, second, ...) gives way to which of its neighbours."""
    for n_elements, ranks in NEIGHBOURS.items():
        for slot in range(n_elements):
            for rank in range(ranks):
                yield n_elements, [(slot, rank)]
    for one in range(BOTH):
        for other in range(BOTH):
            yield 2, [(0, one), (1, other)]


def _swap(crystals: Crystals, near: torch.Tensor, swaps: list[tuple[int, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """New compositions, and for which crystals there is one."""
    old = crystals.composition
    new, made = old.clone(), torch.ones(len(old), dtype=torch.bool)
    place = (old > 0).long().cumsum(1) * (old > 0)
    every = torch.arange(len(old))
    for slot, rank in swaps:
        leaves = (place == slot + 1).long().argmax(1)
        enters = near[leaves, rank]
        made &= enters >= 0
        amount = old[every, leaves]
        new[every, leaves] -= amount
        new[every, enters.clamp_min(0)] += amount
    # Two that became one element are another formula, for which the structure says nothing.
    return new, made & ((new > 0).sum(1) == (old > 0).sum(1)) & (new >= 0).all(1)


def _lowest(crystals: Crystals, composition: torch.Tensor, proxy: Property, n_sigma: float) -> torch.Tensor:
    spheres = torch.tensor(elements.SPHERE_VOLUME)
    ratio = (composition.double() @ spheres) / (crystals.composition.double() @ spheres)
    energies = []
    for exponent in EXPONENTS:
        for factor in FACTORS:
            scale = (ratio**exponent * factor) ** (1 / 3)
            lattice = torch.cat([crystals.lattice[:, :3] * scale[:, None], crystals.lattice[:, 3:]], 1)
            energies.append(proxy.confidence_bound(Crystals(crystals.space_group, composition, lattice), n_sigma))
    return torch.stack(energies).amin(0)
