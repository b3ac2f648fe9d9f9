"""An evaluation of a set of crystals in a folder: its work is kept as it is done, so a kill loses little.

The stages (describing each crystal, comparing them, describing the reference, relaxing) write to journals under
``work/``; the same evaluation begun again goes on where they end. Relaxing loses at most the structures in work, the
other stages a chunk.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from crystalgfn.crystallography.atoms import Record, SkippedRecord, all_atoms_of
from crystalgfn.evaluation.describe import Describer, atoms_of_row, structure_of_row
from crystalgfn.evaluation.metrics.base import CrystalSet, Metric, Selection
from crystalgfn.evaluation.metrics.novelty import ComparisonTask, Matches, comparison_tasks, gather_matches
from crystalgfn.evaluation.metrics.registry import all_metrics
from crystalgfn.evaluation.metrics.stability import label_of, relaxation_frame
from crystalgfn.evaluation.plan import EvaluationPlan, settings_of, some
from crystalgfn.evaluation.reference import Entry, Reference, entry_of
from crystalgfn.evaluation.relaxation_job import RelaxationJob, relax_job
from crystalgfn.evaluation.summary import Evaluation, evaluation
from crystalgfn.properties.convex_hull import ExactHull
from crystalgfn.utils.parallel import parallel_map
from crystalgfn.utils.progress import Bar
from crystalgfn.utils.run_folder import Journal, RunFolder

WORK = "work"
SETTINGS = f"{WORK}/settings.json"
CHUNK = 16
"""Crystals that are described together."""


class EvaluationRun:
    """The work of one evaluation, kept in a folder (a path, or that of the command at work).

    Samples are what `crystalgfn.data.reader.crystals` found; ``names`` are what the sources are called, with which
    alone a folder goes on; ``metrics`` further ones besides those of the package and of installed packages. ``items``
    are the samples that can be tried and ``unread`` those that cannot, by index.

    Raises:
        CheckpointError: the folder holds an evaluation of something else.
    """

    def __init__(
        self,
        out: str | Path | RunFolder,
        samples: Sequence[Record | SkippedRecord],
        reference: Reference | None,
        plan: EvaluationPlan,
        names: Mapping[str, str | None],
        n_jobs: int = 1,
        progress: bool = True,
        metrics: Sequence[Metric] = (),
    ) -> None:
        self.metrics = all_metrics(metrics)
        self.describer = Describer(plan.symprecs, plan.symprec, self.metrics)
        self.folder = out if isinstance(out, RunFolder) else RunFolder(out, "an evaluation")
        self.out, self.plan, self.reference = self.folder.path, plan, reference
        self.n_jobs, self.progress = n_jobs, progress
        self.chosen = some(len(samples), plan.n, plan.seed)
        chosen = {i: samples[i] for i in self.chosen}
        self.items = {i: one for i, one in chosen.items() if isinstance(one, Record)}
        self.unread = {i: one for i, one in chosen.items() if isinstance(one, SkippedRecord)}
        self.settings = settings_of(plan, names, [samples[i] for i in self.chosen], reference, self.metrics)
        work = self.out / WORK
        self.folder.agree(self.settings, file=SETTINGS, section="judging")
        self._rows = Journal(work / "structures.jsonl", "index")
        self._matches = Journal(work / "matches.jsonl", "task")
        self._known = Journal(work / "reference.jsonl", "index")
        self._relaxed = Journal(work / "relaxations.jsonl", "index")
        self._relaxed_matches = Journal(work / "relaxed_matches.jsonl", "task")

    def discard(self) -> None:
        """Forget all work, where nothing could be judged; what is put right is another set of crystals."""
        shutil.rmtree(self.out / WORK, ignore_errors=True)

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
        self._work("describing", self.describer.records, pieces, self._rows, len(self.items))

    def compare(self) -> Matches:
        """Compare the samples with each other and with the reference."""
        entries = {i: _entry(self._rows.records[i]) for i in self.indices}
        return self._compare(entries, self._matches, "comparing", self.plan.swap)

    def _compare(self, entries: Mapping[int, Entry], journal: Journal, words: str, swap: bool) -> Matches:
        known = () if self.reference is None else self.reference.entries
        found = comparison_tasks(entries, known, swap, self.plan.tolerances)
        todo = [task for task in found if task.name not in journal]
        self._work(words, ComparisonTask.run, todo, journal, len(found))
        return gather_matches([journal.records[task.name] for task in found])

    def describe_reference(self) -> pd.DataFrame:
        """Properties and symmetry of the reference, or of a part of it."""
        if self.reference is None:
            return pd.DataFrame()
        entries = self.reference.entries
        chosen = some(len(entries), self.plan.reference_n, self.plan.seed)
        todo = [(i, entries[i].origin) for i in chosen if i not in self._known]
        pieces = [todo[start : start + 4 * CHUNK] for start in range(0, len(todo), 4 * CHUNK)]
        describer = Describer((), self.plan.symprec, self.metrics)
        work = partial(describer.records, energy=self.plan.energy)
        self._work("describing the reference", work, pieces, self._known, len(chosen))
        rows = [self._known.records[i] for i in chosen]
        return pd.DataFrame([row for row in rows if row["error"] is None])

    def relax(
        self, scheduler: str | None = None, job: Callable[[RelaxationJob], dict[str, Any]] = relax_job
    ) -> list[int]:
        """Relax samples by ``job``; the indices of those that were chosen, readable or not. ``scheduler``: of Dask."""
        names = ("relax_n", "steps", "max_force", "seed", "energy", "energy_references")
        calculator = self.plan.calculator if isinstance(self.plan.calculator, str) else self.plan.calculator.name
        own = {"calculator": calculator, **{name: getattr(self.plan, name) for name in names}}
        self.folder.agree(own, file=SETTINGS, section="relaxing")
        chosen = [self.chosen[k] for k in some(len(self.chosen), self.plan.relax_n, self.plan.seed)]
        readable = set(self.indices)
        todo = [
            RelaxationJob(
                index=i,
                structure=structure_of_row(self._rows.records[i]),
                calculator=self.plan.calculator,
                references=self.plan.energy_references,
                steps=self.plan.steps,
                max_force=self.plan.max_force,
            )
            for i in chosen
            if i in readable and i not in self._relaxed
        ]
        total = sum(i in readable for i in chosen)
        self._work("relaxing", job, todo, self._relaxed, total, scheduler)
        return chosen

    def relaxed_rows(self, chosen: Sequence[int], hull: ExactHull) -> pd.DataFrame:
        """The columns of the relaxations, whether each is unique and novel once relaxed; one row an index."""
        records = {i: self._relaxed.records.get(i) for i in chosen}
        frame = relaxation_frame(records, hull)
        good = {i: record for i, record in records.items() if record is not None and record["error"] is None}
        # Of several that are the same, the lowest counts.
        entries = {i: _relaxed_entry(good[i]) for i in sorted(good, key=lambda i: good[i]["formation_energy"])}
        matches = self._compare(entries, self._relaxed_matches, "comparing once relaxed", False)
        frame["relaxed_unique"] = [i not in matches.duplicate_of if i in good else None for i in frame["index"]]
        frame["relaxed_novel"] = [i not in matches.known_as if i in good else None for i in frame["index"]]
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
            if frame[name].dtype == object and all(v is None or isinstance(v, bool) for v in frame[name]):
                frame[name] = frame[name].astype("boolean")
        frame["sites"] = frame["sites"].astype("str")
        return frame

    def evaluation(
        self,
        hull: ExactHull | None = None,
        best: Selection | None = None,
        scheduler: str | None = None,
        job: Callable[[RelaxationJob], dict[str, Any]] = relax_job,
    ) -> Evaluation:
        """All figures of the samples that `describe` has described; what is missing of the other stages is done.

        Relaxed energies are compared with the hull (None: nothing is relaxed), the crystals of ``best`` looked at
        apart.

        Raises:
            DataError: there is no column to choose the best crystals by.
        """
        frame, energies, rows = self.table(self.compare()), None, None
        known = self.describe_reference()
        if hull is not None:
            rows = self.relaxed_rows(self.relax(scheduler, job), hull)
            energies = label_of(rows)
            frame = frame.merge(rows.drop(columns=["seconds"], errors="ignore"), on="index", how="left")
        else:
            names = ("source_formation_energy", "source_formation_energy_per_atom")
            column = next((name for name in names if name in frame), None)
            if column is not None:
                frame["formation_energy"], energies = frame[column], "as the source says"
        given = len(frame) + len(self.errors)
        samples = CrystalSet(
            frame=frame,
            given=given,
            energies=energies,
            relaxations=rows,
            hull_entries=0 if hull is None else hull.n_entries,
            best=best,
        )
        reference = None
        if self.reference is not None and len(known):
            reference = CrystalSet(
                frame=known, given=len(self.reference.entries), space_groups=group_counts(self.reference, known)
            )
        return evaluation(samples, self.errors, reference, self.metrics, self.seconds())

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
        for found in parallel_map(function, pieces, n_jobs=self.n_jobs, ordered=False, scheduler=scheduler):
            records = found if isinstance(found, list) else [found]
            journal.add(*records)
            bar.update(len(records))
        bar.close()


def group_counts(reference: Reference, frame: pd.DataFrame) -> dict[int, int]:
    """Space group -> known crystals: as the source names them all, else as found in those that were looked at."""
    named = [entry.group for entry in reference.entries]
    if all(named):
        return dict(Counter(named))
    return dict(Counter(int(group) for group in frame["space_group"] if group))


def _entry(row: Mapping[str, Any]) -> Entry:
    """The entry of a row; a structure is built only where it is compared."""
    if row["sites"]:
        atoms = all_atoms_of(row["where"], structure_of_row(row), row["space_group"])
        if isinstance(atoms, SkippedRecord):
            raise ValueError(str(atoms))
        return entry_of(Record(row["where"], atoms))
    return entry_of(Record(row["where"], atoms_of_row(row)))


def _relaxed_entry(record: Mapping[str, Any]) -> Entry:
    return entry_of(Record(str(record["index"]), atoms_of_row(record, relaxed=True)))
