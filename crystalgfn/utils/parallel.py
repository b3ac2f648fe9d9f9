"""Independent pieces of work in this process, in several, or on a Dask cluster; no process outlives its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import islice
from typing import Any

from crystalgfn.errors import NotAvailable, TrainingError
from crystalgfn.utils.progress import Bar

IDLE = 300
"""Seconds after which a worker without work goes."""

WATCH = 0.5
"""Seconds between two looks of a worker after its parent."""

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


#: Executors at hand, by the number of their workers.
_POOLS: dict[int, Any] = {}


#: The address of the Dask scheduler that works in place of processes here.
_scheduler: ContextVar[str | None] = ContextVar("scheduler", default=None)


@contextmanager
def on_dask(scheduler: str) -> Any:
    """Within this context a Dask cluster (see `parallel_map`) does what ``n_jobs`` processes would do."""
    token = _scheduler.set(scheduler)
    try:
        yield
    finally:
        _scheduler.reset(token)


def parallel_map(
    function: Callable[[Any], Any],
    items: Iterable[Any],
    *,
    n_jobs: int = 1,
    batch: int | None = None,
    ordered: bool = True,
    scheduler: str | None = None,
    description: str | None = None,
) -> Iterator[Any]:
    """``function`` of each item, as an iterator.

    The results do not depend on ``n_jobs``: ``batch`` alone says which items are worked out together.

    Args:
        function: with several processes it must pickle, and so must items and results.
        items: of the work. At most twice as many as there are processes are asked for ahead.
        n_jobs: processes on this machine, at most; negative: one for each core.
        batch: ``function`` takes a list of at most so many items and returns a list of as many results; None: it takes
            one item.
        ordered: results in the order of the items; False: in the order in which they are done.
        scheduler: the address of a Dask scheduler, which then does the work in place of ``n_jobs``; "local" starts a
            cluster of ``n_jobs`` workers here. None: that of `on_dask`, if any.
        description: what the bar is called; None: no bar.

    Yields:
        A result for each item.

    Raises:
        NotAvailable: Dask is asked for and not installed, or cannot be reached.
        TrainingError: workers die again and again (Dask: as often as the scheduler's ``allowed-failures`` says, over
            one piece).

    Example:
        >>> list(parallel_map(abs, [-1, 2, -3]))
        [1, 2, 3]
    """
    scheduler = scheduler or _scheduler.get()
    total = len(items) if isinstance(items, Sequence) else None
    pieces: Iterable[Any] = items if batch is None else _batches(items, batch)
    found = _results(function, pieces, None if total is None else -(-total // (batch or 1)), n_jobs, scheduler)
    with Bar(total=total, description=description, shown=description is not None) as bar:
        for result in _in_order(found) if ordered else (result for _, result in found):
            if batch is None:
                yield result
                bar.update()
            else:
                yield from result
                bar.update(len(result))


def _results(
    function: Callable[[Any], Any], pieces: Iterable[Any], n_pieces: int | None, n_jobs: int, scheduler: str | None
) -> Iterator[tuple[int, Any]]:
    """Numbers of pieces and their results, by the cluster, by processes or, where one is enough, here."""
    if scheduler is not None:
        return _in_dask(function, pieces, n_jobs, scheduler)
    workers = cores() if n_jobs < 0 else n_jobs
    if n_pieces is not None:
        workers = min(workers, n_pieces)
    if workers > 1:
        return _in_processes(function, pieces, workers)
    return ((i, function(piece)) for i, piece in enumerate(pieces))


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def follow_parent(parent: int) -> None:
    """In a worker: end as soon as the process that started it has ended, whatever ended it."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH)
        os._exit(1)

    threading.Thread(target=watch, name="follow_parent", daemon=True).start()


def killed_with_parent() -> Callable[[], object] | None:
    """The ``preexec_fn`` of a program that is to end with the thread that starts it; None where the system has none."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    left = iter(items)
    while batch := list(islice(left, size)):
        yield batch


def _in_order(found: Iterable[tuple[int, Any]]) -> Iterator[Any]:
    waiting: dict[int, Any] = {}
    following = 0
    for i, result in found:
        waiting[i] = result
        while following in waiting:
            yield waiting.pop(following)
            following += 1


def _in_processes(function: Callable[[Any], Any], pieces: Iterable[Any], workers: int) -> Iterator[tuple[int, Any]]:
    """Numbers of pieces and their results, as they are done; what a killed worker takes with it is done again."""
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    left = iter(enumerate(pieces))
    lost: list[tuple[int, Any]] = []
    while True:
        pool = worker_pool(workers)
        running: dict[Future, tuple[int, Any]] = {}
        done = 0
        try:
            while True:
                while len(running) < 2 * workers and (piece := lost.pop() if lost else next(left, None)) is not None:
                    running[pool.submit(function, piece[1])] = piece
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    result = future.result()
                    yield running.pop(future)[0], result
                    done += 1
        except TerminatedWorkerError as error:
            lost += running.values()
            running.clear()
            end_pool(pool)
            if not done:
                raise TrainingError(
                    "processes at work were killed and none came to an end, perhaps for lack of memory; "
                    "give fewer n_jobs, and the same command goes on"
                ) from error
        finally:
            if running:  # an error, an interrupt, or nobody wants the rest
                end_pool(pool)


def worker_pool(workers: int) -> Any:
    """An executor with worker processes, kept from call to call; not joblib's own, which bears no second user."""
    from joblib.externals.loky import ProcessPoolExecutor

    if workers in _POOLS:
        try:
            _POOLS[workers].submit(int).result()
        except BrokenProcessPool:  # something killed an idle worker
            del _POOLS[workers]
    if workers not in _POOLS:
        threads = str(max(cores() // workers, 1))
        _POOLS[workers] = ProcessPoolExecutor(
            workers,
            timeout=IDLE,
            initializer=follow_parent,
            initargs=(os.getpid(),),
            env={name: os.environ.get(name, threads) for name in THREADS},
        )
    return _POOLS[workers]


def end_pool(pool: Any) -> None:
    """Kill the workers of a pool; the next call of `worker_pool` starts others."""
    for workers in [n for n, one in _POOLS.items() if one is pool]:
        del _POOLS[workers]
    pool.shutdown(wait=True, kill_workers=True)


def _in_dask(
    function: Callable[[Any], Any], pieces: Iterable[Any], n_jobs: int, scheduler: str
) -> Iterator[tuple[int, Any]]:
    """One task a piece; Dask gives those of a worker that died to the others, finished or not."""
    try:
        from distributed import Client, KilledWorker, LocalCluster, as_completed  # pyright: ignore[reportAttributeAccessIssue] - without the extra
    except ImportError as error:
        raise NotAvailable(f'a cluster needs Dask ({error}); pip install -e ".[evaluate]"') from error
    cluster = None
    try:
        if scheduler == "local":
            workers = n_jobs if n_jobs > 0 else cores()
            options: dict[str, Any] = {"dashboard_address": None}  # no page in the browser
            cluster = LocalCluster(n_workers=workers, threads_per_worker=1, **options)
        client = Client(scheduler if cluster is None else cluster, timeout="20s")
    except (OSError, ValueError) as error:
        raise NotAvailable(f"no Dask scheduler answers at {scheduler} ({error}); start one, or give n_jobs") from error
    try:
        futures = client.map(function, list(pieces), pure=False)
        numbers = {future.key: i for i, future in enumerate(futures)}
        for future in as_completed(futures):
            yield numbers[future.key], future.result()
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
