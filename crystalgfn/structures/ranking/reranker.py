"""Which of several candidate structures is likeliest: a small learned score of what speaks for each.

The scores' softmax over the candidates of a crystal is fitted to give the most to those that are the real structure.
Among what speaks for a candidate is its plausibility, by a network that tells right structures from wrong: that of the
refiner with another end. It looks at the structure as it is, so it also says something where no coordinate is free and
where cells differ.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from crystalgfn.calculators.base import Calculator
from crystalgfn.calculators.symmetric import orbit_energies
from crystalgfn.crystallography.orbit_batch import OrbitBatch, bucket_by_size, check_orbits
from crystalgfn.crystallography.orbits import OrbitStructure
from crystalgfn.structures.candidate import Candidate, nearness
from crystalgfn.structures.refiner.network import ScoreNetwork
from crystalgfn.typing import Floats, RowFloats, RowVectors
from crystalgfn.utils import files
from crystalgfn.utils.files import path_of
from crystalgfn.utils.weight_files import StoredModel, WeightFiles

DATA = files.SHIPPED / "rankers"

WEIGHTS = {True: DATA / "choice.safetensors", False: DATA / "choice_alone.safetensors"}
"""With templates among what speaks for candidates, and without."""
N_FEATURES, HIDDEN = 15, 16

FLOOR = 1e-3
"""Added to probabilities before their logarithm is taken."""
LEAST = -10.0
"""Logarithm of the probability by plausibility alone, at least."""
ALIKE, ALIKE_SHAPE = 0.27, 0.3
"""Widths of the Gaussians in the differences of fingerprints and cells that say how often two structures are both right
or both wrong; for fingerprints about `fit_plausibility.RIGHT`."""


def features(own: Sequence[Candidate]) -> RowVectors:
    """What speaks for each candidate of one crystal, [n, N_FEATURES]."""
    columns = (
        "template", "letters", "draw_frequency", "min_contact_ratio", "kernel_density", "template_density", "plausible",
    )  # fmt: skip
    template, letters, frequency, contact, density, real, plausible = (
        np.array([getattr(candidate, name) for candidate in own]) for name in columns
    )
    best = template.max() if len(own) else 0.0
    rows = [
        np.log(template + FLOOR) / 2,
        template > 0,
        np.full(len(own), best > 0),
        np.full(len(own), best),
        np.log(letters + FLOOR) / 2,
        2 * frequency,
        np.log(frequency + 0.02) / 2,
        np.minimum(contact, 1.0) * 2,
        4 * np.maximum(0.75 - contact, 0.0),
        np.full(len(own), frequency.max() if len(own) else 0.0),
        2 * density,
        np.log(density + 0.02) / 2,
        2 * real,
        np.log(real + FLOOR) / 2,
        np.maximum(plausible - np.logaddexp.reduce(plausible), LEAST) / 2 if len(own) else plausible,
    ]
    return torch.tensor(np.stack(rows, axis=1), dtype=torch.float32)


def _together(own: Sequence[Candidate], chances: np.ndarray, n: int) -> np.ndarray:
    """Positions of at most ``n``, each the likeliest of those left to be right where none of those before is.

    Candidates whose fingerprints and cells are near each other are right or wrong together, the nearer the oftener.
    """
    fingerprints = [candidate.fingerprint for candidate in own]
    left, chosen = chances.copy(), []
    for _ in range(min(n, len(own))):
        left[chosen] = -1.0
        chosen.append(i := int(left.argmax()))
        left *= 1 - nearness(fingerprints[i], fingerprints, ALIKE, ALIKE_SHAPE)
    return np.array(chosen)


class FeatureScore(StoredModel):
    """A score of rows of features: a linear one plus a small network."""

    def __init__(self, features: int, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 1, bias=False)
        self.bent = nn.Sequential(nn.Linear(features, hidden), nn.Tanh(), nn.Linear(hidden, 1, bias=False))

    def forward(self, rows: RowVectors) -> RowFloats:
        """[n, features] -> [n]."""
        return (self.linear(rows) + self.bent(rows)).squeeze(1)


class CandidateRanker(FeatureScore):
    """Scores of candidates, higher for likelier ones."""

    what, half_precision = "weights of the choice of candidates", False

    def __init__(self) -> None:
        super().__init__(N_FEATURES)

    @torch.no_grad()
    def ranked(self, own: Sequence[Candidate], n: int | None = None) -> list[tuple[Candidate, float]]:
        """Candidates of one crystal, the likeliest first, with their probabilities among all of these.

        ``n`` of them are those that together are likeliest to hold the right one: of several that are hardly told apart
        only the likeliest; None: all.
        """
        if not own:
            return []
        chances = torch.softmax(self(features(own)).double(), 0).numpy()
        chosen = np.arange(len(own)) if n is None else _together(own, chances, n)
        order = chosen[np.argsort(-chances[chosen], kind="stable")]
        return [(own[i], float(chances[i])) for i in order]

    @staticmethod
    @cache
    def shipped(templates: bool) -> CandidateRanker:
        """The weights that come with the package, for candidates made with templates or without."""
        return CandidateRanker.load(WEIGHTS[templates])


WEIGHED = 20
"""Candidates of a crystal that get energies, where so many were found."""
PER_ENERGY = 0.05
"""eV/atom by which a candidate is higher than another for odds of 1 to e: about what is wrong with energies of
structures that nobody relaxed, so far more than any thermal energy."""
Ranked = list[tuple[Candidate, float]]
"""Candidates of one crystal with their probabilities, the likeliest first."""


def rank_candidates(
    found: Sequence[Sequence[Candidate]],
    choice: CandidateRanker,
    n: int,
    calculator: Calculator | str | None = None,
) -> list[Ranked]:
    """At most ``n`` candidates of each crystal, with their probabilities among all of its own.

    With a calculator, of more than ``n`` where there are (`WEIGHED`), those come first that are likely and low in its
    energy.

    Raises:
        NotAvailable: the calculator's package is not installed.
    """
    if calculator is None:
        return [choice.ranked(own, n) for own in found]
    ranked = [choice.ranked(own, max(n, WEIGHED)) for own in found]
    every = [candidate.structure for own in ranked for candidate, _ in own]
    energy = iter(orbit_energies(every, calculator).tolist())
    return [reweight_by_energy([(replace(c, energy=next(energy)), p) for c, p in own])[:n] for own in ranked]


def reweight_by_energy(ranked: Ranked) -> Ranked:
    """The same, with probabilities times exp(-energy / `PER_ENERGY`), together what they were before.

    A candidate without an energy counts as high as the highest: there may be none where an atom has no neighbour.
    """
    energy = np.array([candidate.energy for candidate, _ in ranked])
    known = np.isfinite(energy)
    if not known.any():
        return ranked
    above = np.where(known, energy - energy[known].min(), np.ptp(energy[known]))
    before = np.array([probability for _, probability in ranked])
    after = before * np.exp(-above / PER_ENERGY)
    after *= before.sum() / after.sum()
    return [(ranked[i][0], float(after[i])) for i in np.argsort(-after, kind="stable")]


PLAUSIBILITY = files.SHIPPED / "rankers" / "plausibility.safetensors"
"""The weights of `Plausibility` that come with the package."""
FILES = WeightFiles(
    what="plausibility of structures", format="crystalgfn-plausibility", version=1, remedy="fit it again"
)

SIGMA = 0.003
"""Noise that the network is told of: next to none."""


class Plausibility(nn.Module):
    """Logarithms of how plausible structures are, up to a constant of the crystal.

    Args:
        body: a refiner's network; its outputs are not used.
    """

    def __init__(self, body: ScoreNetwork) -> None:
        super().__init__()
        self.body = body
        width = body.shape["width"]
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1))

    def forward(self, batch: OrbitBatch) -> Floats:
        """The mean over the atoms of a function of each one's surroundings, [B]."""
        sigma = batch.free.new_full((len(batch),), SIGMA)
        _, h, *_ = self.body.encode(batch, sigma, torch.zeros_like(sigma), tensors=False)
        share = (batch.multiplicity * batch.orbit_mask) / batch.n_atoms.clamp_min(1)[:, None]
        return (self.head(h.to(sigma)).squeeze(-1) * share).sum(1)

    @torch.no_grad()
    def of(self, structures: Sequence[OrbitStructure]) -> Floats:
        """The same of structures of any sizes, [n].

        Raises:
            PlacementError: a structure that cannot be.
        """
        for i, structure in enumerate(structures):
            check_orbits(structure, i)
        result = torch.zeros(len(structures))
        device = self.body.mean.device
        for rows in bucket_by_size(structures, range(len(structures)), device.type):
            result[rows] = self(OrbitBatch.of([structures[i] for i in rows]).to(device)).float().cpu()
        return result

    def save(self, path: str | Path) -> Path:
        """Write the weights in half precision, aside and then renamed; returns the file."""
        tensors = {name: value.half() for name, value in self.state_dict().items()}
        return FILES.write(path_of(path), tensors, shape=json.dumps(self.body.shape))

    @staticmethod
    def load(path: str | Path) -> Plausibility:
        """The weights in a file of `save`.

        Raises:
            CheckpointError: the file is missing, damaged, or of another kind.
        """
        return FILES.load(path_of(path), lambda header: Plausibility(ScoreNetwork(**json.loads(header["shape"]))))

    @staticmethod
    @cache
    def shipped(device: str = "cpu") -> Plausibility:
        """The weights that come with the package."""
        return Plausibility.load(PLAUSIBILITY).to(device)
