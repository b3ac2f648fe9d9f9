"""Candidates of a campaign: crystals of a sampler, reweighted by what was learned, with their atoms placed."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.space_groups import CRYSTAL_LATTICE_SYSTEM, CRYSTAL_LATTICE_SYSTEMS
from crystalgfn.crystallography.standardize import nearest_ratio
from crystalgfn.discovery.goals import Goal, meeting, met
from crystalgfn.evaluation.metrics.symmetry import symmetry_of
from crystalgfn.evaluation.relaxation_job import CLOSEST
from crystalgfn.properties.base import Property
from crystalgfn.sampling.sampler import Sampler
from crystalgfn.space.space import CrystalSpace
from crystalgfn.structures.build import build_structures
from crystalgfn.utils.random import derived_seed

if TYPE_CHECKING:
    from pymatgen.core import Structure

Shift = Callable[[Crystals], np.ndarray]
"""Crystals -> what is added to their predicted energies, eV/atom [B]."""
Representation = Callable[[Crystals, Sequence[str | None]], np.ndarray]
"""Crystals and their prototypes (None: not known) -> features [B, F]."""
BUCKETS = 64
"""Features that prototypes are hashed into."""
SCALES = {"fractions": 4.0, "system": 0.3, "space_group": 0.3, "prototype": 0.5, "volume": 1.0}
"""Weights of the parts of `structure_features`: atomic fractions that differ by 0.25 count as 1."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PlacedCrystal:
    """A crystal with atoms, before anything is relaxed.

    Attributes:
        crystal: its parameters, a batch of one, with the cell that its atoms were placed in.
        structure: the primitive cell.
        prototype: anonymous formula, space group and Wyckoff letters; None where spglib finds no symmetry.
        origin: where its coordinates come from, see `crystalgfn.structures.result.BuildResult`.
    """

    crystal: Crystals
    structure: Structure
    prototype: str | None
    origin: str

    @property
    def labels(self) -> dict[str, str]:
        """What it has in common with others."""
        formula = self.crystal.formulas()[0]
        group = int(self.crystal.space_group[0])
        return {"formula": formula, "prototype": str(self.prototype), "crystal": f"{formula} {group}"}

    def to_record(self) -> dict[str, Any]:
        """It as JSON has it, from which `structure_of_choice` and `crystals_of_choices` make the same again."""
        return {
            "labels": self.labels,
            "prototype": self.prototype,
            "origin": self.origin,
            "space_group": int(self.crystal.space_group[0]),
            "counts": self.crystal.counts(0),
            "lattice": self.crystal.lattice[0].double().tolist(),
            "matrix": self.structure.lattice.matrix.tolist(),
            "Z": [int(site.specie.Z) for site in self.structure],
            "frac": self.structure.frac_coords.ravel().tolist(),
        }


def structure_of_choice(record: Mapping[str, Any]) -> Structure:
    """The structure of a record of `PlacedCrystal.to_record`."""
    from pymatgen.core import Lattice, Structure

    names = [elements.SYMBOLS[z - 1] for z in record["Z"]]
    return Structure(Lattice(record["matrix"]), names, np.array(record["frac"]).reshape(-1, 3))


def crystals_of_choices(records: Sequence[Mapping[str, Any]]) -> tuple[Crystals, list[str | None]]:
    """The parameters and the prototypes of at least one record."""
    rows = torch.zeros(len(records), 118, dtype=torch.int64)
    for row, one in zip(rows, records, strict=True):
        for symbol, n in one["counts"].items():
            row[elements.NUMBER[symbol] - 1] = n
    groups = torch.tensor([one["space_group"] for one in records])
    lattice = torch.tensor([one["lattice"] for one in records], dtype=torch.float64)
    return Crystals(groups, rows, lattice), [one["prototype"] for one in records]


@dataclass(frozen=True, kw_only=True)
class ProposerConfig:
    """How candidates are made.

    Attributes:
        draws: crystals sampled each round.
        pool: of them kept by importance weights.
        beta: inverse temperature of the correction, 1/(eV/atom); None: the sampler's own.
        adapt: seconds of fine-tuning the sampler in the space before the first round; None: none.
        substituted: proposals a round by exchange of elements in known prototypes, before what lies outside the space
            is left out (`crystalgfn.discovery.substitution`); 0: none.
        build: further arguments of `build_structures`.
    """

    draws: int = 2000
    pool: int = 600
    beta: float | None = None
    adapt: float | None = None
    substituted: int = 4000
    build: Mapping[str, Any] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """What the candidates depend on, for JSON."""
        build = {name: str(value) for name, value in self.build.items() if name not in ("n_jobs", "progress")}
        names = ("draws", "pool", "beta", "adapt", "substituted")
        return {**{name: getattr(self, name) for name in names}, "build": build}


