"""What real crystals with the same counts say of a composition's group and formula units, and how much it weighs.

Every crystal of an index whose formula has the same counts is a template, whatever its group: its elements are
replaced, and the distances of elements that rank the templates of one group rank all of them
(``crystalgfn.structures.ranking``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from crystalgfn.structures.prototypes import Prototypes
from crystalgfn.structures.ranking import Ranking, permutations_of
from crystalgfn.tables.realisable import MAX_ATOMS
from crystalgfn.typing import RowFloats, RowVectors

SHARPNESS = (1.0, 2.0, 4.0)
"""Of the softmax over templates."""
PLAIN = 1
"""Which of them speaks for templates alone."""
FLOOR = 1e-4
"""Added to probabilities before their logarithm is taken."""
LEAST = -14.0
"""The smallest ln of a probability of the model that is told apart."""
N_FEATURES, HIDDEN = len(SHARPNESS) + 6, 16


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

        Args:
            units: atomic number -> atoms in one formula unit.
            without: formulas whose crystals are no templates, as `Prototypes.formulas` writes them.
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
        scores, pairs = self._scores(own, counts, target)[used], own.pairs[used]
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

    def _scores(self, own: _SameCounts, counts: tuple[int, ...], target: np.ndarray) -> np.ndarray:
        """[R, P] of templates with each exchange of elements with equal counts."""
        exchanges = np.array(list(permutations_of(counts)))
        distances = self.ranking.distance[own.species[:, exchanges] - 1, target - 1]
        return self.ranking.elements(distances, np.array(counts) / sum(counts), False)

    def _same_counts(self, counts: tuple[int, ...]) -> _SameCounts | None:
        if counts not in self._rows:
            return None
        if counts not in self._kept:
            rows = self._rows[counts]
            species = []
            for i in rows.tolist():
                present = np.flatnonzero(self.index.composition[i])
                species.append(present[np.argsort(self.index.composition[i][present], kind="stable")] + 1)
            pairs = (self.index.space_group[rows].astype(np.int64) - 1) * MAX_ATOMS + self._units[rows] - 1
            self._kept[counts] = _SameCounts(rows, np.array(species), pairs)
        return self._kept[counts]


def mixed_features(log_chances: np.ndarray, said: np.ndarray) -> np.ndarray:
    """What the mixture sees of pairs: ln of the model's probabilities [...], and `Neighbours.features`."""
    return np.concatenate([np.maximum(log_chances, LEAST)[..., None] / 2, said], axis=-1)


class Mixture(nn.Module):
    """Scores of pairs (group, formula units) from what the model of compositions and the templates say."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(N_FEATURES, 1, bias=False)
        self.bent = nn.Sequential(nn.Linear(N_FEATURES, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 1, bias=False))
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.bent[2].weight)
        with torch.no_grad():
            self.linear.weight[0, 0] = 2.0  # the model alone

    def forward(self, rows: RowVectors) -> RowFloats:
        """[n, N_FEATURES] -> [n]."""
        return (self.linear(rows) + self.bent(rows)).squeeze(1)

    @torch.no_grad()
    def log_chances(self, log_chances: np.ndarray, said: np.ndarray) -> np.ndarray:
        """ln of the probabilities of pairs [230, MAX_ATOMS] of one composition; -inf stays -inf.

        Args:
            log_chances: those of the model, [230, MAX_ATOMS].
            said: by the templates (`Neighbours.features`).
        """
        allowed = np.isfinite(log_chances)
        found = np.full(log_chances.shape, -np.inf)
        if allowed.any():
            rows = torch.tensor(mixed_features(log_chances[allowed], said[allowed]), dtype=torch.float32)
            found[allowed] = torch.log_softmax(self(rows).double(), 0).numpy()
        return found
