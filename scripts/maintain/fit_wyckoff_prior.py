"""Fits the model of Wyckoff assignments to an index of real crystals.

``python -m scripts.maintain.fit_wyckoff_prior train.parquet --exclude val.parquet --out wyckoff.safetensors``
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from tqdm import tqdm

from crystalgfn.crystallography import space_groups
from crystalgfn.crystallography.assignments import Letters
from crystalgfn.crystallography.enumeration import assignments, representative
from crystalgfn.crystallography.orbits import OrbitStructure
from crystalgfn.structures.ranking.wyckoff import (
    OF_CELL,
    WEIGHTS,
    AssignmentBatch,
    WyckoffModel,
    WyckoffSite,
    collate_assignments,
)
from crystalgfn.typing import Booleans, Floats, Integers, RowFloats, RowIndex
from scripts.maintain import fitting
from scripts.maintain.program import run

OTHERS = 48
"""Assignments beside the real one that a crystal is fitted with, at most; the rest is left out at random."""
ENUMERATED = 200
"""Assignments that they are drawn from, at most."""
ALONE = 0.3
"""Weight of the loss of the sum over orbits, which says what is looked at first."""
DECAY = 0.01
BATCH = 64


@dataclass(frozen=True)
class Example:
    """One crystal with its assignments, the real one at ``truth``."""

    batch: AssignmentBatch
    truth: int


def real_assignment(structure: OrbitStructure) -> tuple[WyckoffSite, Letters]:
    """A crystal and the representative of its letters, elements by ascending count, then number."""
    counts = structure.composition
    species = sorted(counts, key=lambda z: (counts[z], z))
    letters = [[orbit.letter for orbit in structure.orbits if orbit.species == z] for z in species]
    site = WyckoffSite(
        structure.space_group,
        tuple(species),
        tuple(counts[z] for z in species),
        np.array(structure.lattice, dtype=np.float64),
    )
    return site, representative(structure.space_group, letters)


@lru_cache(maxsize=20_000)
def _enumerated(space_group: int, counts: tuple[int, ...]) -> list[Letters]:
    """All assignments; where there are many, a part that is drawn at random with more free parameters preferred."""
    rng = np.random.default_rng([space_group, *counts])
    values = {
        (e, p.letter): 0.5 * float(np.log1p(p.n_free)) + float(rng.gumbel())
        for e in range(len(counts))
        for p in space_groups.WYCKOFF[space_group - 1]
    }
    return assignments(space_group, counts, ENUMERATED, lambda e, letter: values[e, letter])[0]


def examples(structures: Iterable[OrbitStructure], seed: int = 0, progress: bool = False) -> list[Example]:
    """Crystals with more than one assignment, each beside a random part of the others."""
    rng = np.random.default_rng(seed)
    found = []
    for structure in tqdm(structures, disable=not progress, desc="enumerating", mininterval=5):
        site, truth = real_assignment(structure)
        others = [letters for letters in _enumerated(site.space_group, site.counts) if letters != truth]
        if not others:
            continue
        if len(others) > OTHERS:
            others = [others[i] for i in rng.choice(len(others), OTHERS, replace=False)]
        found.append(Example(collate_assignments([(site, [truth, *others])]), 0))
    return found


def join(parts: Sequence[Example], without: Booleans) -> tuple[AssignmentBatch, Integers]:
    """One batch of several crystals and the places of the real assignments; some [B] without their lattice."""
    orbits = np.cumsum([0, *(len(p.batch.orbit_element) for p in parts)])
    rows = np.cumsum([0, *(len(p.batch.owner) for p in parts)])
    cat = torch.cat
    orbit_crystal = cat([torch.full((len(p.batch.orbit_element),), b) for b, p in enumerate(parts)])
    owner = cat([torch.full((len(p.batch.owner),), b) for b, p in enumerate(parts)])
    orbit_features = cat([p.batch.orbit_features for p in parts])
    assignment_features = cat([p.batch.assignment_features for p in parts])
    crystal_features = cat([p.batch.crystal_features for p in parts])
    orbit_features[:, OF_CELL["orbit"]] *= ~without[orbit_crystal, None]
    assignment_features[:, OF_CELL["assignment"]] *= ~without[owner, None]
    crystal_features[:, OF_CELL["crystal"]] *= ~without[:, None]
    joined = AssignmentBatch(
        orbit_features=orbit_features,
        orbit_element=cat([p.batch.orbit_element for p in parts]),
        orbit_letter=cat([p.batch.orbit_letter for p in parts]),
        orbit_crystal=orbit_crystal,
        member_orbit=cat([p.batch.member_orbit + int(o) for p, o in zip(parts, orbits, strict=False)]),
        member_assignment=cat([p.batch.member_assignment + int(r) for p, r in zip(parts, rows, strict=False)]),
        assignment_features=assignment_features,
        owner=owner,
        crystal_features=crystal_features,
    )
    return joined, torch.tensor([p.truth + int(r) for p, r in zip(parts, rows, strict=False)])


def cross_entropy(scores: RowFloats, owner: RowIndex, truth: Integers) -> Floats:
    """- ln of the probability of the real assignment of each crystal, [B]."""
    n = len(truth)
    top = torch.full((n,), -torch.inf).scatter_reduce(0, owner, scores.detach(), "amax")
    total = top + torch.zeros(n).index_add(0, owner, (scores - top[owner]).exp()).log()
    return total - scores[truth]


def fit(parts: Sequence[Example], epochs: int = 12, held: float = 0.05, seed: int = 0) -> WyckoffModel:
    """The model that gives real assignments the most probability; half of the crystals are shown without lattice."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(parts))
    aside, used = order[: int(held * len(parts))], order[int(held * len(parts)) :]
    model = WyckoffModel()
    average = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=DECAY)
    steps = epochs * (len(used) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps + 1)
    for epoch in range(epochs):
        shuffled, total = rng.permutation(used), 0.0
        for start in range(0, len(used) - BATCH + 1, BATCH):
            chosen = [parts[i] for i in shuffled[start : start + BATCH]]
            batch, truth = join(chosen, torch.from_numpy(rng.random(len(chosen)) < 0.5))
            scores, alone = model(batch)
            loss = cross_entropy(scores, batch.owner, truth).mean()
            total += float(loss.detach())
            loss = loss + ALONE * cross_entropy(alone, batch.owner, truth).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            for slow, fast in zip(average.parameters(), model.parameters(), strict=True):
                slow.data.lerp_(fast.data, 0.01)
        print(
            f"epoch {epoch + 1}: {total / (len(used) // BATCH):.3f} nats; {_figures(average, parts, aside)}", flush=True
        )
    return average.eval()


