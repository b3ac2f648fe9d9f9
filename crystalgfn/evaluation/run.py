"""An evaluation of a set of crystals in a folder: its work is kept as it is done, so a kill loses little.

The stages (describing each crystal, comparing them, describing the reference, relaxing) write to journals under
``work/``; the same evaluation begun again goes on where they end. Relaxing loses at most the structures in work, the
other stages a chunk.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from crystalgfn.crystallography.atoms import Atoms, SkippedRecord
from crystalgfn.data.samples import Item, Sample
from crystalgfn.data.structures import CELL
from crystalgfn.errors import CheckpointError
from crystalgfn.evaluation.describe import describe_item, reference_row, structure_of_row
from crystalgfn.evaluation.metrics.compositions import amounts
from crystalgfn.evaluation.metrics.novelty import Matches, Task, Tolerances, gather, tasks
from crystalgfn.evaluation.metrics.stability import Job, relax_job, relaxation_row
from crystalgfn.evaluation.metrics.symmetry import MAIN, SYMPRECS
from crystalgfn.evaluation.reference import Entry, Reference, entry_of
from crystalgfn.structures.ground_state import MAX_FORCE
from crystalgfn.utils.files import remove_leftovers, write_aside
from crystalgfn.utils.parallel import unordered
from crystalgfn.utils.progress import Bar
from crystalgfn.utils.run_folder import Journal

WORK = "work"
SETTINGS = "settings.json"
CHUNK = 16
"""Crystals that are described together."""


@dataclass(frozen=True)
class Plan:
    """How crystals are judged.

    Attributes:
        symprecs: tolerances in Å at which groups are looked for.
        symprec: the one whose groups and prototypes are counted.
        tolerances: of the comparisons.
        swap: also compare with elements exchanged.
        n: samples that are judged, at most, drawn at random; None: all.
        reference_n: known crystals that properties are compared with, at most, drawn at random.
        relax_n: samples that are relaxed, at most, drawn at random; None: all.
        steps: of a relaxation, at most.
        max_force: eV/Å at which it has converged.
        energy: the reference's column of formation energies, eV/atom.
        seed: of what is drawn at random.
    """

    symprecs: tuple[float, ...] = SYMPRECS
    symprec: float = MAIN
    tolerances: Tolerances = Tolerances()
    swap: bool = False
    n: int | None = None
    reference_n: int = 5000
    relax_n: int | None = None
    steps: int = 100
    max_force: float = MAX_FORCE
    energy: str = "formation_energy_per_atom"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("n", "reference_n", "relax_n", "steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}: give a whole number of at least 1")
        for name, values in (("symprecs", self.symprecs), ("symprec", [self.symprec]), ("max_force", [self.max_force])):
            if not values or min(values) <= 0:
                raise ValueError(f"{name}={list(values)}: give numbers above 0")


class EvaluationRun:
    """The work of one evaluation, kept in a folder.

    Args:
        out: the folder.
        samples: what `read_items` found.
        reference: known crystals, or None.
        plan: how.
        names: what the sources are called; a folder goes on with the same ones only.
        n_jobs: processes.
        progress: shows bars.

    Attributes:
        items: those of the samples that can be tried, by index.
        unread: those that cannot, by index.

    Raises:
        CheckpointError: the folder holds an evaluation of something else.
    """

    def __init__(
        self,
        out: str | Path,
        samples: Sequence[Item | SkippedRecord],
        reference: Reference | None,
        plan: Plan,
        names: Mapping[str, str | None],
        n_jobs: int = 1,
        progress: bool = True,
    ) -> None:
        self.out, self.plan, self.reference, self.n_jobs, self.progress = Path(out), plan, reference, n_jobs, progress
        self.chosen = _some(len(samples), plan.n, plan.seed)
        self.items = {i: samples[i] for i in self.chosen if isinstance(samples[i], Item)}
        self.unread = {i: samples[i] for i in self.chosen if isinstance(samples[i], SkippedRecord)}
        self.settings = _settings(plan, names, [samples[i] for i in self.chosen], reference)
        work = self.out / WORK
        self._guard("judging", self.settings)
        remove_leftovers(self.out)
        self._rows = Journal(work / "structures.jsonl", "index")
        self._matches = Journal(work / "matches.jsonl", "task")
        self._known = Journal(work / "reference.jsonl", "index")
        self._relaxed = Journal(work / "relaxations.jsonl", "index")
        self._relaxed_matches = Journal(work / "relaxed_matches.jsonl", "task")

    def _guard(self, stage: str, settings: Mapping[str, Any]) -> None:
        """Write down what a stage works on, or refuse what is not the same as before."""
        path = self.out / WORK / SETTINGS
        try:
            kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        except ValueError as error:
            raise CheckpointError(f"{path} is damaged ({error}); delete {path.parent} to begin anew") from error
        before, now = kept.get(stage), json.loads(json.dumps(settings))
        if before is not None and before != now:
            name = next(key for key in sorted({*before, *now}) if before.get(key) != now.get(key))
            raise CheckpointError(
                f"{self.out} holds an evaluation with {name}={before.get(name)}, not {now.get(name)}; "
                "give what it was begun with, or choose another out=<folder>"
            )
        if before is None:
            text = json.dumps({**kept, stage: now}, indent=1)
            write_aside(path, lambda aside: aside.write_text(text + "\n", encoding="utf-8"))

    @property
    def done(self) -> int:
        """Samples that are described."""
        return len(self._rows)

    @property
    def errors(self) -> list[SkippedRecord]:
        """Samples that could not be read or judged, in order."""
        found = dict(self.unread)
        for i, record in self._rows.records.items():
            if record["error"] is not None:
                found[i] = SkippedRecord(record["where"], record["error"])
        return [found[i] for i in sorted(found)]

    @property
    def indices(self) -> list[int]:
        """Of the samples that are described, in order."""
        return sorted(i for i, record in self._rows.records.items() if record["error"] is None)

    def describe(self) -> None:
        """Describe every sample that is not yet described."""
        todo = [(i, item) for i, item in self.items.items() if i not in self._rows]
        pieces = [todo[start : start + CHUNK] for start in range(0, len(todo), CHUNK)]
        work = partial(_describe, symprecs=self.plan.symprecs, main=self.plan.symprec)
        self._work("describing", work, pieces, self._rows, len(self.items))

    def compare(self) -> Matches:
        """Compare the samples with each other and with the reference."""
        entries = {i: _entry(self._rows.records[i]) for i in self.indices}
        return self._compare(entries, self._matches, "comparing", self.plan.swap)

    def _compare(self, entries: Mapping[int, Entry], journal: Journal, words: str, swap: bool) -> Matches:
        known = () if self.reference is None else self.reference.entries
        found = tasks(entries, known, swap, self.plan.tolerances)
        todo = [task for task in found if task.name not in journal]
        self._work(words, Task.run, todo, journal, len(found))
        return gather([journal.records[task.name] for task in found])

    def describe_reference(self) -> pd.DataFrame:
        """Properties and symmetry of the reference, or of a part of it."""
        if self.reference is None:
            return pd.DataFrame()
        entries = self.reference.entries
        chosen = _some(len(entries), self.plan.reference_n, self.plan.seed)
        todo = [(i, entries[i].origin) for i in chosen if i not in self._known]
        pieces = [todo[start : start + 4 * CHUNK] for start in range(0, len(todo), 4 * CHUNK)]
        work = partial(_describe_known, energy=self.plan.energy, main=self.plan.symprec)
        self._work("describing the reference", work, pieces, self._known, len(chosen))
        rows = [self._known.records[i] for i in chosen]
        return pd.DataFrame([row for row in rows if row["error"] is None])

    def relax(self, scheduler: str | None = None, job: Callable[[Job], dict[str, Any]] = relax_job) -> list[int]:
        """Relax samples; the indices of those that were chosen, readable or not.

        Args:
            scheduler: the address of a Dask scheduler.
            job: what relaxes one.
        """
        self._guard(
            "relaxing", {name: getattr(self.plan, name) for name in ("relax_n", "steps", "max_force", "seed", "energy")}
        )
        chosen = [self.chosen[k] for k in _some(len(self.chosen), self.plan.relax_n, self.plan.seed)]
        readable = set(self.indices)
        todo = [
            Job(i, structure_of_row(self._rows.records[i]), self.plan.steps, self.plan.max_force)
            for i in chosen
            if i in readable and i not in self._relaxed
        ]
        total = sum(i in readable for i in chosen)
        self._work("relaxing (CHGNet)", job, todo, self._relaxed, total, scheduler)
        return chosen

    def relaxed_rows(self, chosen: Sequence[int], hull: Any) -> pd.DataFrame:
        """The columns of the relaxations, whether each is unique and novel once relaxed; one row an index."""
        rows = {}
        for i in chosen:
            record = self._relaxed.records.get(i)
            if record is None:
                record = {"index": i, "error": "could not be read", "seconds": np.nan}
            rows[i] = {"index": i, **relaxation_row(record, hull)}
        frame = pd.DataFrame(list(rows.values()))
        for name in ("e_above_hull", "formation_energy", "start_energy", "displacement", "volume_ratio", "strain"):
            frame[name] = frame[name].astype(float) if name in frame else np.nan
        frame["converged"] = frame["converged"].eq(True) if "converged" in frame else False
        good = [i for i in chosen if i in self._relaxed and self._relaxed.records[i]["error"] is None]
        # Of several that are the same, the lowest counts.
        good.sort(key=lambda i: self._relaxed.records[i]["formation_energy"])
        entries = {i: _relaxed_entry(self._relaxed.records[i]) for i in good}
        matches = self._compare(entries, self._relaxed_matches, "comparing once relaxed", False)
        known = set(good)
        frame["relaxed_unique"] = [i not in matches.duplicate_of if i in known else None for i in frame["index"]]
        frame["relaxed_novel"] = [i not in matches.known_as if i in known else None for i in frame["index"]]
        return frame

    def table(self, matches: Matches) -> pd.DataFrame:
        """One row a sample that could be described."""
        rows = [{k: v for k, v in self._rows.records[i].items() if k != "error"} for i in self.indices]
        frame = pd.DataFrame(rows)
        if not len(frame):
            return frame
        where = dict(zip(frame["index"], frame["where"], strict=True))

        def columns(prefix: str, first: Mapping[int, int], known: Mapping[int, str]) -> None:
            frame[f"{prefix}duplicate_of"] = pd.Series([where.get(first.get(i)) for i in frame["index"]], dtype="str")
            frame[f"{prefix}unique"] = [i not in first for i in frame["index"]]
            if self.reference is not None:
                frame[f"{prefix}known_as"] = pd.Series([known.get(i) for i in frame["index"]], dtype="str")
                frame[f"{prefix}novel"] = [i not in known for i in frame["index"]]

        columns("", matches.duplicate_of, matches.known_as)
        if self.plan.swap:
            columns("swap_", matches.swap_duplicate_of, matches.swap_known_as)
        for name in frame:
            if frame[name].dtype == object and frame[name].map(lambda v: v is None or isinstance(v, bool)).all():
                frame[name] = frame[name].astype("boolean")
        frame["sites"] = frame["sites"].astype("str")
        return frame

    def seconds(self) -> dict[str, float]:
        """Of work in each stage, over all processes and sittings."""
        journals = {
            "describing": self._rows,
            "comparing": self._matches,
            "reference": self._known,
            "relaxing": self._relaxed,
            "comparing once relaxed": self._relaxed_matches,
        }
        return {
            name: round(sum(record.get("seconds") or 0.0 for record in journal.records.values()), 3)
            for name, journal in journals.items()
        }

    def _work(
        self,
        words: str,
        function: Callable[[Any], Any],
        pieces: Sequence[Any],
        journal: Journal,
        total: int,
        scheduler: str | None = None,
    ) -> None:
        if not pieces:
            return
        sizes = sum(len(piece) if isinstance(piece, list) else 1 for piece in pieces)
        bar = Bar(total=total, initial=total - sizes, description=words, shown=self.progress, smoothing=0.1)
        for found in unordered(function, pieces, self.n_jobs, scheduler):
            records = found if isinstance(found, list) else [found]
            journal.add(*records)
            bar.update(len(records))
        bar.close()


def _some(total: int, n: int | None, seed: int) -> list[int]:
    """At most n of ``range(total)``, drawn at random, ascending."""
    if n is None or n >= total:
        return list(range(total))
    return sorted(np.random.default_rng(seed).choice(total, n, replace=False).tolist())


def _settings(
    plan: Plan, names: Mapping[str, str | None], samples: Sequence[Item | SkippedRecord], reference: Reference | None
) -> dict[str, Any]:
    """What the rows and the comparisons depend on."""
    own = ("symprecs", "symprec", "swap", "reference_n", "n", "seed", "energy")
    values = {name: getattr(plan, name) for name in own}
    known = 0 if reference is None else len(reference.entries)
    content = {"samples_content": _digest(samples), "reference_entries": known}
    return {**names, **values, **asdict(plan.tolerances), **content}


def _digest(samples: Sequence[Item | SkippedRecord]) -> str:
    """Of what the samples are: their files' sizes and times, or their content."""
    digest = hashlib.sha256()
    for item in samples:
        digest.update(item.where.encode())
        if isinstance(item, SkippedRecord):
            continue
        if item.kind == "file":
            stat = Path(item.content).stat()
            digest.update(f"{stat.st_size} {stat.st_mtime_ns}".encode())
        elif item.kind == "atoms":
            for part in (item.content.lattice, item.content.points, item.content.numbers):
                digest.update(np.ascontiguousarray(part).tobytes())
        else:
            digest.update(item.content.encode())
    return digest.hexdigest()


