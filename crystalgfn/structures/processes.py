"""Work on many crystals in parts: one after another, or in several processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

FEW = 16
"""Crystals that a further process must have to be worth its start."""


def in_parts(
    work: Callable[[Sequence[Any]], list[Any]],
    items: Sequence[Any],
    size: int,
    n_jobs: int = 1,
    progress: str | None = None,
) -> list[Any]:
    """What ``work`` makes of all items, an answer each, in their order.

    Args:
        work: from some items to an answer each; with several processes it must pickle.
        items: of the work.
        size: of a part, at most.
        n_jobs: processes, at most; negative: as many as there are cores. There are fewer where there is little to do.
        progress: what a bar is called; None: no bar.
    """
    from tqdm import tqdm

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(n_jobs if n_jobs > 0 else cores, max(1, len(items) // FEW))
    size = max(1, min(size, -(-len(items) // workers)))
    parts = [items[i : i + size] for i in range(0, len(items), size)]
    if workers > 1:
        from joblib import Parallel, delayed

        made = Parallel(n_jobs=workers, return_as="generator")(delayed(work)(part) for part in parts)
    else:
        made = map(work, parts)
    answers: list[Any] = []
    with tqdm(total=len(items), desc=progress, disable=progress is None) as bar:
        for part in made:
            answers += part
            bar.update(len(part))
    return answers
