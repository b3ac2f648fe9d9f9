"""Fits how templates are ranked to an index of real crystals, each left out of its own templates.

``python -m scripts.maintain.fit_template_distance train.parquet --exclude val.parquet --out templates.safetensors``
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from crystalgfn.crystallography import elements
from crystalgfn.data.structure_index import Prototypes
from crystalgfn.structures.sources.template_distance import SAME, SAME_SHAPE, WEIGHTS, Family, Ranking
from crystalgfn.structures.sources.templates import Templates
from crystalgfn.typing import Booleans, Floats, RowFloats, RowIndex
from crystalgfn.utils.files import write_aside
from scripts.maintain import fitting
from scripts.maintain.program import run

MEMBERS, EXCHANGES = 150, 24
"""Templates, and exchanges of elements with equal counts, that one crystal is compared with, at most."""
WIDTH = 8
"""Elements that a crystal may have; the few with more are left out."""
PULL = 0.003
"""Pulls the embedding of elements to where it started from."""


def unfitted() -> Ranking:
    """Electronegativities, radii and places in the periodic table; what fitting starts from."""
    columns = np.stack(
        [2 * elements.ELECTRONEGATIVITY, 2 * elements.RADIUS, elements.GROUP / 8, elements.ROW / 4, elements.METAL],
        axis=1,
    )
    embedding = np.concatenate([columns - columns.mean(0), np.zeros((118, 3))], axis=1)
    return Ranking(embedding, np.array([1.0, 1.0, 1.0, 1.0]), np.array([4.0, 0.2]), np.array([1.0, 0.2]))


@dataclass(frozen=True)
class Comparisons:
    """Crystals beside the templates for them, flat: ``owner`` [M] says which crystal a row belongs to."""

    owner: torch.Tensor
    old: torch.Tensor  # [M, WIDTH] atomic numbers - 1 of the template; those of the target where there is no element
    new: torch.Tensor  # [M, WIDTH]
    even: torch.Tensor  # [M, WIDTH] 1 / number of elements
    shares: torch.Tensor  # [M, WIDTH]
    shape: torch.Tensor  # [M]
    volume: torch.Tensor  # [M]
    same: torch.Tensor  # [M] bool


def compare(index: Prototypes, n: int, seed: int = 0) -> Comparisons:
    """Random crystals beside templates that have another formula; crystals without one of their structure left out."""
    rng = np.random.default_rng(seed)
    templates = Templates(index, unfitted())
    formulas = np.array(index.formulas())
    parts = []
    for i in rng.permutation(len(index)):
        part = _one(templates, formulas, int(i), rng)
        if part is not None:
            parts.append(part)
        if len(parts) == n:
            break
    owner = np.repeat(np.arange(len(parts)), [len(p[0]) for p in parts])
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    old, new, even, shares, shape, volume, same = (torch.from_numpy(c) for c in columns)
    return Comparisons(torch.from_numpy(owner), old, new, even, shares, shape, volume, same)


def _one(templates: Templates, formulas: np.ndarray, i: int, rng: np.random.Generator) -> tuple[np.ndarray, ...] | None:
    index = templates.index
    row = index.composition[i]
    counts = tuple(sorted(row[row > 0].tolist()))
    members = templates.family(int(index.space_group[i]), counts)
    assert members is not None  # the crystal itself is in its family
    others = np.flatnonzero(formulas[members.rows] != formulas[i])
    if not len(others) or len(counts) > WIDTH:
        return None
    others = rng.permutation(others)[:MEMBERS]
    exchanges = np.arange(len(members.permutations))
    if len(exchanges) > EXCHANGES:
        exchanges = rng.permutation(len(exchanges))[:EXCHANGES]
    at = int(np.flatnonzero(members.rows == i)[0])
    same = _same(members, at, others, exchanges)
    if not same.any() or same.all():
        return None
    s, m = len(counts), same.size
    old = np.zeros((m, WIDTH), dtype=np.int64)
    new = np.zeros((m, WIDTH), dtype=np.int64)
    shares, even = np.zeros((2, m, WIDTH), dtype=np.float32)
    old[:, :s] = members.species[others][:, members.permutations[exchanges]].reshape(m, s) - 1
    new[:, :s] = members.species[at] - 1
    shares[:, :s] = np.array(counts) / sum(counts)
    even[:, :s] = 1 / s
    shape = np.linalg.norm(members.shapes[others] - members.shapes[at], axis=1)
    volume = members.surplus[others] - members.surplus[at]
    wide = [np.repeat(x, len(exchanges)).astype(np.float32) for x in (shape, volume)]
    return old, new, even, shares, *wide, same.ravel()


def _same(members: Family, at: int, others: np.ndarray, exchanges: np.ndarray) -> np.ndarray:
    """Whether templates [R] with exchanges [P] (places in the family) have the structure of member ``at``, [R, P]."""
    found = np.zeros((len(others), len(exchanges)), dtype=bool)
    own = members.choice(at, 0)
    shaped = np.linalg.norm(members.shapes[others] - members.shapes[at], axis=1) < SAME_SHAPE
    for k, place in enumerate(exchanges.tolist()):
        exchange = members.permutations[place]
        prints = members.fingerprints[others][:, exchange][:, :, exchange]
        gaps = np.abs(prints - members.fingerprints[at]).reshape(len(others), -1).max(axis=1)
        found[:, k] = (gaps < SAME) & shaped
        for r in np.flatnonzero(found[:, k]).tolist():
            found[r, k] = members.choice(int(others[r]), place) == own
    return found


class _Scores(torch.nn.Module):
    """`Ranking` with gradients."""

    def __init__(self, start: Ranking) -> None:
        super().__init__()
        self.embedding = torch.nn.Parameter(torch.tensor(start.embedding, dtype=torch.float32))
        self.register_buffer("start", self.embedding.detach().clone())
        for name in ("element", "shape", "volume"):
            setattr(self, name, torch.nn.Parameter(torch.log(torch.tensor(getattr(start, name), dtype=torch.float32))))

    def forward(self, batch: Comparisons, with_lattice: bool) -> RowFloats:
        gaps = self.embedding[batch.old] - self.embedding[batch.new]
        distance = ((gaps**2).sum(-1) + 1e-6).sqrt() - 1e-3
        weights = self.element.exp()[:2] if with_lattice else self.element.exp()[2:]
        score = -(distance * (weights[0] * batch.even + weights[1] * batch.shares)).sum(1)
        if with_lattice:
            for gap, (weight, scale) in ((batch.shape, self.shape.exp()), (batch.volume, self.volume.exp())):
                score = score - weight * torch.log1p((gap / scale) ** 2)
        return score

    def result(self) -> Ranking:
        found = [self.embedding, *(getattr(self, name).exp() for name in ("element", "shape", "volume"))]
        return Ranking(*(x.detach().double().numpy() for x in found))


def losses(scores: RowFloats, batch: Comparisons) -> tuple[Floats, Booleans]:
    """- ln of the probability of templates with the right structure, and whether the best is one, [crystals]."""
    n = int(batch.owner.max()) + 1
    total = _log_sum(scores, batch.owner, n)
    right = _log_sum(scores.masked_fill(~batch.same, -1e9), batch.owner, n)
    best = torch.full((n,), -torch.inf).scatter_reduce(0, batch.owner, scores.detach(), "amax")
    hit = torch.zeros(n, dtype=torch.bool)
    hit[batch.owner[(scores >= best[batch.owner]) & batch.same]] = True
    return total - right, hit


def _log_sum(values: RowFloats, owner: RowIndex, n: int) -> Floats:
    top = torch.full((n,), -torch.inf).scatter_reduce(0, owner, values.detach(), "amax")
    return top + torch.zeros(n).scatter_add(0, owner, (values - top[owner]).exp()).log()


def _batches(all_of: Comparisons, chosen: np.ndarray, size: int) -> Iterator[Comparisons]:
    first = torch.searchsorted(all_of.owner, torch.arange(int(all_of.owner.max()) + 2))
    for start in range(0, len(chosen), size):
        part = chosen[start : start + size]
        rows = torch.cat([torch.arange(first[i], first[i + 1]) for i in part.tolist()])
        fields = (all_of.old, all_of.new, all_of.even, all_of.shares, all_of.shape, all_of.volume, all_of.same)
        owner = torch.repeat_interleave(torch.arange(len(part)), first[part + 1] - first[part])
        yield Comparisons(owner, *(x[rows] for x in fields))


def fit(pairs: Comparisons, epochs: int = 2, held: float = 0.1, seed: int = 0, report: bool = False) -> Ranking:
    """The ranking that gives templates of the right structure the most probability.

    Args:
        pairs: what it is fitted to.
        epochs: over all of them.
        held: share of the crystals held out for the printed figures.
        seed: of the order.
        report: print the figures of each epoch.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(int(pairs.owner.max()) + 1)
    cut = int(held * len(order))
    model = _Scores(unfitted())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    steps = epochs * (-(-(len(order) - cut) // 200))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for epoch in range(epochs + 1):
        if report:
            print(f"epoch {epoch}: {_figures(model, pairs, order[:cut])}", flush=True)
        if epoch == epochs:
            break
        for batch in _batches(pairs, rng.permutation(order[cut:]), 200):
            loss = sum(losses(model(batch, known), batch)[0].mean() for known in (True, False))
            loss = loss + PULL * ((model.embedding - model.start) ** 2).sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.result()


@torch.no_grad()
def _figures(model: _Scores, pairs: Comparisons, held: np.ndarray) -> str:
    words = []
    for known in (True, False):
        found = [losses(model(batch, known), batch) for batch in _batches(pairs, held, 200)]
        loss, hit = (torch.cat(column) for column in zip(*found, strict=True))
        words.append(f"{'with' if known else 'without'} lattice {loss.mean():.3f} nats, {hit.float().mean():.3f} right")
    return "; ".join(words)


def save(ranking: Ranking, path: Path) -> None:
    """Write the weights as safetensors.

    Raises:
        CheckpointError: they cannot be written.
    """
    arrays = {
        name: torch.tensor(getattr(ranking, name), dtype=torch.float32)
        for name in ("embedding", "element", "shape", "volume")
    }
    write_aside(path, lambda aside: save_file(arrays, aside))


def main(arguments: list[str] | None = None) -> None:
    """Reads the crystals, fits, writes the weights."""
    parser = fitting.parser(__doc__, WEIGHTS, epochs=2)
    parser.add_argument("--crystals", type=int, default=6000)
    options = parser.parse_args(arguments)
    index = fitting.read_index(options)
    pairs = compare(index, options.crystals, options.seed)
    print(f"{len(index)} crystals, {int(pairs.owner.max()) + 1} of them beside {len(pairs.owner)} templates")
    save(fit(pairs, options.epochs, seed=options.seed, report=True), options.out)
    print(f"weights written to {options.out}")


if __name__ == "__main__":
    run(main)
