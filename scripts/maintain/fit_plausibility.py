"""Fits the plausibility of structures to draws of a refiner for real crystals.

``python -m scripts.maintain.fit_plausibility train.npz``, where ``train.npz`` holds prepared
crystals (`refiner_data.prepare`) without those that anything is to be measured on. For each crystal the refiner makes a
few structures with its own letters, with other likely ones and with two elements exchanged, once in its cell and once
in cells of the refiner's own; the network learns which of them are the real structure. With ``--templates`` some of
them come with all that is made where no cell is known instead: templates in their own cells, as they are and refined,
and draws with their letters.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.convert import formula_of
from crystalgfn.crystallography.enumeration import representative
from crystalgfn.crystallography.orbit_batch import OrbitBatch
from crystalgfn.crystallography.orbits import Orbit, OrbitStructure
from crystalgfn.crystallography.realizable import MAX_ATOMS
from crystalgfn.data.structure_index import Prototypes
from crystalgfn.structures.candidate import candidate_of
from crystalgfn.structures.candidate_pool import candidates
from crystalgfn.structures.config import BuildConfig
from crystalgfn.structures.ranking.reranker import PLAUSIBILITY, Plausibility
from crystalgfn.structures.ranking.wyckoff import WyckoffModel
from crystalgfn.structures.refiner import dataset
from crystalgfn.structures.refiner.refiner import DiffusionRefiner
from crystalgfn.structures.sources.base import PlacementRequest
from crystalgfn.structures.sources.templates import Templates
from scripts.maintain.program import run

OWN, OTHERS = 3, 3
"""Draws with the real letters, and choices of other letters with a draw each, at most."""
LIKELY, LOOKED_AT = 8, 64
"""The most probable letters that others are drawn from, and of how many."""
LARGEST = 60
"""Atoms; larger crystals are left out."""
CHUNK = 100
"""Crystals drawn for at once."""
DRAWS = 72
"""Of the refiner for a crystal whose cell is not known."""
GAPS = (0.0, 0.125, 0.175, 0.225, 0.275, 0.35, 0.45, 0.55, 0.7, 0.9, 1.2)
RIGHT = (1.0, 0.93, 0.74, 0.72, 0.58, 0.45, 0.3, 0.21, 0.11, 0.03, 0.003)
"""The share of structures that pymatgen's StructureMatcher finds equal to the real one (stol 0.5, ltol 0.3, angle_tol
10) by the largest difference of fingerprints; measured on 4,500 candidates for 160 crystals of MP-20 train."""


@dataclass(frozen=True)
class Example:
    """Structures of one crystal, and for each how probably it is the real one."""

    structures: list[OrbitStructure]
    right: np.ndarray

    @property
    def teaches(self) -> bool:
        """Whether right and wrong ones are among them."""
        return bool(len(self.right) and self.right.max() > 0.5 > self.right.min())


def starts(structure: OrbitStructure, rng: np.random.Generator, model: WyckoffModel) -> list[OrbitStructure]:
    """The crystal with its own letters, with other likely ones, and with two elements exchanged."""
    counts, group, cell = structure.counts, structure.space_group, np.array(structure.lattice)
    own = representative(group, [structure.wyckoff()[symbol] for symbol in counts])
    ranked = model.rank(group, counts, cell, LIKELY, LOOKED_AT)
    others = [x for x in ranked if representative(group, [x[0][symbol] for symbol in counts]) != own]
    found = [structure] * OWN
    if others:
        shares = np.array([probability + 0.02 for _, probability in others])
        chosen = rng.choice(len(others), min(OTHERS, len(others)), replace=False, p=shares / shares.sum())
        for letters in (others[i][0] for i in chosen.tolist()):
            orbits = (Orbit(letter, elements.NUMBER[name]) for name, all_ in letters.items() for letter in all_)
            found.append(replace(structure, orbits=tuple(orbits)))
    numbers = list(structure.composition)
    pairs = [(x, y) for x in numbers for y in numbers if x < y and structure.composition[x] == structure.composition[y]]
    if pairs:
        x, y = pairs[rng.integers(len(pairs))]
        swapped = (replace(orbit, species={x: y, y: x}.get(orbit.species, orbit.species)) for orbit in structure.orbits)
        found.append(replace(structure, orbits=tuple(swapped)))
    return found


def examples(
    crystals: Sequence[OrbitStructure], refiner: DiffusionRefiner, lattice: str, seed: int = 0
) -> list[Example]:
    """Draws for each crystal, in its cell or (``lattice="generate"``) in cells of the refiner's own."""
    model, result = WyckoffModel.shipped(), []
    used = [c for c in crystals if sum(c.composition.values()) <= LARGEST]
    for at in tqdm(range(0, len(used), CHUNK), desc=f"drawing ({lattice})", unit=f"{CHUNK} crystals"):
        part = used[at : at + CHUNK]
        asked = [starts(c, np.random.default_rng((seed, at + i)), model) for i, c in enumerate(part)]
        seeds = [(seed, at + i, k) for i, own in enumerate(asked) for k in range(len(own))]
        made = iter(refiner.refine([start for own in asked for start in own], lattice, seeds=seeds))
        for crystal, own in zip(part, asked, strict=True):
            result.append(_example(crystal, [next(made) for _ in own]))
    return result