@torch.no_grad()
def _figures(model: WyckoffModel, parts: Sequence[Example], aside: np.ndarray) -> str:
    words = []
    for name, hidden in (("with", False), ("without", True)):
        losses, hits = [], []
        for start in range(0, len(aside), 256):
            chosen = [parts[i] for i in aside[start : start + 256]]
            batch, truth = join(chosen, torch.full((len(chosen),), hidden))
            scores = model(batch)[0]
            losses.append(cross_entropy(scores, batch.owner, truth))
            top = torch.full((len(truth),), -torch.inf).scatter_reduce(0, batch.owner, scores, "amax")
            hits.append((scores[truth] >= top).float())
        if losses:
            words.append(f"{name} lattice {torch.cat(losses).mean():.3f} nats, {torch.cat(hits).mean():.3f} right")
    return "; ".join(words)


def main(arguments: list[str] | None = None) -> None:
    """Reads the crystals, fits, writes the weights."""
    parser = fitting.parser(__doc__, WEIGHTS, epochs=12)
    parser.add_argument("--crystals", type=int, help="fit to so many of them, drawn at random; all by default")
    options = parser.parse_args(arguments)
    index = fitting.read_index(options)
    if options.crystals is not None:
        index = index.select(np.random.default_rng(options.seed).permutation(len(index))[: options.crystals])
    parts = examples(index, options.seed, progress=True)
    print(f"{len(index)} crystals, {len(parts)} of them with more than one assignment")
    fit(parts, options.epochs, seed=options.seed).save(options.out)
    print(f"weights written to {options.out}")


if __name__ == "__main__":
    run(main)