class Proposer:
    """Draws crystals of one space and places their atoms; the same round gives the same crystals.

    With a correction Δ(x) of the predicted energy (eV/atom) the draws of the sampler's policy q are resampled: ``pool``
    of ``draws`` crystals are taken one after the other without replacement, each with probability proportional to
    w(x) = exp(-β Δ(x)) among those that are left (by Gumbel's trick). For few of many that is the distribution
    q(x) exp(-β Δ(x)) / Z; where q is proportional to R(x) = exp(-β E(x)) it is exp(-β (E + Δ)) / Z, the reward with
    corrected energies. β is the reward's inverse temperature; a reward without one has β = 1, so give it.

    Args:
        sampler: draws.
        space: a narrowed space of it.
        seed: of the campaign.
        config: how.
        others: further crystals of a round, by its number; None: the sampler's alone.
        goals: crystals that are not predicted to meet them are left out, as drawn and as placed.
    """

    def __init__(
        self,
        sampler: Sampler,
        space: CrystalSpace,
        seed: int,
        config: ProposerConfig | None = None,
        others: Callable[[int], Crystals] | None = None,
        goals: Sequence[Goal] = (),
    ) -> None:
        self.sampler, self.space, self.seed, self.config = sampler, space, seed, config or ProposerConfig()
        self.others, self.goals = others, goals
        self.beta = sampler.own_beta if self.config.beta is None else self.config.beta
        self.ess = 1.0

    def draw(self, number: int, shift: Shift | None = None) -> Crystals:
        """The crystals of a round, after the sampler's the others.

        ``ess`` is then the effective sample size of the weights, as a share of the draws.

        Args:
            number: of the round.
            shift: Δ; None: the draws as they are.
        """
        seed = derived_seed(self.seed, 2 * number)
        drawn = meeting(self.goals, self.sampler.sample(self.config.draws, self.space, seed=seed).to("cpu"))
        log_weight = np.zeros(len(drawn)) if shift is None or not len(drawn) else -self.beta * shift(drawn)
        weight = np.exp(log_weight - log_weight.max(initial=-np.inf))
        self.ess = float(weight.sum() ** 2 / (weight**2).sum() / len(weight)) if len(weight) else 0.0
        noise = np.random.default_rng(seed).gumbel(size=len(drawn))
        order = np.argsort(-(log_weight + noise), kind="stable")[: self.config.pool]
        kept = drawn[torch.from_numpy(order)]
        if self.others is None:
            return kept
        others = meeting(self.goals, self.others(number))
        return Crystals.cat([replace(kept, lattice=kept.lattice.double()), others])

    def place(self, crystals: Crystals, number: int) -> list[PlacedCrystal]:
        """Their structures; those that cannot be placed, or only with short contacts, are left out.

        So are those that no longer meet the goals in the cells that their atoms are placed in.
        """
        built = build_structures(crystals, seed=derived_seed(self.seed, 2 * number + 1), **self.config.build)
        found = []
        for result in built:
            own = result.crystal.to("cpu")
            for structure, origin, orbits in zip(result.candidates, result.origins, result.orbits, strict=True):
                symmetry = symmetry_of(structure, ())
                if nearest_ratio(symmetry.primitive) >= CLOSEST:
                    found.append(
                        PlacedCrystal(
                            crystal=replace(own, lattice=torch.tensor([orbits.lattice], dtype=torch.float64)),
                            structure=symmetry.primitive,
                            prototype=symmetry.prototype,
                            origin=origin,
                        )
                    )
        if not self.goals or not found:
            return found
        kept = met(self.goals, Crystals.cat([one.crystal for one in found])).tolist()
        return [one for one, good in zip(found, kept, strict=True) if good]


def structure_features(crystals: Crystals, prototypes: Sequence[str | None]) -> np.ndarray:
    """Atomic fractions, crystal-lattice system, space group, prototype and volume per atom, [B, 118 + 8 + 230 + 65]."""
    composition = crystals.composition.double()
    fractions = (composition / composition.sum(1, keepdim=True)).numpy()
    groups = crystals.space_group.numpy() - 1
    hashed = np.zeros((len(crystals), BUCKETS))
    for i, one in enumerate(prototypes):
        if one is not None:
            hashed[i, zlib.crc32(one.encode()) % BUCKETS] = 1.0
    volume = np.log(crystals.volume_per_atom.double().numpy() / 15.0)[:, None]
    parts = {
        "fractions": fractions,
        "system": np.eye(len(CRYSTAL_LATTICE_SYSTEMS))[np.asarray(CRYSTAL_LATTICE_SYSTEM)[groups]],
        "space_group": np.eye(230)[groups],
        "prototype": hashed,
        "volume": volume,
    }
    return np.concatenate([SCALES[name] * part for name, part in parts.items()], axis=1)


def last_layer_features(proxy: Property) -> Representation:
    """The activations of a proxy's last hidden layer, scaled to a mean square of 1 over them.

    Raises:
        AttributeError: the property is no ensemble of networks.
    """
    layer: Any = getattr(proxy, "last_layer")  # noqa: B009 - of ensembles alone

    def features(crystals: Crystals, prototypes: Sequence[str | None]) -> np.ndarray:
        rows = layer(crystals).double().numpy()
        return rows / np.sqrt((rows**2).mean(1, keepdims=True)).clip(1e-12)

    return features
