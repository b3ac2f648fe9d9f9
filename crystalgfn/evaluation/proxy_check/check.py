"""Validation of a proxy on a sampler's crystals: its predicted formation energies beside those of a calculator.

A sampler exploits errors of its reward, so an error on real crystals does not say how far the sampler's own may be
trusted. The references are E*, the lowest energy at the sampled space group, composition and lattice, and the energy
once the cell is relaxed as well. A calculator is a second opinion, not DFT, and the shipped ones are not independent of
the Materials Project.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from crystalgfn.calculators.base import Calculator
from crystalgfn.calculators.energy_references import References, references_of
from crystalgfn.calculators.registry import DEFAULT, load_calculator
from crystalgfn.calculators.relaxation import Relaxed, relax
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.standardize import Cell
from crystalgfn.crystallography.supergroups import primitive_basis
from crystalgfn.errors import CheckpointError, RewardError
from crystalgfn.evaluation.proxy_check.report import gap
from crystalgfn.properties.base import Property
from crystalgfn.properties.convex_hull import ExactHull
from crystalgfn.properties.energy_scale import Rescaled
from crystalgfn.rewards.base import properties
from crystalgfn.sampling.sampler import Sampler
from crystalgfn.space.space import CrystalSpace
from crystalgfn.structures.ground_state import MAX_FORCE, UNKNOWN, GroundState, apart, lowest_structures, searched
from crystalgfn.utils.files import write_aside
from crystalgfn.utils.parallel import parallel_map
from crystalgfn.utils.progress import Bar
from crystalgfn.utils.random import derived_seed
from crystalgfn.utils.run_folder import RunFolder

NAME = "formation_energy"


@dataclass(frozen=True, kw_only=True)
class ProxyCheckPlan:
    """How crystals are drawn and checked.

    Attributes:
        n: crystals.
        seed: of the draws and the placements.
        n_sigma: standard errors that the confidence bound lies above the prediction.
        n_candidates: placements of each, at most.
        steps: of relaxing the atoms in the drawn cell, at most.
        full_steps: of relaxing atoms and cell from there, at most.
        chunk: crystals that are checked together.
        calculator: gives the energies, see `crystalgfn.calculators.registry.load_calculator`.
        energy_references: file of its energy references; None: those that come with the package.
    """

    n: int = 200
    seed: int = 0
    n_sigma: float = 1.0
    n_candidates: int = 8
    steps: int = 40
    full_steps: int = 100
    chunk: int = 8
    calculator: Calculator | str = DEFAULT
    energy_references: str | None = None

    def __post_init__(self) -> None:
        for name in ("n", "n_candidates", "steps", "full_steps", "chunk"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: give a whole number of at least 1")
        if self.n_sigma < 0:
            raise ValueError(f"n_sigma={self.n_sigma}: give a number of at least 0")

    @property
    def chunks(self) -> range:
        """Numbers of the chunks."""
        return range(-(-self.n // self.chunk))

    def part(self, i: int) -> slice:
        """Where the crystals of chunk ``i`` are."""
        return slice(i * self.chunk, min(self.n, (i + 1) * self.chunk))


@dataclass(frozen=True, kw_only=True)
class ReferenceResult:
    """What a calculator finds for one crystal; energies are formation energies on MP-20's scale in eV/atom.

    Attributes:
        e_star: lowest at the sampled space group, composition and lattice; NaN where there is none.
        atoms_converged: whether the relaxation of its atoms did.
        is_converged: whether the search is: it is E* rather than an upper bound, its atoms converged, and there was a
            template or few atoms.
        candidates: structures that it is the lowest of.
        templates: how many of these had the positions of real crystals.
        e_relaxed: after relaxing the cell as well, NaN where that failed.
        cell_converged: whether the relaxation of atoms and cell did.
        volume_ratio: of the relaxed cell to the drawn one.
        length_ratio: relaxed over drawn, of that conventional length that changes most.
        failure: why there is no ``e_star``, in a word or two (`SearchFailure`); None where there is one.
        error: what failed, in a sentence; None where nothing did.
        calculator: name of what gave the energies.
    """

    e_star: float = np.nan
    atoms_converged: bool = False
    is_converged: bool = False
    candidates: int = 0
    templates: int = 0
    e_relaxed: float = np.nan
    cell_converged: bool = False
    volume_ratio: float = np.nan
    length_ratio: float = np.nan
    failure: str | None = None
    error: str | None = None
    calculator: str | None = None


def formation_energy(reward: Any) -> Property:
    """The formation energy that a reward is made of, also inside an energy above the hull, on MP2020's scale.

    Raises:
        RewardError: there is none.
    """
    found = [] if reward is None else properties(reward)
    inside = [getattr(prop, "energy", None) for prop in found]
    for one in (*found, *inside):
        if one is not None and getattr(one, "name", None) == NAME:
            return one.energy if isinstance(one, Rescaled) else one
    what = "has no reward" if reward is None else "has a reward without a property"
    if found:
        what = f"has a reward of {', '.join(prop.name for prop in found)}"
    raise RewardError(
        f"the sampler {what}, and formation energies are checked; choose one whose reward holds the property {NAME}"
    )


def reference_energies(
    crystals: Crystals,
    plan: ProxyCheckPlan,
    number: int = 0,
    given: Sequence[Sequence[Cell]] | None = None,
) -> list[ReferenceResult]:
    """What a calculator finds for crystals [B] that are checked together.

    The plan's seed and ``number``, that of this chunk, make the seed of the placements. ``given``: for each crystal
    structures to try besides those placed, in cells that are the crystal's.

    Raises:
        NotAvailable: the calculator's package is not installed.
    """
    calculator = load_calculator(plan.calculator)
    references = references_of(calculator, plan.energy_references)
    seed = derived_seed(plan.seed, number)
    crystals = Crystals(crystals.space_group, crystals.composition, crystals.lattice.double()).to("cpu")
    found = lowest_structures(crystals, given, plan.n_candidates, plan.steps, seed, calculator=calculator)
    there = {i: one for i, one in enumerate(found) if isinstance(one, GroundState)}
    starts = [one.structure for one in there.values()]
    free = relax(starts, calculator, plan.full_steps, fixed_cell=False, max_force=MAX_FORCE)
    relaxed = dict(zip(there, free, strict=True))
    checked = [
        _checked(crystals[i], one, relaxed[i], references)
        if isinstance(one, GroundState)
        else ReferenceResult(failure=one.failure, error=one.error)
        for i, one in enumerate(found)
    ]
    return [replace(one, calculator=calculator.name) for one in checked]


def _checked(crystal: Crystals, lowest: GroundState, free: Relaxed, references: References) -> ReferenceResult:
    def formation(energy: float) -> float:
        return float(references.formation_energy(crystal.composition.numpy(), np.array([energy]))[0])

    value = formation(lowest.energy)
    if not np.isfinite(value):
        return ReferenceResult(failure=UNKNOWN, error=f"an element of {crystal.formulas()[0]} has no reference energy")
    converged, given = torch.tensor([lowest.converged]), torch.tensor([lowest.given > 0])
    found = ReferenceResult(
        e_star=value,
        atoms_converged=lowest.converged,
        is_converged=bool(searched(converged, given, crystal.n_atoms)),
        candidates=lowest.candidates,
        templates=lowest.given,
    )
    if not apart(free) or free.structure is None:
        return replace(found, error=free.error or "atoms ran into each other while the cell relaxed")
    after = np.linalg.inv(primitive_basis(int(crystal.space_group[0]))) @ free.structure.lattice.matrix
    ratios = np.linalg.norm(after, axis=1) / crystal.lattice[0, :3].numpy()
    most = float(ratios[np.abs(np.log(ratios)).argmax()])
    return replace(
        found,
        e_relaxed=formation(free.energy),
        cell_converged=free.converged,
        volume_ratio=free.volume_ratio,
        length_ratio=most,
        error=free.error,
    )


DRAWN, PARTS = "drawn.pt", "parts"

ReferenceMaker = Callable[..., list[ReferenceResult]]

TemplateLookup = Callable[[Crystals], list[Cell]]


class ProxyCheck:
    """Predictions for a sampler's crystals in a folder, and reference energies as far as they are computed.

    A folder that holds the same run goes on; ``run`` is what else tells this run from another, such as the sampler's
    name. ``crystals`` are what was drawn [n], ``predicted`` formation energies by the proxy, ``std`` their standard
    errors, eV/atom [n].

    Raises:
        RewardError: the reward holds no formation energy.
        CheckpointError: the folder holds another run, or cannot be written.
    """

    def __init__(
        self,
        out: str | Path | RunFolder,
        sampler: Sampler,
        plan: ProxyCheckPlan,
        space: CrystalSpace | None = None,
        beta: float | None = None,
        run: dict[str, Any] | None = None,
    ) -> None:
        self.folder = out if isinstance(out, RunFolder) else RunFolder(out, "a check")
        self.out, self.plan = self.folder.path, plan
        prop = formation_energy(sampler.reward)
        calculator = plan.calculator if isinstance(plan.calculator, str) else plan.calculator.name
        settings = {**asdict(replace(plan, calculator=calculator)), "beta": beta, **(run or {})}
        self.folder.agree(settings)
        path = self.out / DRAWN
        if path.exists():
            kept = _load(path)
        else:
            crystals = sampler.sample(plan.n, space=space, beta=beta, seed=plan.seed)
            with torch.no_grad():
                values = {"predicted": prop(crystals).cpu(), "std": prop.std(crystals).cpu()}
            kept = {"crystals": crystals.to("cpu").state_dict(), **values}
            write_aside(path, lambda aside: torch.save(kept, aside))
        self.crystals = Crystals.from_state_dict(kept["crystals"])
        self.predicted, self.std = kept["predicted"], kept["std"]

    @property
    def todo(self) -> list[int]:
        """Numbers of the chunks that are not yet checked."""
        return [i for i in self.plan.chunks if not self._path(i).exists()]

    @property
    def done(self) -> int:
        """Crystals that are checked."""
        return len(self.crystals) - sum(len(self._part(i)) for i in self.todo)

    def work(
        self,
        templates: TemplateLookup | None = None,
        n_jobs: int = 1,
        progress: bool = True,
        check: ReferenceMaker = reference_energies,
    ) -> None:
        """Check what is not yet checked; a kill loses the chunks in work.

        ``templates``: from a batch of one crystal to structures to try besides random placements.

        Raises:
            NotAvailable: the calculator's package is not installed.
        """
        if check is reference_energies and self.todo:
            # better found out before the first placements than after them
            references_of(load_calculator(self.plan.calculator), self.plan.energy_references)
        bar = Bar(total=len(self.crystals), description="checking", unit=" crystals", shown=progress, smoothing=0.1)
        bar.update(self.done)
        for i, found in parallel_map(_call, self._calls(templates, check), n_jobs=n_jobs, ordered=False):
            frame = pd.DataFrame([asdict(one) for one in found], columns=list(ReferenceResult.__dataclass_fields__))
            frame = frame.astype({"failure": "str", "error": "str", "calculator": "str"})
            write_aside(self._path(i), lambda aside, frame=frame: frame.to_parquet(aside, index=False))
            bar.update(len(frame))
            one = gap(self.table().predicted, self.table().e_star) if progress else None
            if one:
                bar.note(f"median |predicted - E*| {one['median_abs']:.3f}, bias {one['bias']:+.3f} eV/atom")
        bar.close()

    def _calls(self, templates: TemplateLookup | None, check: ReferenceMaker) -> Iterator[tuple[Any, ...]]:
        for i in self.todo:
            crystals = self._part(i)
            given = None if templates is None else [templates(crystals[j]) for j in range(len(crystals))]
            yield i, crystals, self.plan, given, check

    def table(self, hull: ExactHull | None = None) -> pd.DataFrame:
        """One row a crystal with a result: parameters, ``predicted``, ``std``, ``confidence_bound``, `ReferenceResult`.

        The energy of a ``hull`` at each composition becomes a column, eV/atom.

        Raises:
            CheckpointError: a part is damaged.
        """
        todo = set(self.todo)
        done = [i for i in self.plan.chunks if i not in todo]
        frame = self.crystals.to_pandas()
        frame["predicted"], frame["std"] = self.predicted.numpy(), self.std.numpy()
        frame["confidence_bound"] = frame.predicted + self.plan.n_sigma * frame["std"]
        if hull is not None:
            frame["hull"] = hull.energy(self.crystals).cpu().numpy()
        if not done:
            return frame.iloc[:0].assign(**{name: () for name in ReferenceResult.__dataclass_fields__})
        parts = [self._read(i).set_index(frame.index[self.plan.part(i)]) for i in done]
        return frame.join(pd.concat(parts), how="inner")

    def _part(self, i: int) -> Crystals:
        return self.crystals[self.plan.part(i)]

    def _path(self, i: int) -> Path:
        return self.out / PARTS / f"part-{i:05d}.parquet"

    def _read(self, i: int) -> pd.DataFrame:
        path = self._path(i)
        try:
            part = pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path} is damaged ({error}); delete it to check its crystals again") from error
        if len(part) != len(self._part(i)):
            raise CheckpointError(f"{path} has {len(part)} rows where {len(self._part(i))} belong; delete it")
        return part


def _call(call: tuple[Any, ...]) -> tuple[int, list[ReferenceResult]]:
    i, crystals, plan, given, check = call
    return i, check(crystals, plan, i, given)


def _load(path: Path) -> dict[str, Any]:
    try:
        kept = torch.load(path, weights_only=True)
        return {name: kept[name] for name in ("crystals", "predicted", "std")}
    except Exception as error:
        raise CheckpointError(f"{path} is damaged ({error}); delete {path.parent} to check anew") from error
