"""What real crystals lend to a discovery: their prototypes with other elements, and templates for placing atoms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.data.structure_index import Prototypes
from crystalgfn.discovery.phases import KnownPhases
from crystalgfn.discovery.proposer import ProposerConfig
from crystalgfn.errors import DataError
from crystalgfn.space.space import CHARGE, CrystalSpace
from crystalgfn.structures.config import templates_of
from crystalgfn.utils.random import derived_seed

DRAWS = 24
"""Of the refiner for each crystal; `build_structures` makes 60 where it generates cells, and takes most of a round."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Substitution:
    """Proposes crystals (group, composition, cell) that real crystals become when their elements are exchanged.

    A proposal is a real crystal, drawn evenly, with its elements mapped one to one onto elements of the space, drawn
    evenly too, in a cell scaled by what the atoms take up in known crystals. What lies outside the space is left out,
    and of each (formula, group) the first is kept.

    Attributes:
        index: the real crystals.
        space: of the proposals.
        seed: of the campaign.
        n: proposals a round before these are left out.
    """

    index: Prototypes
    space: CrystalSpace
    seed: int
    n: int = 4000

    def draw(self, number: int) -> Crystals:
        """The proposals of a round; the same round gives the same ones."""
        rng = np.random.default_rng(derived_seed(self.seed, number))
        allowed = np.array(sorted(self.space.element_numbers))
        low, high = self.space.n_elements
        sizes = (self.index.composition > 0).sum(1)
        atoms = self.index.composition.sum(1)
        fewest = max(low, len(self.space.required_elements))
        usable = (sizes >= fewest) & (sizes <= min(high, len(allowed))) & (atoms <= self.space.n_atoms[1])
        rows = np.flatnonzero(usable)
        if not len(rows):
            return self._crystals(rows, np.zeros((0, 118), dtype=np.int64))
        chosen = rng.choice(rows, self.n)
        compositions = np.zeros((self.n, 118), dtype=np.int64)
        for own, row in zip(compositions, chosen.tolist(), strict=True):
            counts = self.index.composition[row]
            present = np.flatnonzero(counts)
            own[rng.permutation(allowed)[: len(present)] - 1] = counts[present]
        found = self._crystals(chosen, compositions)
        found = found[self.space.contains(found)]
        names = zip(found.formulas(), found.space_group.tolist(), strict=True)
        first = {name: i for i, name in reversed(list(enumerate(names)))}
        return found[torch.tensor(sorted(first.values()), dtype=torch.int64)]

    def _crystals(self, rows: np.ndarray, compositions: np.ndarray) -> Crystals:
        """The cells of real crystals at the volume of other atoms."""
        lattice = self.index.lattice[rows].astype(np.float64)
        before = self.index.composition[rows] @ elements.VOLUME
        lattice[:, :3] *= ((compositions @ elements.VOLUME) / before)[:, None] ** (1 / 3)
        groups = torch.from_numpy(self.index.space_group[rows].astype(np.int64))
        return Crystals(groups, torch.from_numpy(compositions), torch.from_numpy(lattice))


def substitutions(index: Prototypes | None, space: CrystalSpace, seed: int, n: int) -> Callable[[int], Crystals] | None:
    """What a round adds to the sampler's crystals; None without an index, or where none are wanted."""
    return Substitution(index=index, space=space, seed=seed, n=n).draw if index is not None and n else None


def placing(
    config: ProposerConfig, reference: Any, phases: KnownPhases, progress: bool = False
) -> tuple[ProposerConfig, Prototypes | None]:
    """Settings of placement with what goes without saying, and the index of the real crystals that lend structures.

    With ``refiner=None`` atoms are placed at random, and on templates only where the settings name some.

    Args:
        config: of the proposer; templates that it names are used.
        reference: as it was given; its own structures are the templates otherwise.
        phases: of the reference in the space.
        progress: shows a bar while structures are read.
    """
    build = dict(config.build)
    if build.get("refiner", "default") is not None:
        build.setdefault("lattice", "generate")
        build.setdefault("n_candidates", 2)
        build.setdefault("draws", DRAWS)
    templates = build.get("templates")
    if templates is None and any(one.entry is not None for one in phases.phases):
        sources = [reference] if isinstance(reference, str | Path) else reference
        if isinstance(sources, Sequence) and all(isinstance(one, str | Path) for one in sources):
            templates = _with_atoms(sources, progress)
    source = templates_of(templates or "aflow")
    if templates is not None or build.get("refiner", "default") is not None:
        build["templates"] = source
    return replace(config, build=build), getattr(source, "index", None)


def _with_atoms(sources: Sequence[str | Path], progress: bool) -> Prototypes | None:
    """The index of those sources that have structures."""
    found = []
    for one in sources:
        with suppress(DataError):  # a table of formulas and energies
            found.append(Prototypes.read(one, progress=progress))
    return Prototypes.join(found) if found else None


def asked_space(space: CrystalSpace | Mapping[str, Any] | None, narrowed: CrystalSpace) -> CrystalSpace:
    """What was asked for, without the charge rule of the sampler's space that nobody asked for."""
    if not isinstance(space, Mapping):
        return narrowed
    symbols = [elements.SYMBOLS[z - 1] for z in sorted(narrowed.element_numbers)]
    own = {name: value for name, value in narrowed.to_dict().items() if name not in CHARGE}
    own |= {"elements": symbols, "constraints": narrowed.constraints}
    return CrystalSpace(**{**own, "oxidation_states": None, **{k: v for k, v in space.items() if k in CHARGE}})
