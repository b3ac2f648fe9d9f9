"""What came of one crystal: its structures as orbits, and views of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalgfn.crystallography.convert import crystals_of_orbits
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.orbits import OrbitStructure
from crystalgfn.structures.exchange import Exchange, StructureRecord, ase_atoms, caption_of
from crystalgfn.structures.sources.base import PlacementRequest
from crystalgfn.structures.writers import cif
from crystalgfn.utils.plain import Plain

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure

COLUMNS = ("orbits", "origins", "probabilities", "energies")


@dataclass(frozen=True, kw_only=True, repr=False)
class BuildResult(Plain, Exchange):
    """What came of one crystal.

    Attributes:
        request: what was asked for; None for a structure that could not be read.
        orbits: different structures as Wyckoff orbits, best first.
        error: why there is no structure, in a sentence; None where there is one.
        origins: where each comes from: "template", "refiner" (free coordinates made by diffusion), "random" (random
            Wyckoff placement with soft-sphere relaxation), "fixed" (letters without a free coordinate), or the name of
            another source.
        probabilities: of each among all candidates that were found; empty without a refiner.
        energies: total energy of each in eV/atom, NaN where it has none; empty unless they were relaxed or ``energies``
            asked for.
        calculator: name of what gave the energies; None without any.
    """

    request: PlacementRequest | None = None
    orbits: Sequence[OrbitStructure] = ()
    error: str | None = None
    origins: list[str] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    energies: list[float] = field(default_factory=list)
    calculator: str | None = None

    @cached_property
    def candidates(self) -> list[Structure]:
        """The structures as pymatgen's, in their conventional cells."""
        return [one.to_structure() for one in self.orbits]

    @property
    def structure(self) -> Structure | None:
        """The first of ``candidates``; None where there is none."""
        return self.candidates[0] if self.orbits else None

    @property
    def wyckoff(self) -> dict[str, list[str]]:
        """Element symbol -> Wyckoff letters of the orbits of ``structure``."""
        return self.orbits[0].wyckoff() if self.orbits else {}

    @cached_property
    def crystal(self) -> Crystals:
        """Space group, composition and lattice of ``structure``, else of the request: a batch of one.

        A lattice that was not kept is in the fundamental domain of the group. Empty where nothing could be read.
        """
        best = self.orbits[0] if self.orbits else None
        if self.request is not None and (best is None or self._in_its_lattice(best)):
            return self.request.crystal
        return crystals_of_orbits([] if best is None else [best], canonical=True)

    def _in_its_lattice(self, structure: OrbitStructure) -> bool:
        asked = None if self.request is None else self.request.lattice
        return asked is not None and bool(np.allclose(structure.lattice, asked, rtol=1e-9))

    def to_ase(self, rank: int = 0) -> Atoms:
        """The conventional cell of one of the candidates as ASE's atoms."""
        return ase_atoms(self.candidates[rank], self.records()[rank].properties)

    def records(self) -> list[StructureRecord]:
        """The candidates with origin, letters, probability and total energy where there is one."""
        found = []
        for i, (orbits, structure) in enumerate(zip(self.orbits, self.candidates, strict=True)):
            about: dict[str, Any] = {"rank": i + 1, "wyckoff": orbits.wyckoff()}
            about |= {"origin": self.origins[i]} if self.origins else {}
            about |= {"probability": self.probabilities[i]} if self.probabilities else {}
            energy = self.energies[i] if self.energies and not math.isnan(self.energies[i]) else None
            name = f"{structure.composition.reduced_formula}-{orbits.space_group}-{i + 1}"
            found.append(
                StructureRecord(
                    structure=structure, name=name, space_group=orbits.space_group, energy=energy,
                    by=None if energy is None else self.calculator, about=about,
                )
            )  # fmt: skip
        return found

    def __repr__(self) -> str:
        found = self.records()
        if not found:
            return f"BuildResult(no structure: {self.error})"
        return f"BuildResult({caption_of(found[0])}, {len(found)} structure{'s' * (len(found) > 1)})"

    def cif(self, rank: int = 0) -> str:
        """One of the candidates as the text of a CIF, with the operations of its space group."""
        return cif(self.orbits[rank])

    def ordered(self, order: Sequence[int]) -> BuildResult:
        """Some of the candidates in another order."""
        columns = {name: [getattr(self, name)[i] for i in order] for name in COLUMNS if getattr(self, name)}
        return replace(self, **columns)
