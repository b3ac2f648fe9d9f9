"""How structures are built: the settings of the one pipeline from requests to structures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from crystalgfn.calculators.base import Calculator
from crystalgfn.calculators.registry import DEFAULT, load_calculator
from crystalgfn.data.structure_index import Prototypes
from crystalgfn.errors import CheckpointError, DataError, PlacementError, check_kind, check_seed
from crystalgfn.structures.refiner.base import LATTICES, STEPS, Refiner, check_option
from crystalgfn.structures.refiner.refiner import DiffusionRefiner
from crystalgfn.structures.sources.base import CandidateSource
from crystalgfn.structures.sources.random import RandomPlacementConfig
from crystalgfn.structures.sources.templates import Templates
from crystalgfn.utils import files
from crystalgfn.utils.instantiate import plugin

AFLOW = files.SHIPPED / "prototypes" / "aflow.npz"
"""An index of the 288 prototypes of AFLOW that pymatgen carries."""
REFINERS, SOURCES = "crystalgfn.refiners", "crystalgfn.candidate_sources"
"""Groups of entry points: packages offer refiners and sources of candidates by name."""
ASSIGNMENTS = ("random", "learned")
PART = {"cpu": 32, "cuda": 10_000}
FEWEST_RELAXED = 4
"""Candidates of a crystal that are relaxed, where so many were found."""
Reference = CandidateSource | Prototypes | str | Path | Sequence[str | Path] | None
"""What ``templates`` may be: a source of candidates, or real crystals."""


@dataclass(frozen=True, kw_only=True)
class PoolConfig:
    """How the refiner's draws for a crystal are shared out, and how many there are.

    Attributes:
        letters: choices of Wyckoff letters that draws are spread over, at most.
        looked_at: choices of letters that these are chosen from.
        pairs: pairs of an orbit and an atom in all draws of one crystal, at most; 80 atoms in general positions have
            6,400.
        templates: structures of the other source that are looked at, at most.
        from_templates: share of the draws whose letters are those of templates, where there are any.
        in_their_cells: share of the draws with the letters of a template that start in its cell, where the crystal's
            own is not known.
        max_strain: largest principal logarithmic strain of these.
        template_noise: under so much noise the refiner makes a template's coordinates those of the crystal's own
            elements.
        more_draws: than twice the structures that are wanted.
        own_cells: times as many where the refiner makes the cells too.
        again: times as many where none of the first passed.
    """

    letters: int = 12
    looked_at: int = 256
    pairs: int = 60_000
    templates: int = 12
    from_templates: float = 0.5
    in_their_cells: float = 0.5
    max_strain: float = 0.15
    template_noise: float = 0.3
    more_draws: int = 6
    own_cells: int = 6
    again: int = 4


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """How structures are built, for every request of a call.

    Attributes:
        n_candidates: different structures of each request, at most, best first.
        refiner: a shipped one by its name, the folder of one of your own, a `Refiner`, or None: random Wyckoff
            placement with soft-sphere relaxation.
        lattice: "keep", "refine" (may be strained by up to 5 %) or "generate" (the one of a request is not used).
        seed: with the ``stream`` of a request it seeds all random numbers.
        templates: tried too: real crystals (`Prototypes.read`, files, "aflow" for the prototypes that come with the
            package), a `CandidateSource`, or None.
        assignment: how Wyckoff letters are chosen: "random", or "learned" for those that real crystals make probable;
            None: learned with a refiner, random without.
        draws: of the refiner for each request; None: 6 more than twice the candidates, six times as many with
            ``lattice="generate"``.
        steps: of the refiner's sampler.
        energies: candidates that are lower in energy are taken for more probable.
        relax: candidates are relaxed within their symmetry and ordered by energy.
        calculator: of ``energies`` and ``relax``, see `load_calculator`; loaded only where one of them is asked for.
        retry: requests without a structure get more draws of the refiner, and where the lattice is kept random
            placement then.
        n_jobs: processes.
        progress: shows bars.
        part: requests that structures are made of at once, at most; None: 32, on a GPU 10,000. It does not depend on
            ``n_jobs``, since what is together in a batch decides the last digits.
        pool: how the refiner's draws are shared out.
        placement: how much random placement tries.

    Raises:
        CalculatorError: there is no such calculator.
        CheckpointError: there is no such refiner.
        DataError: ``templates`` cannot be read.
        NotAvailable: the calculator's package is not installed.
        PlacementError: a value that is invalid.
    """

    n_candidates: int = 1
    refiner: Refiner | str | Path | None = "default"
    lattice: str = "keep"
    seed: int = 0
    templates: Reference = None
    assignment: str | None = None
    draws: int | None = None
    steps: int = STEPS
    energies: bool = False
    relax: bool = False
    calculator: Calculator | str = DEFAULT
    retry: bool = True
    n_jobs: int = 1
    progress: bool = False
    part: int | None = None
    pool: PoolConfig = field(default_factory=PoolConfig)
    placement: RandomPlacementConfig = field(default_factory=RandomPlacementConfig)

    def __post_init__(self) -> None:
        if self.refiner is not None:
            object.__setattr__(self, "refiner", self.model)
        object.__setattr__(self, "templates", self.source)
        self._check_kinds()
        check_option("lattice", self.lattice, LATTICES)
        if self.assignment is not None:
            check_option("assignment", self.assignment, ASSIGNMENTS)
        counts = {"n_candidates": self.n_candidates, "steps": self.steps}
        counts |= {name: n for name, n in (("part", self.part), ("draws", self.draws)) if n is not None}
        for name, n in counts.items():
            if not isinstance(n, int) or n < 1:
                raise PlacementError(f"{name}={n}: give a whole number of at least 1")
        if not isinstance(self.n_jobs, int) or self.n_jobs == 0:
            raise PlacementError(f"n_jobs={self.n_jobs}: give a number of processes, or -1 for one a core")
        if self.refiner is None:
            self._check_without_refiner()
        if self.potential is not None:  # refuses before the work
            object.__setattr__(self, "calculator", self.potential)

    def _check_kinds(self) -> None:
        check_seed(self.seed, PlacementError)
        for name in ("energies", "relax", "retry", "progress"):
            check_kind(name, getattr(self, name), bool, "True or False", PlacementError)

    def _check_without_refiner(self) -> None:
        if self.lattice != "keep":
            raise PlacementError(f"lattice={self.lattice!r} needs a refiner; without one use lattice='keep'")
        if self.energies:
            raise PlacementError("energies=True needs a refiner's candidates; give a refiner, or relax=True")

    @property
    def model(self) -> Refiner:
        """The refiner; PlacementError where there is none."""
        return refiner_of(self.refiner)

    @property
    def source(self) -> CandidateSource | None:
        """The source that ``templates`` names."""
        return templates_of(self.templates)

    @property
    def potential(self) -> Calculator | None:
        """What gives energies, where they are asked for."""
        return load_calculator(self.calculator) if self.energies or self.relax else None

    @property
    def wanted(self) -> int:
        """Candidates of each request before the last ordering."""
        return max(self.n_candidates, FEWEST_RELAXED) if self.relax else self.n_candidates

    @property
    def learned(self) -> bool:
        """Whether letters are those that real crystals make probable."""
        return (self.refiner is not None) if self.assignment is None else self.assignment == "learned"

    @property
    def together(self) -> int:
        """Requests that structures are made of at once, at most."""
        return self.part or PART["cuda" if self.device == "cuda" else "cpu"]

    @property
    def device(self) -> str:
        """The type of the device that the refiner works on."""
        return getattr(getattr(self.refiner, "device", None), "type", "cpu")

    @property
    def n_draws(self) -> int:
        """Draws of the refiner for each request."""
        enough = 2 * self.wanted + self.pool.more_draws
        return self.draws or enough * (self.pool.own_cells if self.lattice == "generate" else 1)


def refiner_of(refiner: Refiner | str | Path | None) -> Refiner:
    """The refiner that an argument names.

    Raises:
        CheckpointError: there is no such one.
        PlacementError: the argument is none.
    """
    if isinstance(refiner, Refiner):
        return refiner
    if not isinstance(refiner, str | Path):
        raise PlacementError(
            f"refiner={refiner!r} is no refiner: it has no method refine (docs/how-to/add-a-refiner.md)"
        )
    return _read_refiner(str(refiner))


@lru_cache(maxsize=4)
def _read_refiner(name: str) -> Refiner:
    try:
        return DiffusionRefiner.load(name)
    except CheckpointError:
        found = plugin(REFINERS, name, "refine", CheckpointError)
        if found is None:
            raise
        return refiner_of(found)


def templates_of(reference: Reference) -> CandidateSource | None:
    """The source that the argument ``templates`` names.

    Raises:
        DataError: it cannot be read.
    """
    if reference is None or isinstance(reference, CandidateSource):
        return reference
    if isinstance(reference, Prototypes):
        return Templates(reference)
    if isinstance(reference, str) and reference != "aflow" and not Path(reference).exists():
        found = plugin(SOURCES, reference, "propose", DataError)
        if found is not None:
            return templates_of(found)
    check_kind("templates", reference, (str, Path, list, tuple), "files, or a source of candidates", PlacementError)
    sources = [reference] if isinstance(reference, str | Path) else reference
    return _read_templates(*(str(AFLOW if one == "aflow" else one) for one in sources))


@lru_cache(maxsize=4)
def _read_templates(*paths: str) -> Templates:
    return Templates(Prototypes.read(paths[0] if len(paths) == 1 else paths))
