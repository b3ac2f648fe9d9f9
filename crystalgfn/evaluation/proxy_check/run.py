"""Validation of a proxy in a folder, which may be killed: crystals and predictions first, then references by chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from crystalgfn.calculators.energy_references import References, references_of
from crystalgfn.calculators.registry import load_calculator
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.standardize import Cell
from crystalgfn.errors import CheckpointError
from crystalgfn.evaluation.proxy_check.check import (
    ProxyCheckPlan,
    ReferenceResult,
    formation_energy,
    reference_energies,
)
from crystalgfn.evaluation.proxy_check.report import gap
from crystalgfn.properties.convex_hull import ExactHull
from crystalgfn.sampling.sampler import Sampler
from crystalgfn.space.space import CrystalSpace
from crystalgfn.utils.files import write_aside
from crystalgfn.utils.parallel import parallel_map
from crystalgfn.utils.progress import Bar
from crystalgfn.utils.run_folder import RunFolder

DRAWN, PARTS = "drawn.pt", "parts"
ReferenceMaker = Callable[..., list[ReferenceResult]]
TemplateLookup = Callable[[Crystals], list[Cell]]


class ProxyCheck:
    """Predictions for a sampler's crystals in a folder, and reference energies as far as they are computed.

    Args:
        out: the folder; one that holds the same run goes on.
        sampler: what draws.
        plan: how crystals are drawn and checked.
        space: a further constraint on the draws.
        beta: inverse temperature of the draws; None: the reward's own.
        run: what else tells this run from another, such as the sampler's name.

    Attributes:
        crystals: what was drawn, [n].
        predicted: formation energy by the proxy, eV/atom [n].
        std: its standard error [n].

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
        references: References | None = None,
        n_jobs: int = 1,
        progress: bool = True,
        check: ReferenceMaker = reference_energies,
    ) -> None:
        """Check what is not yet checked; a kill loses the chunks in work.

        Args:
            templates: from a batch of one crystal to structures to try besides random placements.
            references: that turn the calculator's energies into formation energies; None: those of the plan.
            n_jobs: processes.
            progress: shows a bar.
            check: what checks a chunk.

        Raises:
            NotAvailable: the calculator's package is not installed.
        """
        if check is reference_energies and self.todo:
            # better found out before the first placements than after them
            references_of(load_calculator(self.plan.calculator), self.plan.energy_references)
        bar = Bar(total=len(self.crystals), description="checking", unit=" crystals", shown=progress, smoothing=0.1)
        bar.update(self.done)
        for i, found in self._found(templates, references, n_jobs, check):
            frame = pd.DataFrame([asdict(one) for one in found], columns=list(ReferenceResult.__dataclass_fields__))
            frame = frame.astype({"failure": "str", "error": "str", "calculator": "str"})
            write_aside(self._path(i), lambda aside, frame=frame: frame.to_parquet(aside, index=False))
            bar.update(len(frame))
            one = gap(self.table().predicted, self.table().e_star) if progress else None
            if one:
                bar.note(f"median |predicted - E*| {one['median_abs']:.3f}, bias {one['bias']:+.3f} eV/atom")
        bar.close()

    def _found(
        self, templates: TemplateLookup | None, references: References | None, n_jobs: int, check: ReferenceMaker
    ) -> Iterator[tuple[int, list[ReferenceResult]]]:
        def calls() -> Iterator[tuple[Any, ...]]:
            for i in self.todo:
                crystals = self._part(i)
                given = None if templates is None else [templates(crystals[j]) for j in range(len(crystals))]
                yield i, crystals, self.plan, given, references, check

        yield from parallel_map(_call, calls(), n_jobs=n_jobs, ordered=False)

    def table(self, hull: ExactHull | None = None) -> pd.DataFrame:
        """One row a crystal with a result: parameters, ``predicted``, ``std``, ``confidence_bound``, `ReferenceResult`.

        Args:
            hull: whose energy at each composition becomes a column, eV/atom.

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
    i, crystals, plan, given, references, check = call
    return i, check(crystals, plan, i, given, references)


def _load(path: Path) -> dict[str, Any]:
    try:
        kept = torch.load(path, weights_only=True)
        return {name: kept[name] for name in ("crystals", "predicted", "std")}
    except Exception as error:
        raise CheckpointError(f"{path} is damaged ({error}); delete {path.parent} to check anew") from error
