"""Labelled crystals of a MatBench task, through matminer."""

from __future__ import annotations

from collections.abc import Iterator

from crystalgfn.errors import DataError, NotAvailable
from crystalgfn.proxies.records import BadRow, Record, attempt, from_structure

#: The tasks with structures whose target is one of our properties: property, column.
TASKS = {"matbench_mp_e_form": ("formation_energy", "e_form"), "matbench_mp_gap": ("band_gap", "gap pbe")}


def stream_matbench(task: str, property: str, column: str | None = None) -> Iterator[Record | BadRow]:
    """The rows of a MatBench task; matminer downloads it on first use, and holds it in memory as a whole.

    Args:
        task: "matbench_mp_gap", "matbench_mp_e_form", or another task with structures.
        property: what is wanted, for the tasks named.
        column: the target's column; None: known for the tasks named.

    Raises:
        NotAvailable: matminer is not installed.
        DataError: no such task, no structures in it, no such column, or no network.
    """
    try:
        from matminer.datasets import load_dataset
    except ImportError as error:
        raise NotAvailable(
            f"matbench:{task} is read through matminer, which cannot be imported ({error}); install it by "
            'pip install "matminer>=0.10.1" "pandas<3" (it does not run with pandas 3)'
        ) from error
    column = column or _column(task, property)
    try:
        frame = load_dataset(task)
    except (ValueError, OSError) as error:  # an unknown task; no network (requests' errors are OSErrors)
        raise DataError(f"matminer cannot load {task}: {error}") from error
    missing = {"structure", column} - set(frame.columns)
    if missing:
        raise DataError(
            f"{task} has no column {', '.join(sorted(missing))}; it has {', '.join(map(str, frame.columns))}"
        )
    for number, (structure, label) in enumerate(zip(frame["structure"], frame[column], strict=True)):
        yield _record(f"row {number}", structure, label, column)


def _column(task: str, property: str) -> str:
    if task not in TASKS:
        raise DataError(f"the target of {task} is not known here; name its column (known: {', '.join(TASKS)})")
    held, column = TASKS[task]
    if held != property:
        raise DataError(f"{task} holds {held}, not {property}")
    return column


def _record(where: str, structure: object, label: object, column: str) -> Record | BadRow:
    return attempt(where, lambda: from_structure(where, structure, label, column, {}))
