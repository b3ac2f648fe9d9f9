"""Which of several candidate structures is likeliest: a small learned score of what speaks for each.

The scores' softmax over the candidates of a crystal is fitted to give the most to those that are the real structure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from crystalgfn.calculators.base import Calculator
from crystalgfn.calculators.symmetric import orbit_energies
from crystalgfn.structures.candidate import Candidate, nearness
from crystalgfn.typing import RowFloats, RowVectors
from crystalgfn.utils import files
from crystalgfn.utils.weight_files import load_model, save_model

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


class CandidateRanker(nn.Module):
    """Scores of candidates, higher for likelier ones."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(N_FEATURES, 1, bias=False)
        self.bent = nn.Sequential(nn.Linear(N_FEATURES, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 1, bias=False))

    def forward(self, rows: RowVectors) -> RowFloats:
        """[n, N_FEATURES] -> [n]."""
        return (self.linear(rows) + self.bent(rows)).squeeze(1)

    @torch.no_grad()
    def ranked(self, own: Sequence[Candidate], n: int | None = None) -> list[tuple[Candidate, float]]:
        """Candidates of one crystal, the likeliest first, with their probabilities among all of these.

        Args:
            own: the candidates.
            n: so many of them, which together are likeliest to hold the right one: of several that are hardly told
                apart only the likeliest; None: all.
        """
        if not own:
            return []
        chances = torch.softmax(self(features(own)).double(), 0).numpy()
        chosen = np.arange(len(own)) if n is None else _together(own, chances, n)
        order = chosen[np.argsort(-chances[chosen], kind="stable")]
        return [(own[i], float(chances[i])) for i in order]

    def save(self, path: str | Path) -> None:
        """Write the weights as safetensors, aside and then renamed."""
        save_model(self, path, half=False)

    @staticmethod
    def load(path: str | Path) -> CandidateRanker:
        """The weights in a file of `save`.

        Raises:
            CheckpointError: the file is missing or of another kind.
        """
        return load_model(
            CandidateRanker(), path, "holds no weights of the choice; fit it, or use the shipped"
        ).requires_grad_(False)

    @staticmethod
    @cache
    def shipped(templates: bool) -> CandidateRanker:
        """The weights that come with the package, for candidates made with templates or without."""
        return CandidateRanker.load(WEIGHTS[templates])


def fit_reranker(
    examples: Sequence[tuple[torch.Tensor, np.ndarray]], decay: float = 1e-3, seed: int = 0
) -> CandidateRanker:
    """Weights that give the real structures of examples the most probability.

    Args:
        examples: `features` of the candidates of a crystal, and which of them are right, bool [n]; those without a
            right or without a wrong one teach nothing.
        decay: weight of the squares of the weights.
        seed: of the start.
    """
    used = [(own, torch.tensor(right)) for own, right in examples if right.any() and not right.all()]
    rows, hits = torch.cat([x for x, _ in used]), torch.cat([y for _, y in used])
    owner = torch.repeat_interleave(torch.arange(len(used)), torch.tensor([len(y) for _, y in used]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CandidateRanker()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        scores = model(rows)
        every = _logsumexp(scores, owner, len(used))
        right = _logsumexp(scores[hits], owner[hits], len(used))
        penalty = sum(p.square().sum() for p in model.parameters())
        value = (every - right).mean() + decay * penalty
        value.backward()
        return value

    optimizer.step(loss)
    return model.eval().requires_grad_(False)


def _logsumexp(scores: torch.Tensor, owner: torch.Tensor, n: int) -> torch.Tensor:
    """Over the rows of each owner, [n]."""
    top = torch.full((n,), -torch.inf).scatter_reduce(0, owner, scores.detach(), "amax")
    return torch.zeros(n).index_add(0, owner, (scores - top[owner]).exp()).log() + top


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

    Args:
        found: the candidates of each crystal.
        choice: says how likely they are.
        n: how many, at most.
        calculator: of more than ``n`` where there are (`WEIGHED`), those come first that are likely and low in its
            energy; None: no energies.

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