def among_candidates(
    crystals: Sequence[OrbitStructure],
    refiner: DiffusionRefiner,
    templates: Templates,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[Example]:
    """All candidates of each crystal where its cell is not known, templates of its own formula and group left out."""
    config = BuildConfig(refiner=refiner, templates=templates, lattice="generate", draws=draws, seed=seed)
    found: list[Example] = []
    for at in tqdm(range(0, len(crystals), CHUNK // 5), desc="candidates", unit=f"{CHUNK // 5} crystals"):
        part = crystals[at : at + CHUNK // 5]
        requests = [
            PlacementRequest(
                space_group=crystal.space_group,
                counts=crystal.counts,
                stream=(i,),
                excluded={(formula_of(crystal), crystal.space_group)},
            )
            for i, crystal in enumerate(part, start=at)
        ]
        for crystal, (own, _) in zip(part, candidates(requests, config), strict=True):
            found.append(_example(crystal, [candidate.structure for candidate in own]))
    return found


def _example(crystal: OrbitStructure, drawn: Sequence[OrbitStructure]) -> Example:
    truth = candidate_of(crystal)
    found = [(structure, candidate_of(structure)) for structure in drawn]
    kept = [(structure, one) for structure, one in found if one is not None and truth is not None]
    gaps = [np.abs(one.fingerprint[0] - truth.fingerprint[0]).max() for _, one in kept]
    return Example([structure for structure, _ in kept], np.interp(gaps, GAPS, RIGHT))


def fit(
    data: Sequence[Example], model: Plausibility, epochs: int = 3, lr: float = 5e-4, crystals: int = 16, seed: int = 0
) -> Plausibility:
    """Fit to examples, of which a twelfth is held out to report on.

    The loss is the cross entropy between the softmax over the structures of a crystal and those that are right.

    Args:
        data: what to fit to.
        model: with the weights to begin with.
        epochs: passes.
        lr: highest learning rate of the body; the head has three times as much.
        crystals: in a step.
        seed: of the order.
    """
    used = [example for example in data if example.teaches]
    batch = OrbitBatch.of([structure for example in used for structure in example.structures])
    right = torch.tensor(np.concatenate([example.right for example in used])).float()
    ends = np.cumsum([len(example.right) for example in used])
    rows = [torch.arange(end - len(example.right), end) for example, end in zip(used, ends.tolist(), strict=True)]
    sizes = [len(x.right) * sum(x.structures[0].composition.values()) ** 2 for x in used]
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(used)).tolist()
    val, train = order[: len(order) // 12], order[len(order) // 12 :]
    groups = [{"params": model.body.parameters(), "lr": lr}, {"params": model.head.parameters(), "lr": 3 * lr}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.05)
    steps = epochs * math.ceil(len(train) / crystals)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min(1.0, (i + 1) / 100) * 0.5 * (1 + math.cos(math.pi * i / steps))
    )
    for epoch in range(epochs):
        model.train().requires_grad_(True)
        bar = tqdm(list(_batches(train, sizes, crystals, rng)), desc=f"epoch {epoch + 1}", mininterval=2)
        for own in bar:
            loss, _ = _loss(model, batch, [rows[i] for i in own], right)
            optimizer.zero_grad()
            loss.mean().backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        model.eval().requires_grad_(False)
        losses, first = zip(
            *(_loss(model, batch, [rows[i] for i in own], right) for own in _batches(val, sizes, crystals, rng)),
            strict=True,
        )
        print(f"held out: loss {torch.cat(losses).mean():.4f}, the first is right for {torch.cat(first).mean():.3f}")
    return model


def _batches(chosen: Sequence[int], sizes: Sequence[int], n: int, rng: np.random.Generator) -> Iterator[list[int]]:
    """Examples of about one size together, in random order."""
    order = sorted(chosen, key=lambda i: math.log(sizes[i]) + 0.3 * rng.random())
    parts = [order[i : i + n] for i in range(0, len(order), n)]
    for i in rng.permutation(len(parts)).tolist():
        yield parts[i]


def _loss(
    model: Plausibility, batch: OrbitBatch, rows: Sequence[torch.Tensor], right: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each example the loss, and whether its most plausible structure is right."""
    scores = model(batch[torch.cat(list(rows))]).split([len(own) for own in rows])
    pairs = [(score, right[own]) for score, own in zip(scores, rows, strict=True)]
    losses = [score.logsumexp(0) - (score + y.log()).logsumexp(0) for score, y in pairs]
    return torch.stack(losses), torch.stack([(y[score.argmax()] > 0.5).float() for score, y in pairs])


def main(arguments: list[str] | None = None) -> None:
    """Draws, fits, writes the weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("crystals", nargs="+", help="prepared crystals (.npz)")
    parser.add_argument("--refiner", default="default")
    parser.add_argument("--n", type=int, default=11_000, help="crystals drawn at random")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--begin", type=Path, help="weights to go on from; none: the refiner's own")
    parser.add_argument("--templates", help="real crystals, whose positions are tried where no cell is given")
    parser.add_argument("--among", type=int, default=1000, help="crystals for which they are tried")
    parser.add_argument("--out", type=Path, default=PLAUSIBILITY)
    options = parser.parse_args(arguments)
    # read before the work, so that a file that is not there is found out at once
    start = (
        Plausibility.load(options.begin)
        if options.begin
        else Plausibility(DiffusionRefiner.load(options.refiner).network)
    )
    crystals = [c for path in options.crystals for c in dataset.load_prepared(path)[0]]
    chosen = np.random.default_rng(options.seed).permutation(len(crystals))[: options.n]
    refiner = DiffusionRefiner.load(options.refiner)
    part = [crystals[i] for i in chosen.tolist()]
    data = examples(part, refiner, "keep", options.seed)
    if options.templates is None:
        data += examples(part, refiner, "generate", options.seed)
    else:
        templates = Templates(Prototypes.read(options.templates, progress=True))
        small = [crystal for crystal in part if sum(crystal.composition.values()) <= MAX_ATOMS]
        data += among_candidates(small[: options.among], refiner, templates, seed=options.seed)
    model = fit(data, start, options.epochs, options.lr, seed=options.seed)
    print(f"weights written to {model.save(options.out)}")


if __name__ == "__main__":
    run(main)
