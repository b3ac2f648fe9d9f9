"""A campaign of relaxations in one folder: propose, choose, relax, learn, again; what is done survives a kill."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from crystalgfn.calculators.base import Calculator
from crystalgfn.calculators.registry import DEFAULT
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.discovery.acquisition import Acquisition, Labels
from crystalgfn.discovery.correction import Correction
from crystalgfn.discovery.proposer import (
    PlacedCrystal,
    Representation,
    Shift,
    crystals_of_choices,
    structure_of_choice,
)
from crystalgfn.errors import CalculatorError
from crystalgfn.evaluation.relaxation_job import RelaxationJob, relax_job
from crystalgfn.properties.base import Property
from crystalgfn.structures.ground_state import MAX_FORCE
from crystalgfn.typing import Floats
from crystalgfn.utils.parallel import parallel_map
from crystalgfn.utils.progress import Bar, report
from crystalgfn.utils.run_folder import Journal, RunFolder

WORK = "work"
HOPELESS = 10
"""Relaxations of which none succeeded after which a campaign stops."""
BARREN = 3
"""Rounds in a row without anything new to relax after which a campaign ends: the space is exhausted."""


class Proposes(Protocol):
    """What makes candidates; the same round gives the same ones."""

    ess: float

    def draw(self, number: int, shift: Shift | None = None) -> Crystals:
        """Crystals of a round, drawn with what is added to their predicted energies in mind."""
        ...

    def place(self, crystals: Crystals, number: int) -> list[PlacedCrystal]:
        """Their structures."""
        ...


@dataclass(frozen=True, kw_only=True)
class CampaignPlan:
    """What a campaign spends, and how it relaxes.

    Attributes:
        budget: relaxations.
        batch: relaxations a round.
        shortlist: crystals a round whose atoms are placed.
        seconds: no relaxation is begun later than so long after the start of a sitting; None: the budget alone counts.
        steps: of a relaxation, at most.
        max_force: eV/Å at which it has converged.
        calculator: relaxes, see `crystalgfn.calculators.registry.load_calculator`.
        energy_references: file of its energy references; None: those that come with the package.
        n_jobs: processes that relax.
    """

    budget: int = 60
    batch: int = 10
    shortlist: int = 30
    seconds: float | None = None
    steps: int = 100
    max_force: float = MAX_FORCE
    calculator: Calculator | str = DEFAULT
    energy_references: str | None = None
    n_jobs: int = 1

    def __post_init__(self) -> None:
        for name in ("budget", "batch", "shortlist", "steps"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}={value}: give a whole number of at least 1")
        if self.seconds is not None and not self.seconds > 0:
            raise ValueError(f"seconds={self.seconds}: give a number above 0, or None for no limit but the budget")


class Hull(Protocol):
    """What energies are measured against."""

    def energy(self, crystals: Crystals) -> Floats:
        """Formation energy at which each crystal lies on the hull, eV/atom [B]."""
        ...


class Campaign:
    """The rounds of a discovery.

    In each round crystals are drawn, a shortlist of them is placed, and a batch of those is relaxed, both chosen by the
    acquisition on the predicted energies above the hull, corrected by what was relaxed before. A round is written down
    before it is relaxed and each relaxation when it is done, and both follow from the seed and from earlier rounds
    alone: a campaign that was killed goes on to the result of one that was not, and a larger budget goes on from a
    smaller one.

    Args:
        folder: of the run.
        proposer: makes candidates.
        energy: the predicted formation energy, eV/atom.
        hull: of the known phases, on the scale of ``energy``.
        correction: of the predicted energy.
        represent: crystals as the correction sees them.
        acquisition: chooses.
        plan: what is spent.
        progress: shows a bar.
        job: what relaxes one structure.

    Attributes:
        chosen: records of the candidates that were chosen, by their index.
        relaxed: records of the relaxations, see `crystalgfn.evaluation.relaxation_job.relax_job`, by the same.
        rounds: records of the rounds.
        stopped_by: "budget", "seconds", or "space exhausted" where nothing new came in three rounds.
    """

    def __init__(
        self,
        folder: RunFolder,
        proposer: Proposes,
        energy: Property,
        hull: Hull,
        correction: Correction,
        represent: Representation,
        acquisition: Acquisition,
        plan: CampaignPlan,
        progress: bool = True,
        job: Callable[[RelaxationJob], dict[str, Any]] = relax_job,
    ) -> None:
        self.folder, self.proposer, self.energy, self.hull = folder, proposer, energy, hull
        self.correction, self.represent, self.acquisition, self.plan = correction, represent, acquisition, plan
        self.progress, self.job = progress, job
        self._rounds = Journal(folder.path / WORK / "rounds.jsonl", "round")
        self._relaxed = Journal(folder.path / WORK / "relaxations.jsonl", "index")
        self.stopped_by = "budget"

    @property
    def rounds(self) -> list[dict[str, Any]]:
        """In their order."""
        return [self._rounds.records[key] for key in sorted(self._rounds.records)]

    @property
    def chosen(self) -> dict[int, dict[str, Any]]:
        """Of all rounds."""
        return {one["index"]: one for own in self.rounds for one in own["chosen"]}

    @property
    def relaxed(self) -> dict[int, dict[str, Any]]:
        """That are done."""
        return dict(sorted(self._relaxed.records.items()))

    @property
    def spent(self) -> int:
        """Relaxations."""
        return len(self._relaxed)

    def run(self) -> None:
        """Rounds until the budget, the seconds or the space is exhausted.

        Raises:
            CalculatorError: no candidate could be relaxed, or the calculator breaks its contract.
        """
        start = time.monotonic()
        number = barren = 0
        with Bar(
            total=self.plan.budget, initial=min(self.spent, self.plan.budget), description="relaxing",
            shown=self.progress, smoothing=0.1,
        ) as bar:  # fmt: skip
            while barren < BARREN and self._before(number) < self.plan.budget and not self._late(start):
                if number not in self._rounds:
                    bar.note(f"round {number + 1}: placing")
                    self._rounds.add(self._round(number))
                self._relax(self._rounds.records[number]["chosen"], bar, start)
                self._check_hope()
                barren = 0 if self._rounds.records[number]["chosen"] else barren + 1
                number += 1
        if self.spent < self.plan.budget:
            self.stopped_by = "space exhausted" if barren >= BARREN else "seconds"

    def predict(self, crystals: Crystals, prototypes: Sequence[str | None]) -> dict[str, np.ndarray]:
        """Energies above the hull, eV/atom [B]: ``predicted`` and ``corrected``, and the ``std`` of the latter.

        ``std`` is the proxy's standard error until something was relaxed, then that of the correction.
        """
        mean, std = (part.double().numpy() for part in (self.energy(crystals), self.energy.std(crystals)))
        predicted = mean - self.hull.energy(crystals).numpy()
        shift, error = self.correction.predict(self.represent(crystals, prototypes))
        learned = bool(np.any(error)) and self._successes(None)
        return {"predicted": predicted, "corrected": predicted + shift, "std": error if learned else std}

    def learn(self, before: int | None = None) -> None:
        """Fit the correction to what was relaxed; ``before``: in earlier rounds than this."""
        found = self._successes(before)
        features = self.represent(*crystals_of_choices([one for one, _ in found])) if found else np.zeros((0, 1))
        residuals = [done["formation_energy"] - one["formation_energy"] for one, done in found]
        self.correction.fit(features, np.array(residuals))

    def _round(self, number: int) -> dict[str, Any]:
        """Choose the candidates of a round."""
        self.learn(number)
        taken = [one["labels"] for i, one in self.chosen.items()]
        learned = bool(self._successes(number))
        drawn = self.proposer.draw(number, self._shift if learned else None)
        shortlist = self._shortlist(drawn, taken)
        placed = self._unseen(self.proposer.place(drawn[shortlist], number)) if shortlist else []
        chosen: list[dict[str, Any]] = []
        if placed:
            crystals = Crystals.cat([one.crystal for one in placed])
            values = self.predict(crystals, [one.prototype for one in placed])
            labels = [one.labels for one in placed]
            order = self.acquisition.choose(values["corrected"], values["std"], labels, self.plan.batch, taken)
            energies = self.energy(crystals).double().numpy()
            first = self._before(number)
            chosen = [
                {
                    "index": first + k,
                    "round": number,
                    **placed[i].to_record(),
                    "formation_energy": float(energies[i]),
                    **{name: float(own[i]) for name, own in values.items()},
                }
                for k, i in enumerate(order)
            ]
        return {
            "round": number,
            "drawn": len(drawn),
            "ess": self.proposer.ess,
            "placed": len(placed),
            "correction": {"name": self.correction.name, **_plain(getattr(self.correction, "chosen", None))},
            "chosen": chosen,
        }

    def _shift(self, crystals: Crystals) -> np.ndarray:
        return self.correction.predict(self.represent(crystals, [None] * len(crystals)))[0]

    def _shortlist(self, drawn: Crystals, taken: Sequence[Labels]) -> list[int]:
        """Positions of crystals to place, of each formula and space group the one of the lowest prediction."""
        values = self.predict(drawn, [None] * len(drawn))
        names = [
            f"{formula} {group}" for formula, group in zip(drawn.formulas(), drawn.space_group.tolist(), strict=True)
        ]
        lowest: dict[str, int] = {}
        for i in np.argsort(values["corrected"], kind="stable").tolist():
            lowest.setdefault(names[i], i)
        kept = sorted(lowest.values())
        labels = [{"formula": names[i].split()[0], "crystal": names[i]} for i in kept]
        own = self.acquisition.choose(
            values["corrected"][kept], values["std"][kept], labels, self.plan.shortlist, taken
        )
        return [kept[i] for i in own]

    def _unseen(self, placed: Sequence[PlacedCrystal]) -> list[PlacedCrystal]:
        """Those whose formula and prototype were not chosen before, each once."""
        seen = {(one["labels"]["formula"], one["labels"]["prototype"]) for one in self.chosen.values()}
        found = []
        for one in placed:
            key = (one.labels["formula"], one.labels["prototype"])
            if key not in seen:
                seen.add(key)
                found.append(one)
        return found

    def _relax(self, chosen: Sequence[Mapping[str, Any]], bar: Bar, start: float) -> None:
        """Relax what is not yet relaxed and lies within the budget."""
        jobs = [
            RelaxationJob(
                index=one["index"],
                structure=structure_of_choice(one),
                calculator=self.plan.calculator,
                references=self.plan.energy_references,
                steps=self.plan.steps,
                max_force=self.plan.max_force,
            )
            for one in chosen
            if one["index"] not in self._relaxed and one["index"] < self.plan.budget
        ]
        names = {one["index"]: one["labels"]["formula"] for one in chosen}
        for record in parallel_map(self.job, self._in_time(jobs, start), n_jobs=self.plan.n_jobs, ordered=False):
            self._relaxed.add(record)
            bar.update()
            formula = names[record["index"]]
            bar.note(formula)
            report({"formula": formula, **{key: record.get(key) for key in ("index", "formation_energy", "error")}})

    def _in_time(self, jobs: Sequence[RelaxationJob], start: float) -> Any:
        for job in jobs:
            if self._late(start):
                return
            yield job

    def _late(self, start: float) -> bool:
        return self.plan.seconds is not None and time.monotonic() - start > self.plan.seconds

    def _before(self, number: int) -> int:
        """Candidates that were chosen in earlier rounds."""
        return sum(len(one["chosen"]) for key, one in self._rounds.records.items() if key < number)

    def _successes(self, before: int | None) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Choices with their relaxations that have an energy."""
        done, chosen = self.relaxed, self.chosen
        pairs = [(chosen[i], one) for i, one in done.items() if one["error"] is None]
        return [pair for pair in pairs if before is None or pair[0]["round"] < before]

    def _check_hope(self) -> None:
        if self.spent >= min(HOPELESS, self.plan.budget) and all(one["error"] for one in self.relaxed.values()):
            first = next(iter(self.relaxed.values()))["error"]
            raise CalculatorError(
                f"none of the {self.spent} candidates that were tried could be relaxed; the first: {first}; mend the "
                "calculator, or choose a space whose elements it knows"
            )


def _plain(chosen: Any) -> dict[str, float]:
    return {} if chosen is None else dict(vars(chosen))
