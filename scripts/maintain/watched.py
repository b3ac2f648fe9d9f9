"""Attempts in processes of their own: one that dies or hangs is an outcome, and the others go on."""

from __future__ import annotations

import json
import multiprocessing
import queue as queues
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

SECONDS = 20
"""Of processor time that an attempt may take."""
PATIENCE = 6
"""Times as long on the clock, since the machine may be busy."""

Attempt = Callable[[int], tuple[str, str]]


def watch(attempt: Attempt, numbers: Sequence[int]) -> dict[int, tuple[str, str]]:
    """Outcome and word of each attempt, by number; "crash" and "hang" of those that ended their process.

    Args:
        attempt: a function of a module; number -> outcome, word.
        numbers: of the attempts.
    """
    context = multiprocessing.get_context("spawn")
    found: dict[int, tuple[str, str]] = {}
    todo = list(numbers)
    while todo:
        queue = context.Queue()
        process = context.Process(target=_work, args=(attempt, todo, queue))
        process.start()
        current = _drain(process, queue, found, len(todo))
        hung = process.is_alive()
        if hung:
            process.kill()
        process.join()
        if current is not None:
            found[current] = ("hang", "") if hung else ("crash", f"exit code {process.exitcode}")
        todo = [number for number in todo if number not in found]
    return found


def report(
    found: dict[int, tuple[str, str]],
    bad: Sequence[str],
    name_of: Callable[[int], str],
    path: Path | None,
) -> int:
    """Print and write the counts of outcomes and every bad one; the exit code, 1 where there are bad ones.

    Args:
        found: of `watch`.
        bad: outcomes that should not be.
        name_of: number -> a kind, by which is counted.
        path: of a JSON file; None: none.
    """
    counts: dict[str, Counter] = {}
    for number, (outcome, _) in found.items():
        counts.setdefault(name_of(number), Counter())[outcome] += 1
    listed = [
        {"number": number, "kind": name_of(number), "outcome": outcome, "word": word[:600]}
        for number, (outcome, word) in sorted(found.items())
        if outcome in bad
    ]
    content = {
        "attempts": len(found),
        "counts": {k: dict(c.most_common()) for k, c in counts.items()},
        "listed": listed,
    }
    text = json.dumps(content, indent=1, ensure_ascii=False)
    sys.stdout.write(text + "\n")
    if path is not None:
        path.write_text(text + "\n", encoding="utf-8")
    return int(bool(listed))


def timed(attempt: Callable[[], tuple[str, str]]) -> tuple[str, str]:
    """An attempt's outcome, "slow" where it took too long."""
    begun = time.process_time()
    outcome = attempt()
    spent = time.process_time() - begun
    return outcome if spent <= SECONDS else ("slow", f"{spent:.0f} s of processor time, then {': '.join(outcome)}")


def _work(attempt: Attempt, numbers: list[int], queue: Any) -> None:
    for number in numbers:
        queue.put((number, "begun", ""))
        queue.put((number, *attempt(number)))


def _drain(process: Any, queue: Any, found: dict[int, tuple[str, str]], count: int) -> int | None:
    """Collect until all are done or the process hangs or dies; the number that it was at then."""
    current, done, heard = None, 0, time.monotonic()
    while done < count:
        try:
            number, outcome, word = queue.get(timeout=1)
        except queues.Empty:
            if not process.is_alive() or time.monotonic() - heard > PATIENCE * SECONDS:
                return current
            continue
        heard = time.monotonic()
        if outcome == "begun":
            current = number
        else:
            found[number], current, done = (outcome, word), None, done + 1
    return None
