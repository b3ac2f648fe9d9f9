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
from crystalgfn.discovery.prediction import Hull, Predictor, implausibility
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
from crystalgfn.utils.parallel import parallel_map
from crystalgfn.utils.progress import Bar, report
from crystalgfn.utils.run_folder import Journal, RunFolder

WORK = "work"
HOPELESS = 10
"""Relaxations of which none succeeded after which a campaign stops."""
BARREN = 3
"""Rounds in a row without anything new to relax after which a campaign ends: the space is exhausted."""

UNKNOWN = 10.0
"""eV/atom, added to the score of what was screened and has no energy."""


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
        plausibility: eV/atom by which candidates come later for each factor of e in their plausibility below 1.
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
    plausibility: float = 0.05

    def __post_init__(self) -> None:
        for name in ("budget", "batch", "shortlist", "steps"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}={value}: give a whole number of at least 1")
        if not 0 <= self.plausibility < float("inf"):
            raise ValueError(f"plausibility={self.plausibility}: give eV/atom, at least 0")
        if self.seconds is not None and not self.seconds > 0:
            raise ValueError(f"seconds={self.seconds}: give a number above 0, or None for no limit but the budget")


Screens = Callable[[Sequence[PlacedCrystal]], tuple[Sequence[PlacedCrystal], np.ndarray]]
"""Placed crystals -> the same after a first look, and their formation energies, eV/atom [B]."""


class Campaign:
    """The rounds of a discovery.

    In each round crystals are drawn, a shortlist of them is placed and screened, and a batch of all that were placed so
    far is relaxed, both chosen by the acquisition on the predicted energies above the hull, corrected by what was
    screened and relaxed before (`crystalgfn.discovery.prediction.Predictor`). A round is written down
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
        screen: says what placed crystals are worth before they are relaxed, see `crystalgfn.discovery.screening`; None:
            the proxy does.

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
        screen: Screens | None = None,
    ) -> None:
        self.folder, self.proposer, self.energy, self.hull = folder, proposer, energy, hull
        self.predictor = Predictor(energy, hull, correction, represent)
        self.acquisition, self.plan, self.screen = acquisition, plan, screen
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

    @property
    def candidates(self) -> list[dict[str, Any]]:
        """Records of all crystals that were placed, in the order of rounds."""
        return [one for own in self.rounds for one in own["candidates"]]

    def learn(self, before: int | None = None) -> None:
        """Fit the predictions to what was screened and relaxed; ``before``: in earlier rounds than this."""
        rounds = [one for one in self.rounds if before is None or one["round"] < before]
        keys = {one["index"]: one["key"] for own in rounds for one in own["chosen"]}
        relaxed = {
            keys[i]: one["formation_energy"] for i, one in self.relaxed.items() if i in keys and one["error"] is None
        }
        self.predictor.learn([one for own in rounds for one in own["candidates"]], relaxed)

    def _round(self, number: int) -> dict[str, Any]:
        """Choose the candidates of a round: of those that it adds, and of those that earlier ones have left."""
        self.learn(number)
        taken = [one["labels"] for one in self.chosen.values()]
        drawn = self.proposer.draw(number, self.predictor.shift if self.predictor.learned else None)
        shortlist = self._shortlist(drawn, taken)
        added = self._added(self.proposer.place(drawn[shortlist], number), number) if shortlist else []
        used = {one["key"] for one in self.chosen.values()}
        pool = [one for one in [*self.candidates, *added] if one["key"] not in used]
        return {
            "round": number,
            "drawn": len(drawn),
            "ess": self.proposer.ess,
            "placed": len(added),
            "evaluations": len(added) * getattr(self.screen, "evaluations", 0),
            "without_energy": sum(one["screened"] is None for one in added) if self.screen is not None else 0,
            "correction": {"name": self.predictor.of_proxy.name, **_plain(getattr(self._last, "chosen", None))},
            "candidates": added,
            "chosen": self._choose(pool, taken, number) if pool else [],
        }

    @property
    def _last(self) -> Correction:
        """The correction that candidates are chosen by."""
        return self.predictor.of_proxy if self.screen is None else self.predictor.of_screen

    def _choose(self, pool: Sequence[dict[str, Any]], taken: Sequence[Labels], number: int) -> list[dict[str, Any]]:
        """The batch of a round."""
        values = self.predictor.predict_screened(pool)
        # what the calculator has no energy for comes last
        score = values["corrected"] + np.array([UNKNOWN if one["screened"] is None else 0.0 for one in pool])
        score = score + implausibility(crystals_of_choices(pool)[0], self.plan.plausibility)
        order = self.acquisition.choose(score, values["std"], [one["labels"] for one in pool], self.plan.batch, taken)
        first = self._before(number)
        return [
            {
                **pool[i],
                "index": first + k,
                "round": number,
                **{name: float(own[i]) for name, own in values.items()},
            }
            for k, i in enumerate(order)
        ]

    def _shortlist(self, drawn: Crystals, taken: Sequence[Labels]) -> list[int]:
        """Positions of crystals to place: of each formula and space group the one of the lowest energy.

        Those that were placed before come after all others: their atoms may find other places.
        """
        values = self.predictor.predict(drawn)
        score = values["corrected"] + implausibility(drawn, self.plan.plausibility)
        names = [
            f"{formula} {group}" for formula, group in zip(drawn.formulas(), drawn.space_group.tolist(), strict=True)
        ]
        placed = {one["labels"]["crystal"] for one in self.candidates}
        lowest: dict[str, int] = {}
        for i in np.argsort(score, kind="stable").tolist():
            lowest.setdefault(names[i], i)
        chosen: list[int] = []
        for again in (False, True):
            kept = sorted(i for name, i in lowest.items() if (name in placed) == again)
            labels = [{"formula": names[i].split()[0], "crystal": names[i]} for i in kept]
            own = self.acquisition.choose(
                score[kept], values["std"][kept], labels, self.plan.shortlist - len(chosen), taken
            )
            chosen += [kept[i] for i in own]
        return chosen

    def _added(self, placed: Sequence[PlacedCrystal], number: int) -> list[dict[str, Any]]:
        """Records of placed crystals whose formula and prototype are new, screened where there is something to."""
        seen = {(one["labels"]["formula"], one["labels"]["prototype"]) for one in self.candidates}
        found = []
        for one in placed:
            key = (one.labels["formula"], one.labels["prototype"])
            if key not in seen:
                seen.add(key)
                found.append(one)
        if not found:
            return []
        energies = self.energy(Crystals.cat([one.crystal for one in found])).double().tolist()
        screened = np.full(len(found), np.nan)
        if self.screen is not None:
            found, screened = self.screen(found)
        return [
            {
                **one.to_record(),
                "key": f"{number}-{k}",
                "formation_energy": energy,
                "screened": float(value) if np.isfinite(value) else None,
            }
            for k, (one, energy, value) in enumerate(zip(found, energies, screened, strict=True))
        ]

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

    def _check_hope(self) -> None:
        if self.spent >= min(HOPELESS, self.plan.budget) and all(one["error"] for one in self.relaxed.values()):
            first = next(iter(self.relaxed.values()))["error"]
            raise CalculatorError(
                f"none of the {self.spent} candidates that were tried could be relaxed; the first: {first}; mend the "
                "calculator, or choose a space whose elements it knows"
            )


def _plain(chosen: Any) -> dict[str, float]:
    return {} if chosen is None else dict(vars(chosen))
