"""What a discovery found: the ranked table, structures, phase diagram and powder patterns, and their files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from crystalgfn.calculators.base import Calculator
from crystalgfn.calculators.registry import load_calculator
from crystalgfn.crystallography import elements
from crystalgfn.discovery.phases import KnownPhases
from crystalgfn.discovery.ranking import ranked
from crystalgfn.errors import DataError
from crystalgfn.evaluation.metrics.compositions import amounts
from crystalgfn.evaluation.relaxation_job import STEPS, RelaxationJob, relax_job
from crystalgfn.sampling.table import write_table
from crystalgfn.structures.exchange import Exchange, StructureRecord, ase_atoms
from crystalgfn.utils.files import write_aside

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.analysis.diffraction.xrd import DiffractionPattern
    from pymatgen.analysis.phase_diagram import PhaseDiagram
    from pymatgen.core import Structure

SYMPREC = 0.1
"""Å, of the symmetry that CIFs are written with."""
RADIATION = "CuKa"
MOST_AXES = 4
"""Elements of a phase diagram, at most; of more a slice can be taken."""
CIFS, PATTERNS, SECOND = "cifs", "patterns", "second.csv"
MANY = 20
"""Structures whose powder patterns are written."""


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Found(Exchange):
    """The result of a discovery.

    Attributes:
        table: one row a relaxed candidate, the ranked ones first, see `crystalgfn.discovery.ranking.rank_relaxed`.
        structures: relaxed, primitive cells, in the order of the ranks.
        phases: the known phases of the space.
        summary: the figures, as in ``summary.json``.
        out: the folder.
        about: what stands in the comments of the CIFs: seed, version, sampler and its hash, calculator.
    """

    table: pd.DataFrame
    structures: list[Structure]
    phases: KnownPhases
    summary: dict[str, Any]
    out: Path
    about: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.structures)

    def __repr__(self) -> str:
        return f"Found({len(self)} ranked of {len(self.table)} relaxed, in {self.out})"

    def records(self) -> list[StructureRecord]:
        """The ranked structures with their formation energies and energies above the hull by the calculator."""
        names = ("rank", "e_above_hull", "e_above_hull_std", "known_as", "decomposition")
        found = []
        for structure, row in zip(self.structures, self.ranked.to_dict("records"), strict=True):
            about = {str(key): None if pd.isna(row[key]) else row[key] for key in names if key in row}
            found.append(
                StructureRecord(
                    structure=structure, name=f"{row['rank']:04d}-{row['formula']}-{row['space_group']}",
                    space_group=int(row["space_group"]), energy=float(row["formation_energy"]), energy_of="formation",
                    by=self.about.get("calculator"), about=about,
                )
            )  # fmt: skip
        return found

    def to_ase(self) -> list[Atoms]:
        """ASE's atoms of the ranked structures."""
        return [ase_atoms(one.structure, one.properties) for one in self.records()]

    @property
    def ranked(self) -> pd.DataFrame:
        """The rows of ``structures``, in their order."""
        return ranked(self.table)

    def phase_diagram(self, elements: Sequence[str] | None = None, slice: Sequence[str] | None = None) -> PhaseDiagram:
        """pymatgen's phase diagram of the known phases and the ranked candidates (``entry.attribute``: rank).

        Args:
            elements: its axes, two to four; None: those of the space, or where these are more than four those of the
                best candidate.
            slice: compositions that it is cut through, such as ``["Li2O", "MnO2", "P2O5"]``: entries that are no
                mixture of these are left out. None: none up to three elements; of four, what each of the other three
                forms with the most electronegative one, the compound of lowest energy on the hull (the element itself
                where there is none).

        Raises:
            DataError: more than four elements without a slice, or fewer than two.
        """
        from pymatgen.analysis.phase_diagram import CompoundPhaseDiagram, PhaseDiagram
        from pymatgen.core import Composition

        axes = list(elements) if elements is not None else self._axes()
        if not 2 <= len(axes) <= MOST_AXES and slice is None:
            raise DataError(
                f"a phase diagram of {len(axes)} elements ({', '.join(axes)}) cannot be drawn; choose two to four, "
                'elements=["Li", "Mn", "O"], or a slice=[...] of compositions'
            )
        cut = slice if slice is not None or len(axes) < MOST_AXES else self._cut(axes)
        if cut is None:
            return PhaseDiagram(self._entries(axes))
        terminals = [Composition(one) for one in cut]
        return CompoundPhaseDiagram(self._entries(axes), terminals, normalize_terminal_compositions=True)

    def _entries(self, axes: Sequence[str]) -> list[Any]:
        """The elements, the known phases and the candidates within some axes."""
        from pymatgen.analysis.phase_diagram import PDEntry
        from pymatgen.core import Composition

        entries = [PDEntry(Composition(symbol), 0.0, name=symbol) for symbol in axes]
        within = {elements.NUMBER[symbol] for symbol in axes}  # of the whole space there may be 100,000
        for phase in (one for one in self.phases.phases if {z for z, _ in one.amounts} <= within):
            own = _composition(phase.amounts)
            energy = phase.energy + self.phases.shift(phase.amounts)
            entries.append(PDEntry(own, energy * own.num_atoms, name=phase.identifier))
        for rank, (structure, energy) in enumerate(
            zip(self.structures, self.ranked["formation_energy"], strict=True), 1
        ):
            own = structure.composition
            energy = energy + self.phases.shift(tuple(amounts(structure).items()))
            name = f"{own.reduced_formula} (rank {rank})"
            entries.append(PDEntry(own, energy * own.num_atoms, name=name, attribute=rank))
        return [one for one in entries if {element.symbol for element in one.elements} <= set(axes)]

    def _axes(self) -> list[str]:
        within = sorted({z for one in self.phases.phases for z, _ in one.amounts})
        if len(within) > MOST_AXES and self.structures:
            within = sorted({site.specie.Z for site in self.structures[0]})
        return [elements.SYMBOLS[z - 1] for z in within]

    def _cut(self, axes: Sequence[str]) -> list[str]:
        anion = max(axes, key=lambda symbol: elements.ELECTRONEGATIVITY[elements.NUMBER[symbol] - 1])
        cut = []
        for symbol in axes:
            if symbol != anion:
                pair = {elements.NUMBER[symbol], elements.NUMBER[anion]}
                of = [one for one in self.phases.stable if {z for z, _ in one.amounts} == pair]
                cut.append(min(of, key=lambda one: one.energy).formula if of else symbol)
        return cut

    def second_opinion(
        self, calculator: Calculator | str, n: int = 5, steps: int = STEPS, energy_references: str | None = None
    ) -> pd.DataFrame:
        """The first ``n`` structures relaxed further by another calculator, and written to ``second.csv``.

        Columns: rank, formula, space_group, known_as, calculator, e_above_hull (as found, eV/atom above the hull of the
        known phases), second_calculator, second_e_above_hull (by the other one's energies), second_error.

        Args:
            calculator: see `crystalgfn.calculators.registry.load_calculator`.
            n: structures, at most.
            steps: of a relaxation, at most.
            energy_references: file of its energy references; None: those that are shipped.

        Raises:
            CalculatorError, NotAvailable: there is no such calculator, or its package is not installed.
        """
        other = load_calculator(calculator)
        names = ["rank", "formula", "space_group", "known_as", "calculator", "e_above_hull"]
        rows = []
        for row, structure in zip(self.ranked.loc[:, names].head(n).to_dict("records"), self.structures, strict=False):
            done = relax_job(
                RelaxationJob(index=0, structure=structure, calculator=other, references=energy_references, steps=steps)
            )
            good = done["error"] is None
            above = self.phases.above(structure, done["formation_energy"]) if good else float("nan")
            own = {"second_calculator": other.name, "second_e_above_hull": above, "second_error": done["error"]}
            rows.append({**row, **own})
        frame = pd.DataFrame(rows, columns=[*names, "second_calculator", "second_e_above_hull", "second_error"])
        write_aside(self.out / SECOND, lambda path: frame.to_csv(path, index=False))
        return frame

    def powder_pattern(self, rank: int = 1) -> DiffractionPattern:
        """The predicted powder pattern of a ranked structure, Cu Kα (pymatgen's XRDCalculator).

        Raises:
            DataError: there is no such rank.
        """
        from pymatgen.analysis.diffraction.xrd import XRDCalculator

        if not 1 <= rank <= len(self.structures):
            raise DataError(f"rank={rank}: {len(self.structures)} structures are ranked; give a number from 1")
        return XRDCalculator(RADIATION).get_pattern(self.structures[rank - 1], two_theta_range=(5, 90))

    def cif(self, rank: int) -> str:
        """The CIF of a ranked structure, with what it is in comments."""
        from pymatgen.io.cif import CifWriter

        row = self.ranked.iloc[rank - 1]
        lines = {
            "generated by": f"crystalgfn {self.about['version']}, discover",
            "rank": rank,
            "formula": row["formula"],
            "oxidation states": oxidation_states(row["formula"]) or "no neutral assignment",
            "energy above hull (eV/atom)": f"{row['e_above_hull']:.4f} +- {row['e_above_hull_std']:.4f}",
            "formation energy (eV/atom)": f"{row['formation_energy']:.4f}",
            "decomposes to": row["decomposition"],
            "known as": row["known_as"],
            **{name: self.about[name] for name in ("calculator", "seed", "sampler", "sampler_hash")},
        }
        comments = "".join(f"# {name}: {value}\n" for name, value in lines.items())
        return comments + str(CifWriter(self.structures[rank - 1], symprec=SYMPREC))

    def write(self) -> list[str]:
        """Write table, CIFs and powder patterns; the names of what was written.

        Raises:
            CheckpointError: they cannot be written.
        """
        frame = self.table.copy()
        frame["file"] = pd.Series([None] * len(frame), dtype="str")
        for folder in (CIFS, PATTERNS):
            for old in (self.out / folder).glob("*.c*"):  # of a ranking with fewer relaxations
                old.unlink()
        for k, row in enumerate(self.ranked.to_dict("records")):
            rank = k + 1
            stem = re.sub(r"[^\w.()-]", "_", f"{rank:04d}_{row['formula']}_{row['space_group']}")
            _write(self.out / CIFS / f"{stem}.cif", self.cif(rank))
            frame.loc[frame["rank"] == rank, "file"] = f"{CIFS}/{stem}.cif"
            if rank <= MANY:
                _write(self.out / PATTERNS / f"{stem}.csv", _pattern_csv(self.powder_pattern(rank)))
        write_table(frame, self.out)
        return ["table.parquet", "table.csv", *[CIFS, PATTERNS] * bool(self.structures)]

    def report(self) -> Path:
        """Write ``report.html``, one page that opens offline.

        Raises:
            NotAvailable: plotly or pymatviz is not installed.
        """
        from crystalgfn.discovery.page import write_discovery_page

        return write_discovery_page(self)


