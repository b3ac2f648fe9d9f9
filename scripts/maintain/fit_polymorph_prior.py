"""Fits the model of polymorphs to an index of real crystals, and how much templates weigh beside it.

``python -m scripts.maintain.fit_polymorph_prior train.parquet --exclude val.parquet --out polymorphs.safetensors``

A tenth of the formulas is held out: fitting stops where these are predicted best, and the weights of the mixture are
those that predict them best from the other crystals.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import nn

from crystalgfn.crystallography.realizable import MAX_ATOMS
from crystalgfn.data.structure_index import Prototypes
from crystalgfn.structures.ranking.polymorphs import (
    WEIGHTS,
    Mixture,
    Neighbours,
    PolymorphBatch,
    PolymorphModel,
    collate_polymorphs,
    log_softmax,
    mixed_features,
)
from crystalgfn.typing import Floats, Integers, RowIndex
from scripts.maintain import fitting
from scripts.maintain.program import run

BATCH = 128
HELD = 0.1
"""Share of the formulas."""
LIKELY = 96
"""Pairs of a crystal that the mixture is fitted with, at most, besides those of templates."""
AVERAGE = 0.01
"""Share of a step in the running average of the weights."""


@dataclass(frozen=True)
class Examples:
    """Crystals as their formula units, with the pair (group, formula units) that each has."""

    units: list[dict[int, int]]
    formulas: np.ndarray
    batch: PolymorphBatch
    truth: torch.Tensor  # [B] (group - 1) MAX_ATOMS + formula units - 1

    def __len__(self) -> int:
        return len(self.units)

    def at(self, rows: np.ndarray) -> Examples:
        """Some of them."""
        chosen = torch.from_numpy(rows)
        batch = PolymorphBatch(*(getattr(self.batch, field.name)[chosen] for field in fields(PolymorphBatch)))
        return Examples([self.units[i] for i in rows.tolist()], self.formulas[rows], batch, self.truth[chosen])


def examples(index: Prototypes) -> Examples:
    """The crystals of an index with at most `MAX_ATOMS` atoms; those whose pair the tables rule out are left out."""
    counts = index.composition
    several = np.gcd.reduce(counts, axis=1)
    units = [{z + 1: int(row[z] // n) for z in np.flatnonzero(row)} for row, n in zip(counts, several, strict=True)]
    truth = (index.space_group.astype(np.int64) - 1) * MAX_ATOMS + several - 1
    small = np.flatnonzero(counts.sum(1) <= MAX_ATOMS)
    all_of = Examples(
        [units[i] for i in small.tolist()],
        np.array(index.formulas())[small],
        collate_polymorphs([units[i] for i in small.tolist()]),
        torch.from_numpy(truth[small]),
    )
    can_be = all_of.batch.possible.flatten(1).gather(1, all_of.truth[:, None]).squeeze(1).numpy()
    return all_of.at(np.flatnonzero(can_be))


def split(formulas: np.ndarray, held: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of crystals of most formulas, and of those held out."""
    names = np.unique(formulas)
    aside = np.random.default_rng(seed).permutation(names)[: int(held * len(names))]
    out = np.isin(formulas, aside)
    return np.flatnonzero(~out), np.flatnonzero(out)


def loss_of(member: nn.Module, part: Examples) -> Floats:
    """- ln of the probability of each crystal's pair."""
    chances = log_softmax(member(part.batch.numbers, part.batch.slots, part.batch.whole), part.batch.possible)
    return -chances.flatten(1).gather(1, part.truth[:, None]).squeeze(1)


