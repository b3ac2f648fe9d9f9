"""Methods of discovery that are compared: ours, ours without what it learns, substitution, and random crystals."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalgfn.benchmarks.discovery.systems import HeldBackSystem
from crystalgfn.calculators.base import Calculator
from crystalgfn.crystallography import elements
from crystalgfn.discovery.acquisition import Labels
from crystalgfn.discovery.discover import discover
from crystalgfn.discovery.found import Found
from crystalgfn.discovery.phases import KnownPhase
from crystalgfn.discovery.proposer import ProposerConfig
from crystalgfn.errors import EmptySpace
from crystalgfn.evaluation.relaxation_job import RelaxationJob, evaluations_of, relax_job, relaxed_structure
from crystalgfn.sampling.sampler import Sampler
from crystalgfn.sampling.sampler_files import ALLOYS
from crystalgfn.utils.run_folder import Journal

if TYPE_CHECKING:
    from pymatgen.core import Structure

MOST_ATOMS = 20
"""In the primitive cell of a structure that elements are substituted into."""
LOOKED_AT = 3000
"""Such structures, at most, drawn at random."""


@dataclass(frozen=True, kw_only=True)
class Relaxations:
    """What a method made of its budget.

    Attributes:
        structures: relaxed.
        energies: their formation energies, eV/atom.
        spent: relaxations.
        evaluations: of the calculator in all, those of screening included.
        rank_correlation: of predicted and relaxed energies in the last round; None of methods that predict nothing.
    """

    structures: list[Structure]
    energies: list[float]
    spent: int
    evaluations: int
    rank_correlation: float | None = None


@dataclass(frozen=True, kw_only=True)
class DiscoverySettings:
    """What all methods share.

    Attributes:
        budget: relaxations a system.
        calculator: relaxes.
        energy_references: file of its energy references; None: those that come with the package.
        sampler: of the methods that sample.
        templates: known structures, for substitution and as templates of placement.
        seed: of everything.
        more: further arguments of `crystalgfn.discovery.discover.discover`.
    """

    budget: int
    calculator: Calculator
    sampler: Sampler
    energy_references: str | None = None
    templates: Sequence[KnownPhase] = ()
    seed: int = 0
    more: Mapping[str, Any] = field(default_factory=dict)


class InOrder:
    """An acquisition that takes candidates as they come."""

    def choose(
        self, mean: np.ndarray, std: np.ndarray, labels: Sequence[Labels], n: int, taken: Sequence[Labels] = ()
    ) -> list[int]:
        """The first ``n``."""
        return list(range(min(n, len(labels))))


def sampler_for(system: HeldBackSystem, settings: DiscoverySettings) -> Sampler:
    """The sampler of the settings, or "stable-any" where its space has no crystal of the system (metals alone)."""
    try:
        settings.sampler.narrow({"chemsys": system.name})
    except EmptySpace:
        return Sampler.load(ALLOYS)
    return settings.sampler


def by_discovery(system: HeldBackSystem, settings: DiscoverySettings, out: Path, **more: Any) -> Relaxations:
    """`discover` in a folder, with further arguments."""
    # the shipped hull was fitted on the phases that are to be found
    options = {"sampler": sampler_for(system, settings), "check_hull": False, **settings.more, **more}
    found: Found = discover(
        {"chemsys": system.name},
        settings.budget,
        settings.calculator,
        system.known,
        out,
        energy_references=settings.energy_references,
        seed=settings.seed,
        progress=False,
        **options,
    )
    energies = found.ranked["formation_energy"].tolist()
    last = found.summary["rank_correlation"]["corrected_last_round"]
    return Relaxations(
        structures=found.structures,
        energies=energies,
        spent=len(found.table),
        evaluations=found.summary["evaluations"],
        rank_correlation=last,
    )


def at_random(system: HeldBackSystem, settings: DiscoverySettings, out: Path) -> Relaxations:
    """Crystals of an untrained sampler of the same space, placed at random, in the order in which they come."""
    trained = sampler_for(system, settings)
    sampler = Sampler.untrained(trained.space, settings.seed, trained.omega)
    proposer = ProposerConfig(substituted=0, build={"refiner": None})
    return by_discovery(
        system, settings, out, sampler=sampler, correction="none", acquisition=InOrder(), proposer=proposer,
        screening=None, plausibility=0.0,
    )  # fmt: skip


def by_substitution(system: HeldBackSystem, settings: DiscoverySettings, out: Path) -> Relaxations:
    """Known structures with the system's elements in them, the likeliest by pymatgen's substitution probabilities."""
    journal = Journal(out / "relaxations.jsonl", "index")
    for i, structure in enumerate(substituted(system, settings)):
        if i not in journal:
            job = RelaxationJob(
                index=i,
                structure=structure,
                calculator=settings.calculator,
                references=settings.energy_references,
            )
            journal.add(relax_job(job))
    good = [one for _, one in sorted(journal.records.items()) if one["error"] is None]
    return Relaxations(
        structures=[relaxed_structure(one) for one in good],
        energies=[one["formation_energy"] for one in good],
        spent=len(journal),
        evaluations=evaluations_of(journal.records.values()),
    )


METHODS: dict[str, Callable[[HeldBackSystem, DiscoverySettings, Path], Relaxations]] = {
    "discover": by_discovery,
    "uncorrected": lambda system, settings, out: by_discovery(system, settings, out, correction="none"),
    "substitution": by_substitution,
    "random": at_random,
}
"""By the names of the option ``methods``."""


def substituted(system: HeldBackSystem, settings: DiscoverySettings) -> list[Structure]:
    """At most ``budget`` structures of the system, the likeliest substitutions first, each formula and template once.

    Of a structure with as many elements every assignment of the system's elements is looked at in which both have a
    neutral assignment of oxidation states (pymatgen's likeliest); its score is the conditional probability of Hautier
    et al. 2011, of the system's ions given the template's. The cell is scaled by the atomic volumes.
    """
    from pymatgen.analysis.structure_prediction.substitution_probability import SubstitutionProbability

    model = SubstitutionProbability()
    symbols = [elements.SYMBOLS[z - 1] for z in system.numbers]
    scored = []
    for k, phase in enumerate(_templates(system, settings)):
        formula, counts = phase.formula, {elements.SYMBOLS[z - 1]: round(n) for z, n in phase.amounts}
        before = ions(formula)
        for order in itertools.permutations(symbols) if before else ():
            exchange = dict(zip(counts, order, strict=True))
            after = ions("".join(f"{exchange[one]}{n}" for one, n in counts.items()))
            if after:
                old, new = [before[one] for one in counts], [after[exchange[one]] for one in counts]
                scored.append((-_probability(model, new, old), k, phase, exchange))
    scored.sort(key=lambda one: one[:2])
    return [_exchanged(phase, exchange) for _, _, phase, exchange in scored[: settings.budget]]


def _probability(model: Any, new: Sequence[Any], old: Sequence[Any]) -> float:
    """Conditional probability of the ions; 0 where pymatgen's table does not have one of them."""
    try:
        return float(model.cond_prob_list(new, old))
    except ZeroDivisionError:
        return 0.0


def _templates(system: HeldBackSystem, settings: DiscoverySettings) -> list[KnownPhase]:
    own = [
        one
        for one in settings.templates
        if one.entry is not None
        and one.entry.ordered
        and len(one.amounts) == len(system.numbers)
        and sum(n for _, n in one.amounts) <= MOST_ATOMS
    ]
    order = np.random.default_rng(settings.seed).permutation(len(own))[:LOOKED_AT]
    return [own[i] for i in order]


@cache
def ions(formula: str) -> dict[str, Any]:
    """Element -> ion of the likeliest neutral assignment; empty where there is none with whole charges but 0."""
    from pymatgen.core import Composition, Species

    guesses = Composition(formula).oxi_state_guesses(max_sites=-1)
    if not guesses or any(state == 0 or state != int(state) for state in guesses[0].values()):
        return {}
    return {symbol: Species(symbol, int(state)) for symbol, state in guesses[0].items()}


def _exchanged(phase: KnownPhase, exchange: Mapping[str, str]) -> Structure:
    """A structure with its elements exchanged, its cell scaled by the atomic volumes."""
    if phase.entry is None:
        raise ValueError(f"{phase.identifier} has no structure")
    structure = phase.entry.structure().get_primitive_structure()
    before = _usual_volume(structure)
    structure.replace_species({one: other for one, other in exchange.items()})
    structure.scale_lattice(structure.volume * _usual_volume(structure) / before)
    return structure


def _usual_volume(structure: Structure) -> float:
    """What its atoms take up in known crystals, Å3."""
    return float(sum(elements.VOLUME[site.specie.Z - 1] for site in structure))