def oxidation_states(formula: str) -> str:
    """The likeliest neutral assignment by pymatgen's statistics of the ICSD, such as "Li+ Mn3+ O2-"; "" for none."""
    from pymatgen.core import Composition

    guesses = Composition(formula).oxi_state_guesses(max_sites=-1)
    if not guesses:
        return ""
    return " ".join(f"{symbol}{_charge(state)}" for symbol, state in guesses[0].items())


def _charge(state: float) -> str:
    size = "" if abs(state) == 1 else f"{abs(state):g}"
    return "0" if state == 0 else f"{size}{'+' if state > 0 else '-'}"


def _composition(pairs: Sequence[tuple[int, float]]) -> Any:
    from pymatgen.core import Composition

    return Composition({elements.SYMBOLS[z - 1]: n for z, n in pairs})


def _pattern_csv(pattern: DiffractionPattern) -> str:
    lines = ["two_theta,intensity,d,hkl"]
    for x, y, d, families in zip(pattern.x, pattern.y, pattern.d_hkls, pattern.hkls, strict=True):
        planes = " ".join("(" + " ".join(map(str, one["hkl"])) + ")" for one in families)
        lines.append(f"{x:.4f},{y:.3f},{d:.5f},{planes}")
    return "\n".join(lines) + "\n"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_aside(path, lambda aside: aside.write_text(text, encoding="utf-8"))
