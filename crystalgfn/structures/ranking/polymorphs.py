"""Which space group, and how many formula units in the primitive cell, a composition crystallises with.

A small model of the composition alone, learned from real crystals: elements in the order of their electronegativity,
with their counts. Probabilities are the softmax over all pairs that can be realised with at most `MAX_ATOMS` atoms.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
import torch
from torch import nn

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.realizable import MAX_ATOMS, MAX_PARTS, REALISABLE, fit_patterns, pattern_rows
from crystalgfn.data.structure_index import Prototypes
from crystalgfn.structures.ranking.reranker import FeatureScore
from crystalgfn.structures.sources.template_distance import Ranking, ordered_elements
from crystalgfn.typing import PairMask, PairScores, RowVectors, Slots
from crystalgfn.utils import files
from crystalgfn.utils.weight_files import StoredModel

WEIGHTS = files.SHIPPED / "rankers" / "polymorphs.safetensors"

WIDTH = 8
"""Elements that have a place of their own; more only count in the means."""
MEMBERS, EMBEDDING, HIDDEN, SHARED = 2, 16, 128, 24

N_SLOT = 5

N_WHOLE = 8


@dataclass(frozen=True)
class PolymorphBatch:
    """Reduced compositions, elements by electronegativity, then number."""

    numbers: torch.Tensor  # [B, WIDTH] atomic numbers, 0 where there is no element
    slots: torch.Tensor  # [B, WIDTH, N_SLOT]
    whole: torch.Tensor  # [B, N_WHOLE]
    possible: torch.Tensor  # [B, 230, MAX_ATOMS] bool, pairs that can be realised


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


def collate_polymorphs(compositions: Sequence[Mapping[int, int]], max_atoms: int = MAX_ATOMS) -> PolymorphBatch:
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
    return PolymorphBatch(
        torch.from_numpy(numbers), torch.from_numpy(slots), torch.from_numpy(whole), torch.from_numpy(masks)
    )


class _Member(nn.Module):
    """One network of the ensemble."""

    def __init__(self) -> None:
        super().__init__()
        self.element = nn.Embedding(119, EMBEDDING, padding_idx=0)
        self.element.weight.data *= 0.1
        self.element.weight.data[1:, :6] = torch.tensor(elements.chemistry(elements.VOLUME), dtype=torch.float32)
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
        # Two operands at a time: with three, an installed opt_einsum would choose the order, and the last digits.
        pairs = torch.einsum("bk,gk->bgk", self.both(hidden), self.group_with)
        together = torch.einsum("bgk,zk->bgz", pairs, self.units_with)
        return self.group(hidden)[:, :, None] + self.units(hidden)[:, None] + together + self.prior


class PolymorphModel(StoredModel):
    """Probabilities of (space group, formula units) given a composition; with templates through its mixture."""

    what = "model of polymorphs"

    def __init__(self) -> None:
        super().__init__()
        self.members = nn.ModuleList(_Member() for _ in range(MEMBERS))
        self.mixture = Mixture()

    def forward(self, batch: PolymorphBatch) -> PairScores:
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
        return self(collate_polymorphs(compositions, max_atoms)).double().numpy()

    @staticmethod
    @cache
    def shipped() -> PolymorphModel:
        """The model that comes with the package."""
        return PolymorphModel.load(WEIGHTS)


def log_softmax(scores: PairScores, allowed: PairMask) -> PairScores:
    """Over the pairs that can be, -inf elsewhere."""
    flat = scores.masked_fill(~allowed, -torch.inf).flatten(1)
    return torch.log_softmax(flat, 1).view_as(scores)


SHARPNESS = (1.0, 2.0, 4.0)
"""Of the softmax over templates."""
PLAIN = 1
"""Which of them speaks for templates alone."""
FLOOR = 1e-4
"""Added to probabilities before their logarithm is taken."""
LEAST = -14.0
"""The smallest ln of a probability of the model that is told apart."""
N_FEATURES = len(SHARPNESS) + 6


@dataclass(frozen=True)
class _SameCounts:
    """The crystals of an index whose formula units have the same counts; elements by ascending count, then number."""

    rows: np.ndarray  # [R]
    species: np.ndarray  # [R, S]
    pairs: np.ndarray  # [R] (group - 1) MAX_ATOMS + formula units - 1


class Neighbours:
    """Templates of a composition over all groups."""

    def __init__(self, index: Prototypes, ranking: Ranking | None = None) -> None:
        """The crystals of an index; ``ranking`` None: the weights that come with the package."""
        self.index = index
        self.ranking = Ranking.shipped() if ranking is None else ranking
        counts = index.composition
        self._units = np.gcd.reduce(counts, axis=1)
        self._formulas = np.array(index.formulas())
        rows = defaultdict(list)
        for i in np.flatnonzero(counts.sum(1) <= MAX_ATOMS).tolist():
            rows[tuple(np.sort(counts[i][counts[i] > 0] // self._units[i]).tolist())].append(i)
        self._rows = {key: np.array(value) for key, value in rows.items()}
        self._kept: dict[tuple[int, ...], _SameCounts] = {}

    def features(self, units: Mapping[int, int], without: Collection[str] = ()) -> np.ndarray:
        """What templates say of each pair (group, formula units), [230, MAX_ATOMS, N_FEATURES - 1].

        Crystals with a formula of ``without`` (as `Prototypes.formulas` writes it) are no templates.
        """
        flat = np.zeros((230 * MAX_ATOMS, N_FEATURES - 1))
        flat[:, : len(SHARPNESS)] = np.log(FLOOR) / 2
        ordered = sorted((n, z) for z, n in units.items())
        counts, target = tuple(n for n, _ in ordered), np.array([z for _, z in ordered])
        own = self._same_counts(counts)
        if own is None:
            return flat.reshape(230, MAX_ATOMS, -1)
        used = ~np.isin(self._formulas[own.rows], list(without))
        if not used.any():
            return flat.reshape(230, MAX_ATOMS, -1)
        scores, pairs = self.ranking.elements(own.species, counts, target, False)[used], own.pairs[used]
        best = scores.max(axis=1)
        for k, sharpness in enumerate(SHARPNESS):
            weights = np.exp(sharpness * (scores - best.max())).sum(axis=1)
            share = np.bincount(pairs, weights, len(flat)) / weights.sum()
            flat[:, k] = np.log(share + FLOOR) / 2
        number = np.bincount(pairs, minlength=len(flat))
        nearest = np.full(len(flat), -np.inf)
        np.maximum.at(nearest, pairs, best)
        there = number > 0
        flat[there, -5] = 1
        flat[there, -4] = nearest[there] - best.max()
        flat[there, -3] = nearest[there]
        flat[:, -2] = best.max()
        flat[:, -1] = np.log1p(number) / 2
        return flat.reshape(230, MAX_ATOMS, -1)

    def log_chances(self, units: Mapping[int, int], without: Collection[str] = ()) -> np.ndarray:
        """ln of the probabilities of pairs by templates alone, [230, MAX_ATOMS]; all -inf where there is none."""
        said = self.features(units, without)
        shares = np.where(said[..., -5] > 0, np.exp(2 * said[..., PLAIN]) - FLOOR, 0.0)
        with np.errstate(divide="ignore"):
            return np.log(np.maximum(shares, 0.0) / max(shares.sum(), 1e-300))

    def _same_counts(self, counts: tuple[int, ...]) -> _SameCounts | None:
        if counts not in self._rows:
            return None
        if counts not in self._kept:
            rows = self._rows[counts]
            species = [ordered_elements(self.index.composition[i])[1] for i in rows.tolist()]
            pairs = (self.index.space_group[rows].astype(np.int64) - 1) * MAX_ATOMS + self._units[rows] - 1
            self._kept[counts] = _SameCounts(rows, np.array(species), pairs)
        return self._kept[counts]


def mixed_features(log_chances: np.ndarray, said: np.ndarray) -> np.ndarray:
    """What the mixture sees of pairs: ln of the model's probabilities [...], and `Neighbours.features`."""
    return np.concatenate([np.maximum(log_chances, LEAST)[..., None] / 2, said], axis=-1)


class Mixture(FeatureScore):
    """Scores of pairs (group, formula units) from what the model of compositions and the templates say."""

    def __init__(self) -> None:
        super().__init__(N_FEATURES)
        nn.init.zeros_(self.linear.weight)
        for last in self.bent[2].parameters():
            nn.init.zeros_(last)
        with torch.no_grad():
            self.linear.weight[0, 0] = 2.0  # the model alone

    @torch.no_grad()
    def log_chances(self, log_chances: np.ndarray, said: np.ndarray) -> np.ndarray:
        """ln of the probabilities of pairs [230, MAX_ATOMS] of one composition, from those of the model; -inf stays.

        ``said`` is what templates say (`Neighbours.features`).
        """
        allowed = np.isfinite(log_chances)
        found = np.full(log_chances.shape, -np.inf)
        if allowed.any():
            rows = torch.tensor(mixed_features(log_chances[allowed], said[allowed]), dtype=torch.float32)
            found[allowed] = torch.log_softmax(self(rows).double(), 0).numpy()
        return found
