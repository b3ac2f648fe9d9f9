"""Fits the choice among candidates to crystals that the refiner has not seen.

``python -m scripts.maintain.fit_reranker held_out.npz --refiner runs/refiner --templates train.parquet --examples
examples.npz``, and once more without ``--templates`` and with other examples: the candidates of each crystal with its
letters given, without, and without its lattice, and which of them are the real structure. They are kept as they come,
so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from crystalgfn.benchmarks.csp.methods import request_of
from crystalgfn.benchmarks.csp.run import query_of
from crystalgfn.crystallography.convert import formula_of
from crystalgfn.crystallography.orbits import OrbitStructure
from crystalgfn.data.structure_index import Prototypes
from crystalgfn.errors import DataError
from crystalgfn.evaluation.metrics.matching import matcher
from crystalgfn.structures.candidate_pool import candidates
from crystalgfn.structures.config import BuildConfig
from crystalgfn.structures.ranking.reranker import N_FEATURES, WEIGHTS, CandidateRanker, features
from crystalgfn.structures.refiner.refiner import DiffusionRefiner
from crystalgfn.structures.sources.templates import Templates
from crystalgfn.utils.files import save_arrays
from scripts.maintain.program import run

TASKS = ("T1", "T2", "T3")
"""Those of the benchmark that a space group is given in: candidates are chosen among those of one."""
CHUNK = 20
"""Crystals between two writings."""


def labelled(
    structures: Sequence[OrbitStructure],
    task: str,
    refiner: DiffusionRefiner,
    templates: Templates | None,
    draws: int,
    first: int,
) -> list[tuple[torch.Tensor, np.ndarray]]:
    """Features of the candidates of each crystal, and which of them are its real structure."""
    keys = [frozenset({(formula_of(structure), structure.space_group)}) for structure in structures]
    asked = [query_of(task, structure, own) for structure, own in zip(structures, keys, strict=True)]
    lattice = "generate" if asked[0].lattice is None else "keep"
    config = BuildConfig(refiner=refiner, templates=templates, lattice=lattice, draws=draws)
    requests = [replace(request_of(what, True), stream=(i,)) for i, what in enumerate(asked, start=first)]
    found = candidates(requests, config)
    result = []
    for structure, (own, _) in zip(structures, found, strict=True):
        truth = structure.to_structure()
        right = [matcher().get_rms_dist(candidate.structure.to_structure(), truth) is not None for candidate in own]
        result.append((features(own), np.array(right, dtype=bool)))
    return result


def gather(
    structures: Sequence[OrbitStructure], refiner: DiffusionRefiner, templates: Templates | None, draws: int, path: Path
) -> list[tuple[torch.Tensor, np.ndarray]]:
    """`labelled` for all tasks, kept in a file; a file that is there already goes on.

    Raises:
        DataError: the file holds something else.
    """
    examples, rows, labels, sizes = [], [], [], []
    if path.exists():
        try:
            with np.load(path, allow_pickle=False) as file:
                rows, labels, sizes = list(file["rows"]), file["labels"].tolist(), file["sizes"].tolist()
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{path} holds no examples ({error}); give another file") from error
    starts = range(len(sizes) // len(TASKS), len(structures), CHUNK)
    for start in tqdm(starts, desc="candidates", unit=f"{CHUNK} crystals", mininterval=5):
        part = structures[start : start + CHUNK]
        found = [labelled(part, task, refiner, templates, draws, start) for task in TASKS]
        for own, right in (found[t][i] for i in range(len(part)) for t in range(len(TASKS))):
            rows += list(own.numpy())
            labels += right.tolist()
            sizes.append(len(right))
        arrays = {"rows": np.array(rows, dtype=np.float32), "labels": np.array(labels), "sizes": np.array(sizes)}
        save_arrays(path, arrays)
    ends = np.cumsum(sizes)
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        own = torch.tensor(np.array(rows[start:end])).reshape(-1, N_FEATURES)
        examples.append((own, np.array(labels[start:end], dtype=bool)))
    return examples


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


def report(model: CandidateRanker, examples: Sequence[tuple[torch.Tensor, np.ndarray]]) -> str:
    """Shares of the crystals with a right candidate, and whose first one is right, by task."""
    words = []
    for t, task in enumerate(TASKS):
        own = examples[t :: len(TASKS)]
        with torch.no_grad():
            first = [bool(len(y) and y[int(model(x).argmax())]) for x, y in own]
        words.append(f"{task}: {np.mean([y.any() for _, y in own]):.3f} there, {np.mean(first):.3f} first")
    return "; ".join(words)


def main(arguments: list[str] | None = None) -> None:
    """Makes the examples, fits to four fifths of them, reports on the rest, fits to all, writes the weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("crystals", help="crystals that the refiner was not trained on: any source, or an index")
    parser.add_argument("--refiner", default="default")
    parser.add_argument(
        "--templates", help="real crystals: any source, or an index (.npz); none: for use without templates"
    )
    parser.add_argument("--examples", type=Path, required=True, help="where the candidates are kept (.npz)")
    parser.add_argument("--n", type=int, default=400)
    parser.add_argument("--draws", type=int, default=46)
    parser.add_argument("--decay", type=float, default=3e-3)
    parser.add_argument("--out", type=Path, help="default: the file that ships")
    options = parser.parse_args(arguments)
    index = Prototypes.read(options.crystals, progress=True)
    order = np.random.default_rng(0).permutation(len(index))[: options.n]
    structures = [index[i] for i in order.tolist()]
    refiner = DiffusionRefiner.load(options.refiner)
    known = options.templates is not None
    templates = Templates(Prototypes.read(options.templates, progress=True)) if known else None
    examples = gather(structures, refiner, templates, options.draws, options.examples)
    cut = len(examples) * 4 // 5 // len(TASKS) * len(TASKS)
    print("held out:", report(fit_reranker(examples[:cut], options.decay), examples[cut:]))
    model = fit_reranker(examples, options.decay)
    print("all:", report(model, examples))
    out = options.out or WEIGHTS[known]
    model.save(out)
    print(f"weights written to {out}")


if __name__ == "__main__":
    run(main)
