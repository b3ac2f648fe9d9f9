"""Which space group, and how many formula units in the primitive cell, a composition crystallises with.

A small model of the composition alone, learned from real crystals: elements in the order of their electronegativity,
with their counts. Probabilities are the softmax over all pairs that can be realised with at most `MAX_ATOMS` atoms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from math import gcd
from pathlib import Path

import numpy as np
import torch
from torch import nn

from crystalgfn.errors import PlacementError
from crystalgfn.structures.model_files import load_model, save_model
from crystalgfn.structures.polymorph_mixture import Mixture
from crystalgfn.tables import elements
from crystalgfn.tables.realisable import MAX_ATOMS, MAX_PARTS, REALISABLE, fit_patterns, pattern_rows
from crystalgfn.typing import PairMask, PairScores, RowVectors, Slots

WEIGHTS = Path(__file__).parent / "data" / "polymorphs.safetensors"
WIDTH = 8
"""Elements that have a place of their own; more only count in the means."""
MEMBERS, EMBEDDING, HIDDEN, SHARED = 2, 16, 128, 24
N_SLOT = 5
N_WHOLE = 8


@dataclass(frozen=True)
class Batch:
    """Reduced compositions, elements by electronegativity, then number."""

    numbers: torch.Tensor  # [B, WIDTH] atomic numbers, 0 where there is no element
    slots: torch.Tensor  # [B, WIDTH, N_SLOT]
    whole: torch.Tensor  # [B, N_WHOLE]
    possible: torch.Tensor  # [B, 230, MAX_ATOMS] bool, pairs that can be realised


def reduced(counts: Mapping[int, int]) -> dict[int, int]:
    """Atoms of each element (by number) in one formula unit.

    Raises:
        PlacementError: there are no atoms.
    """
    kept = {z: int(n) for z, n in counts.items() if n}
    if not kept or min(kept.values()) < 0:
        raise PlacementError(f"{dict(counts)} is no composition; give at least one atom")
    divisor = gcd(*kept.values())
    return {z: n // divisor for z, n in kept.items()}


@lru_cache(maxsize=20_000)
def possible(counts: tuple[int, ...], max_atoms: int = MAX_ATOMS) -> np.ndarray:
    """Which pairs (group, formula units) can be realised, bool [230, MAX_ATOMS]; ``counts`` of one unit ascend."""
    found = np.zeros((230, MAX_ATOMS), dtype=bool)
    several = np.arange(1, min(max_atoms, MAX_ATOMS) // sum(counts) + 1)
    if len(several):
        patterns = several[:, None] * np.array(counts[::-1])
        if len(counts) <= MAX_PARTS:
            found[:, : len(several)] = REALISABLE[:, pattern_rows(patterns)]
        else:
            found[:, : len(several)] = fit_patterns(patterns)
    found.flags.writeable = False
    return found


def collate(compositions: Sequence[Mapping[int, int]], max_atoms: int = MAX_ATOMS) -> Batch:
    """A batch of formula units, atomic number -> atoms."""
    numbers = np.zeros((len(compositions), WIDTH), dtype=np.int64)
    slots = np.zeros((len(compositions), WIDTH, N_SLOT), dtype=np.float32)
    whole = np.zeros((len(compositions), N_WHOLE), dtype=np.float32)
    masks = np.zeros((len(compositions), 230, MAX_ATOMS), dtype=bool)
    for i, units in enumerate(compositions):
        species = sorted(units, key=lambda z: (elements.ELECTRONEGATIVITY[z - 1], z))
        counts = np.array([units[z] for z in species])
        n = counts.sum()
        masks[i] = possible(tuple(sorted(counts.tolist())), max_atoms)
        rows = np.stack([counts / n, np.log(counts), counts == 1, counts == 2, counts == 3], axis=1)
        k = min(len(species), WIDTH)
        numbers[i, :k], slots[i, :k] = species[:k], rows[:k]
        at = np.array(species) - 1
        negativity = elements.ELECTRONEGATIVITY[at]
        radius = elements.RADIUS[at] * 1.0
        mean = (counts * negativity).sum() / n
        whole[i] = [
            len(species) / 3, np.log(n), n / 10, mean - 2, negativity.max() - negativity.min(),
            np.log(radius.max() / radius.min()), (counts * elements.METAL[at]).sum() / n,
            np.sqrt((counts * (negativity - mean) ** 2).sum() / n),
        ]  # fmt: skip
    return Batch(torch.from_numpy(numbers), torch.from_numpy(slots), torch.from_numpy(whole), torch.from_numpy(masks))


class _Member(nn.Module):
    """One network of the ensemble."""

    def __init__(self) -> None:
        super().__init__()
        self.element = nn.Embedding(119, EMBEDDING, padding_idx=0)
        self.element.weight.data *= 0.1
        self.element.weight.data[1:, :6] = torch.tensor(_chemistry(), dtype=torch.float32)
        self.element.weight.data[0] = 0
        inputs = WIDTH * (EMBEDDING + N_SLOT) + EMBEDDING + N_WHOLE
        self.body = nn.Sequential(
            nn.Linear(inputs, HIDDEN), nn.SiLU(), nn.Dropout(0.2), nn.Linear(HIDDEN, HIDDEN), nn.SiLU(), nn.Dropout(0.2)
        )
        self.group = nn.Linear(HIDDEN, 230)
        self.units = nn.Linear(HIDDEN, MAX_ATOMS)
        self.both = nn.Linear(HIDDEN, SHARED)
        self.group_with = nn.Parameter(torch.randn(230, SHARED) * 0.2)
        self.units_with = nn.Parameter(torch.randn(MAX_ATOMS, SHARED) * 0.2)
        self.prior = nn.Parameter(torch.zeros(230, MAX_ATOMS))

    def forward(self, numbers: Slots, slots: torch.Tensor, whole: RowVectors) -> PairScores:
        """[B, 230, MAX_ATOMS]."""
        embedded = self.element(numbers)
        mean = (embedded * slots[:, :, :1]).sum(1)
        hidden = self.body(torch.cat([torch.cat([embedded, slots], 2).flatten(1), mean, whole], 1))
        together = torch.einsum("bk,gk,zk->bgz", self.both(hidden), self.group_with, self.units_with)
        return self.group(hidden)[:, :, None] + self.units(hidden)[:, None] + together + self.prior


class PolymorphModel(nn.Module):
    """Probabilities of (space group, formula units) given a composition; with templates through its mixture."""

    def __init__(self) -> None:
        super().__init__()
        self.members = nn.ModuleList(_Member() for _ in range(MEMBERS))
        self.mixture = Mixture()

    def forward(self, batch: Batch) -> PairScores:
        """ln of the probabilities [B, 230, MAX_ATOMS], -inf for pairs that cannot be realised."""
        parts = torch.stack(
            [log_softmax(m(batch.numbers, batch.slots, batch.whole), batch.possible) for m in self.members]
        )
        return torch.logsumexp(parts, 0) - np.log(MEMBERS)

    @torch.no_grad()
    def log_chances(self, compositions: Sequence[Mapping[int, int]], max_atoms: int = MAX_ATOMS) -> np.ndarray:
        """ln of the probabilities of pairs, [B, 230, MAX_ATOMS] float64; compositions are those of formula units."""
        if not compositions:
            return np.zeros((0, 230, MAX_ATOMS))
        return self(collate(compositions, max_atoms)).double().numpy()

    def save(self, path: str | Path) -> None:
        """Write the weights as safetensors in half precision, aside and then renamed."""
        save_model(self, path)

    @staticmethod
    def load(path: str | Path) -> PolymorphModel:
        """The model in a file of `save`.

        Raises:
            CheckpointError: the file is missing or of another kind.
        """
        return load_model(
            PolymorphModel(), path, "holds no model of polymorphs; fit one, or use the shipped"
        ).requires_grad_(False)

    @staticmethod
    @cache
    def shipped() -> PolymorphModel:
        """The model that comes with the package."""
        return PolymorphModel.load(WEIGHTS)


def log_softmax(scores: PairScores, allowed: PairMask) -> PairScores:
    """Over the pairs that can be, -inf elsewhere."""
    flat = scores.masked_fill(~allowed, -torch.inf).flatten(1)
    return torch.log_softmax(flat, 1).view_as(scores)


def _chemistry() -> np.ndarray:
    columns = np.stack(
        [
            elements.ELECTRONEGATIVITY,
            elements.RADIUS,
            elements.GROUP / 6,
            elements.ROW / 2,
            elements.METAL,
            elements.VOLUME,
        ],
        axis=1,
    ).astype(np.float64)
    return (columns - columns.mean(0)) / columns.std(0)