def _describe(piece: list[tuple[int, Item]], symprecs: Sequence[float], main: float) -> list[dict[str, Any]]:
    return [_record(i, item.where, partial(describe_item, item, symprecs, main)) for i, item in piece]


def _describe_known(piece: list[tuple[int, Item | Sample]], energy: str, main: float) -> list[dict[str, Any]]:
    def row(origin: Item | Sample) -> dict[str, Any] | SkippedRecord:
        sample = origin if isinstance(origin, Sample) else origin.read()
        if isinstance(sample, SkippedRecord):
            return sample
        try:
            return reference_row(sample, energy, main)
        except Exception as error:  # as for samples: one on which a library stumbles must not stop the others
            return SkippedRecord(sample.where, f"cannot be judged ({type(error).__name__}: {str(error)[:120]})")

    return [_record(i, origin.where, partial(row, origin)) for i, origin in piece]


def _record(i: int, where: str, describe: Callable[[], dict[str, Any] | SkippedRecord]) -> dict[str, Any]:
    start = time.perf_counter()
    row = describe()
    seconds = round(time.perf_counter() - start, 5)
    if isinstance(row, SkippedRecord):
        return {"index": i, "where": where, "error": row.reason, "seconds": seconds}
    return {"index": i, **row, "error": None, "seconds": seconds}


def _entry(row: Mapping[str, Any]) -> Entry:
    """The entry of a row; a structure is built only where it is compared."""
    if row["sites"]:
        structure = structure_of_row(row)
        occupied = tuple(amounts(structure).items())
        return Entry(row["where"], occupied, False, row["space_group"], Sample(row["where"], structure))
    lattice, points = [row[f"cell_{name}"] for name in CELL], np.array(row["frac"]).reshape(-1, 3)
    return _plain(row["where"], lattice, points, row["Z"], row["space_group"])


def _plain(where: str, lattice: Sequence[float], points: np.ndarray, numbers: Sequence[int], group: int) -> Entry:
    atoms = Atoms(where, np.array(lattice), points, np.array(numbers), group)
    return entry_of(Item(where, "atoms", atoms, group))


def _relaxed_entry(record: Mapping[str, Any]) -> Entry:
    points = np.array(record["relaxed_frac"]).reshape(-1, 3)
    return _plain(str(record["index"]), record["relaxed_cell"], points, record["relaxed_Z"], 0)
