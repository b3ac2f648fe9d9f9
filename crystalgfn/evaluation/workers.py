"""Independent pieces of work in this process, in several, or on a Dask cluster; results as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from crystalgfn.errors import NotAvailable, TrainingError

TRIES = 5
"""Times that a piece of work is given to another worker of a cluster after its own died."""


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
        TrainingError: workers die again and again.
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
    """One task a piece; Dask gives those of a worker that died to the others."""
    try:
        from distributed import Client, LocalCluster, as_completed
    except ImportError as error:
        raise NotAvailable(f"a cluster needs Dask ({error}); pip install 'dask[distributed]'") from error
    cluster = None
    try:
        if scheduler == "local":
            cluster = LocalCluster(n_workers=max(n_jobs, 1), threads_per_worker=1, dashboard_address=None)
        client = Client(scheduler if cluster is None else cluster, timeout="20s")
    except (OSError, ValueError) as error:
        raise NotAvailable(f"no Dask scheduler answers at {scheduler} ({error}); start one, or give n_jobs") from error
    try:
        futures = client.map(function, pieces, pure=False, retries=TRIES)
        for future in as_completed(futures):
            yield future.result()
            future.release()
    finally:
        client.close()
        if cluster is not None:
            cluster.close()
