"""Structures of about one size together, so that dense batches hold little padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from crystalgfn.crystallography.orbits import OrbitStructure
from crystalgfn.utils.progress import Bar

PAIRS = {"cpu": 6_000, "cuda": 600_000}
"""Pairs of a representative and an atom that are in one batch, at most."""


def bucket_by_size(
    structures: Sequence[OrbitStructure], tasks: Sequence[tuple[int, int]], device: str, progress: str | None = None
) -> Iterator[list[tuple[int, int]]]:
    """Tasks, pairs of the index of a structure and anything, in parts that fit a batch on this type of device.

    ``progress`` is what a bar is called; None: no bar.
    """
    sizes = {i: (len(structures[i].orbits), sum(structures[i].composition.values())) for i in {i for i, _ in tasks}}
    ordered = sorted(tasks, key=lambda task: sizes[task[0]][0] * sizes[task[0]][1])
    most = PAIRS["cuda" if device == "cuda" else "cpu"]
    with Bar(total=len(tasks), description=progress, unit="structures", shown=progress is not None) as bar:
        while ordered:
            part, orbits, atoms = [], 0, 0
            for task in ordered:
                orbits, atoms = max(orbits, sizes[task[0]][0]), max(atoms, sizes[task[0]][1])
                if part and (len(part) + 1) * orbits * atoms > most:
                    break
                part.append(task)
            ordered = ordered[len(part) :]
            yield part
            bar.update(len(part))