def fit_member(
    member: nn.Module, used: Examples, held: Examples, epochs: int, seed: int, report: Callable[[str], None]
) -> nn.Module:
    """The average of the weights on the way, as it was where the crystals held out were predicted best."""
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(member.parameters(), lr=2e-3, weight_decay=0.02)
    size = min(BATCH, len(used))
    steps = epochs * (len(used) // size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps + 1)
    average = copy.deepcopy(member).eval()
    best, answer = np.inf, copy.deepcopy(average)
    for epoch in range(epochs):
        member.train()
        order, total = rng.permutation(len(used)), 0.0
        for start in range(0, len(used) - size + 1, size):
            loss = loss_of(member, used.at(order[start : start + size])).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
            for slow, fast in zip(average.parameters(), member.parameters(), strict=True):
                slow.data.lerp_(fast.data, AVERAGE)
        with torch.no_grad():
            value = float(loss_of(average, held).mean()) if len(held) else total / (len(used) // size)
        report(f"epoch {epoch + 1}: {total / (len(used) // size):.3f} nats, held out {value:.3f}")
        if value < best:
            best, answer = value, copy.deepcopy(average)
    return answer


def fit(
    index: Prototypes,
    epochs: int = 20,
    held: float = HELD,
    seed: int = 0,
    report: Callable[[str], None] = lambda _: None,
) -> PolymorphModel:
    """The model of an index, and the weights of its mixture with the crystals of the index as templates.

    Args:
        index: real crystals.
        epochs: at most, over all of them.
        held: share of the formulas that is held out.
        seed: of the start and of what is held out.
        report: is told of each epoch.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        every = examples(index)
        used, aside = (every.at(rows) for rows in split(every.formulas, held, seed))
        model = PolymorphModel()
        for k, member in enumerate(model.members):
            model.members[k] = fit_member(member, used, aside, epochs, seed + k, report)
        model.eval()
        if len(aside):
            model.mixture = fit_mixture(model, Neighbours(index), aside)
    return model.eval().requires_grad_(False)


def fit_mixture(model: PolymorphModel, neighbours: Neighbours, held: Examples, decay: float = 1e-3) -> Mixture:
    """The weights that give the pairs of crystals the most probability, each without templates of its formula."""
    rows, owner, truths = [], [], []
    chances = model.log_chances(held.units)
    for i, (units, formula) in enumerate(zip(held.units, held.formulas.tolist(), strict=True)):
        said = neighbours.features(units, [formula])
        seen = mixed_features(chances[i], said).reshape(230 * MAX_ATOMS, -1)
        flat, truth = chances[i].ravel(), int(held.truth[i])
        chosen = np.isfinite(flat) & (seen[:, -5] > 0)
        chosen[np.argsort(-flat, kind="stable")[:LIKELY]] = True
        chosen[truth] = True
        chosen &= np.isfinite(flat)
        at = np.flatnonzero(chosen)
        truths.append(sum(map(len, rows)) + int(np.searchsorted(at, truth)))
        rows.append(seen[at])
        owner.append(np.full(len(at), i))
    inputs = torch.tensor(np.concatenate(rows), dtype=torch.float32)
    return _minimised(Mixture(), inputs, torch.from_numpy(np.concatenate(owner)), torch.tensor(truths), decay)


def _minimised(mixture: Mixture, inputs: torch.Tensor, owner: RowIndex, truths: Integers, decay: float) -> Mixture:
    """L-BFGS on the cross-entropy over the rows of each owner."""
    nn.init.normal_(mixture.bent[2].weight, std=0.05)
    start = [p.detach().clone() for p in mixture.parameters()]
    optimizer = torch.optim.LBFGS(mixture.parameters(), max_iter=200, line_search_fn="strong_wolfe")
    n = len(truths)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        scores = mixture(inputs)
        top = torch.full((n,), -torch.inf).scatter_reduce(0, owner, scores.detach(), "amax")
        total = torch.zeros(n).index_add(0, owner, (scores - top[owner]).exp()).log() + top
        penalty = sum((p - s).square().sum() for p, s in zip(mixture.parameters(), start, strict=True))
        value = (total - scores[truths]).mean() + decay * penalty
        value.backward()
        return value

    optimizer.step(loss)
    return mixture.eval().requires_grad_(False)


def figures(chances: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Shares of crystals whose (group, formula units), and whose group, is among the first 1, 5 and 20; nats.

    Args:
        chances: ln of probabilities [B, 230, MAX_ATOMS].
        truth: [B] (group - 1) MAX_ATOMS + formula units - 1.
    """
    flat = chances.reshape(len(chances), -1)
    own = flat[np.arange(len(flat)), truth]
    rank = np.where(np.isfinite(own), (flat > own[:, None]).sum(1), flat.shape[1])
    groups = np.exp(chances).sum(2)
    group = groups[np.arange(len(groups)), truth // MAX_ATOMS]
    group_rank = np.where(group > 0, (groups > group[:, None]).sum(1), 230)
    found = {f"pair_{k}": float((rank < k).mean()) for k in (1, 5, 20)}
    found |= {f"group_{k}": float((group_rank < k).mean()) for k in (1, 5, 20)}
    return found | {"nats": float(-np.maximum(own, -20).mean())}


def mixed(
    model: PolymorphModel, neighbours: Neighbours, units: Sequence[Mapping[int, int]], formulas: Sequence[str]
) -> np.ndarray:
    """ln of the mixture's probabilities [B, 230, MAX_ATOMS], without templates of each one's own formula."""
    chances = model.log_chances(units)
    said = (neighbours.features(one, [formula]) for one, formula in zip(units, formulas, strict=True))
    return np.array([model.mixture.log_chances(own, one) for own, one in zip(chances, said, strict=True)])


def main(arguments: list[str] | None = None) -> None:
    """Reads the crystals, fits, writes the weights, reports on the crystals that were left out."""
    parser = fitting.parser(__doc__, WEIGHTS, epochs=20)
    options = parser.parse_args(arguments)
    index = fitting.read_index(options)
    excluded = None
    if options.exclude:
        excluded = Prototypes.read(options.exclude, options.cache)
        index = index.select(~np.isin(index.formulas(), excluded.formulas()))
    print(f"{len(index)} crystals")
    model = fit(index, options.epochs, seed=options.seed, report=lambda words: print(words, flush=True))
    model.save(options.out)
    print(f"weights written to {options.out}")
    if excluded is not None:
        asked = examples(excluded)
        truth, saved = asked.truth.numpy(), PolymorphModel.load(options.out)
        print(len(asked), "crystals left out; the model alone:", figures(saved.log_chances(asked.units), truth))
        both = mixed(saved, Neighbours(index), asked.units, asked.formulas.tolist())
        print("with templates:", figures(both, truth))


if __name__ == "__main__":
    run(main)
