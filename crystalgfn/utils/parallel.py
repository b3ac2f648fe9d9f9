"""Independent pieces of work in this process, in several, or on a Dask cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from crystalgfn.errors import NotAvailable, TrainingError

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
    from crystalgfn.utils.progress import Bar

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
    with Bar(total=len(items), description=progress, shown=progress is not None) as bar:
        for part in made:
            answers += part
            bar.update(len(part))
    return answers


def unordered(
    function: Callable[[Any], Any], pieces: Sequence[Any], n_jobs: int = 1, scheduler: str | None = None
) -> Iterator[Any]:
    """``function`` of each piece, in the order in which they are done.

    Args:
        function: importable by the workers.
        pieces: what it is called with.
        n_jobs: processes on this machine (joblib), -1 for one a core.
        scheduler: the address of a Dask scheduler, which then does the work in place of ``n_jobs``; "local" starts a
            cluster of ``n_jobs`` workers here.

    Raises:
        NotAvailable: Dask is asked for and not installed, or cannot be reached.
        TrainingError: workers die again and again (Dask: as often as the scheduler's ``allowed-failures`` says, over
            one piece).
    """
    if scheduler is not None:
        yield from _dask(function, pieces, n_jobs, scheduler)
    elif n_jobs == 1 or len(pieces) < 2:
        yield from map(function, pieces)
    else:
        yield from _joblib(function, pieces, n_jobs)


def _joblib(function: Callable[[Any], Any], pieces: Sequence[Any], n_jobs: int) -> Iterator[Any]:
    from joblib import Parallel, delayed
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    left = dict(enumerate(pieces))
    while left:
        before = len(left)
        pool = Parallel(n_jobs=n_jobs, return_as="generator_unordered", batch_size=1, pre_dispatch="2*n_jobs")
        try:
            for i, result in pool(delayed(_numbered)(function, i, piece) for i, piece in list(left.items())):
                del left[i]
                yield result
        except TerminatedWorkerError as error:
            if len(left) == before:
                raise TrainingError(
                    "processes at work were killed and none came to an end, perhaps for lack of memory; "
                    "give fewer n_jobs, and the same command goes on"
                ) from error


def _numbered(function: Callable[[Any], Any], i: int, piece: Any) -> tuple[int, Any]:
    return i, function(piece)


def _dask(function: Callable[[Any], Any], pieces: Sequence[Any], n_jobs: int, scheduler: str) -> Iterator[Any]:
    """One task a piece; Dask gives those of a worker that died to the others, finished or not."""
    try:
        from distributed import Client, KilledWorker, LocalCluster, as_completed
    except ImportError as error:
        raise NotAvailable(f"a cluster needs Dask ({error}); pip install 'crystalgfn[evaluate]'") from error
    from joblib import effective_n_jobs

    cluster = None
    try:
        if scheduler == "local":
            cluster = LocalCluster(n_workers=effective_n_jobs(n_jobs), threads_per_worker=1, dashboard_address=None)
        client = Client(scheduler if cluster is None else cluster, timeout="20s")
    except (OSError, ValueError) as error:
        raise NotAvailable(f"no Dask scheduler answers at {scheduler} ({error}); start one, or give n_jobs") from error
    try:
        for future in as_completed(client.map(function, pieces, pure=False)):
            yield future.result()
            future.release()
    except KilledWorker as error:
        raise TrainingError(
            f"a piece of work ended every worker that took it ({error.allowed_failures + 1} of them), perhaps for lack "
            "of memory; give workers more, and the same command goes on"
        ) from error
    finally:
        client.close()
        if cluster is not None:
            cluster.close()
