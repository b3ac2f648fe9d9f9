"""Fitting where a sampler will look: draw, place, label, refit, and after each fit how far predictions lie from labels.

A round fits a proxy on all labels so far, trains a sampler on it, draws crystals that no fit has seen and labels them.
The gap between the proxy and those labels is what the fit is worth to a sampler; the labels go into the next fit.
Everything that is finished stands in a file, so that an interrupted loop goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from crystalgfn.calculators.base import Calculator
from crystalgfn.calculators.energy_references import References
from crystalgfn.calculators.registry import DEFAULT
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.standardize import Cell
from crystalgfn.data.labelled import Rows, exclude
from crystalgfn.evaluation.proxy_check.report import gap
from crystalgfn.fitting.labels import VALUE, Labels, label_crystals, read_labels
from crystalgfn.gfn.config import TrainerConfig
from crystalgfn.gfn.training import CHECKPOINT
from crystalgfn.policy.network import PolicyConfig
from crystalgfn.properties.base import Property
from crystalgfn.properties.convex_hull import ExactHull
from crystalgfn.properties.ensemble import WEIGHTS, EnsembleProxy
from crystalgfn.rewards import boltzmann
from crystalgfn.sampling.sampler import Sampler
from crystalgfn.sampling.sampler_files import add_tensors
from crystalgfn.sampling.train import train
from crystalgfn.space.space import CrystalSpace
from crystalgfn.typing import Integers
from crystalgfn.utils.files import write_aside
from crystalgfn.utils.progress import Bar
from crystalgfn.utils.provenance import METRICS
from crystalgfn.utils.random import derived_seed
from crystalgfn.utils.run_folder import RunFolder

GAPS, LABELS, BEGUN = "gaps.csv", "labels.npz", "loop.json"
CHUNK = 16
"""Crystals labelled together; those in work are lost when the loop is killed."""
Fit = Callable[[Path, Labels], Any]
Draw = Callable[[Property, Path, int], Crystals]
Label = Callable[[Crystals, int], tuple[Labels, Integers]]


def active_learning_loop(
    out: str | Path | RunFolder,
    rounds: int,
    labels: Labels,
    fit: Fit,
    draw: Draw,
    label: Label,
    excluded_keys: frozenset[tuple[str, int]] = frozenset(),
    progress: bool = True,
) -> pd.DataFrame:
    """The loop. Round 0 fits on the labels that are there; each of the further ``rounds`` also on those made before it.

    The last proxy and all labels go into ``out``, the rest into ``out/round_<number>``.

    Args:
        out: folder, or that of the command at work; one in which a loop was interrupted goes on.
        rounds: fits after the first, at least 1.
        labels: that there are.
        fit: fits a proxy on labels and writes it into a folder, ``metrics.json`` last.
        draw: crystals of a sampler trained on a proxy; also given the folder of the round and its number.
        label: labels of crystals and their positions; also given the number of the chunk.
        excluded_keys: pairs (reduced formula, space group) that no fit may see.
        progress: shows a bar while labelling.

    Returns:
        One row a fit (`gap_row`), also in ``out/gaps.csv``.

    Raises:
        CheckpointError: the folder holds a loop that began with other labels, or another process works there.
    """
    run = out if isinstance(out, RunFolder) else RunFolder(out, "a loop")
    with nullcontext() if run is out else run:
        digest = hashlib.sha256(json.dumps(sorted(excluded_keys)).encode())
        add_tensors(digest, {**labels.crystals.state_dict(), **tensors_of(labels)})
        run.agree({"labels": len(labels), "content": digest.hexdigest()}, file=BEGUN)
        return _rounds(run.path, rounds, labels, fit, draw, label, excluded_keys, progress)


def _rounds(
    out: Path,
    rounds: int,
    labels: Labels,
    fit: Fit,
    draw: Draw,
    label: Label,
    excluded_keys: frozenset[tuple[str, int]],
    progress: bool,
) -> pd.DataFrame:
    table, folder = pd.DataFrame(), out / "round_0"
    for number in range(rounds + 1):
        folder = out / f"round_{number}"
        if not (folder / METRICS).exists():
            fit(folder, labels)
        proxy = EnsembleProxy.load(folder)
        crystals = kept_crystals(folder / "drawn.pt", lambda proxy=proxy, args=(folder, number): draw(proxy, *args))
        found = label_in_parts(crystals, folder, label, number, progress)
        table = pd.concat([table, pd.DataFrame([gap_row(number, proxy, crystals, found)])], ignore_index=True)
        labels = concat_labels([labels, without(found, excluded_keys)])
        labels.save(out / LABELS)
        write_aside(out / GAPS, lambda aside, table=table: table.to_csv(aside, index=False, float_format="%.4f"))
    for name in (WEIGHTS, METRICS):
        write_aside(out / name, lambda aside, name=name: shutil.copyfile(folder / name, aside))
    return table


def label_in_parts(crystals: Crystals, folder: Path, label: Label, number: int = 0, progress: bool = True) -> Labels:
    """Labels of crystals [B], `CHUNK` at a time into files of a folder; what stands there already is read.

    Each chunk of each round (``number``) has a number of its own, which ``label`` is given.
    """
    parts = []
    bar = Bar(total=len(crystals), description="labelling", unit=" crystals", shown=progress)
    for k, start in enumerate(range(0, len(crystals), CHUNK)):
        chunk, path = crystals[start : start + CHUNK], folder / f"labels-{k:05d}.npz"
        if not path.exists():
            label(chunk, number * 10_000 + k)[0].save(path)
        parts.append(read_labels(path, high=True))
        bar.update(len(chunk))
    bar.close()
    return concat_labels(parts)


def gap_row(number: int, proxy: Property, crystals: Crystals, labels: Labels) -> dict[str, Any]:
    """How far the claims of a proxy lie from labels of crystals that its own sampler drew, eV/atom.

    ``median``, ``bias`` (of claim - check: a negative one praises) and ``spearman`` over all labels, upper bounds
    included; ``value_...`` over those that are values.
    """
    claim = proxy(labels.crystals)
    row: dict[str, Any] = {"round": number, "drawn": len(crystals), "labelled": len(labels)}
    values = labels.kind == VALUE
    for name, mask in (("", torch.ones_like(values)), ("value_", values)):
        one = gap(claim[mask].numpy(), labels.value[mask].numpy()) or {}
        row[f"{name}crystals"] = one.get("crystals", 0)
        row[f"{name}median"] = one.get("median_abs")
        row |= {f"{name}{key}": one.get(key) for key in ("bias", "spearman")}
    return row


def concat_labels(parts: Sequence[Labels]) -> Labels:
    """All labels, one after another."""
    crystals, columns = Crystals.cat([one.crystals for one in parts]), [tensors_of(one) for one in parts]
    return Labels(crystals=crystals, **{name: torch.cat([one[name] for one in columns]) for name in columns[0]})


def tensors_of(labels: Labels) -> dict[str, torch.Tensor]:
    """All that labels hold beside their crystals."""
    return {name: getattr(labels, name) for name in Labels.__dataclass_fields__ if name != "crystals"}


def without(labels: Labels, excluded_keys: frozenset[tuple[str, int]]) -> Labels:
    """The labels that share no (reduced formula, space group) with ``excluded_keys``."""
    return labels[torch.tensor([not key & excluded_keys for key in labels.keys()], dtype=torch.bool)]


@dataclass(frozen=True, kw_only=True)
class SamplerDraws:
    """Trains a sampler on a proxy, R = exp(-beta * (mean + std)), and draws from it.

    Attributes:
        space: what may be drawn.
        n: crystals.
        beta: inverse temperature, 1 / (eV/atom).
        policy: size of the network.
        trainer: how long and how fast.
        strata: see `crystalgfn.sampling.train.train`.
        seed: of training and draws; every round has its own, made from it.
    """

    space: CrystalSpace
    n: int
    beta: float = 8.0
    policy: PolicyConfig | None = None
    trainer: TrainerConfig | None = None
    strata: tuple[float, ...] | str | None = None
    seed: int = 0

    def __call__(self, proxy: Property, folder: Path, number: int) -> Crystals:
        """Crystals of a sampler trained in ``folder``, where an interrupted training goes on."""
        seed = derived_seed(self.seed, number)
        reward = boltzmann(proxy, self.beta)
        if (folder / "sampler" / "config.json").exists():
            sampler = Sampler.load(folder / "sampler", reward=reward)
        else:
            resume = (folder / CHECKPOINT).exists()
            sampler = train(
                self.space, reward, policy=self.policy, trainer=self.trainer, strata=self.strata, seed=seed,
                out=folder, resume=resume,
            )  # fmt: skip
        return sampler.sample(self.n, seed=seed).to("cpu")


@dataclass(frozen=True, kw_only=True)
class CalculatorLabels:
    """Labels crystals with a calculator (`label_crystals`).

    Attributes:
        hull: above which labels end; none without.
        templates: from a batch of one crystal to structures to try besides random placements.
        seed: of the placements.
        calculator: see `crystalgfn.calculators.registry.load_calculator`.
        references: that turn its energies into formation energies; None: those that come with the package.
        second_opinion: a better calculator, whose energies the labels are, see `label_crystals`; None: none.
    """

    hull: ExactHull | None = None
    templates: Callable[[Crystals], list[Cell]] | None = None
    seed: int = 0
    calculator: Calculator | str = DEFAULT
    references: References | None = None
    second_opinion: Calculator | str | None = None

    def __call__(self, crystals: Crystals, number: int) -> tuple[Labels, Integers]:
        """Labels, and the positions in ``crystals`` of those that have one."""
        given = self.templates and [self.templates(crystals[i]) for i in range(len(crystals))]
        seed = derived_seed(self.seed, number)
        return label_crystals(crystals, given, self.hull, self.references, seed, self.calculator, self.second_opinion)


def hull_of(rows: Rows, val: Rows) -> ExactHull:
    """The hull of labelled crystals (formation energies, eV/atom) that share nothing with the validation rows."""
    rows = exclude(rows, val)
    table = {"formula": rows.crystals.formulas(), "formation_energy_per_atom": rows.labels.numpy()}
    return ExactHull.from_entries(pd.DataFrame(table))


def kept_crystals(path: Path, make: Callable[[], Crystals]) -> Crystals:
    """Crystals from a file, which is made where it is missing."""
    if not path.exists():
        state = make().state_dict()
        write_aside(path, lambda aside: torch.save(state, aside))
    return Crystals.from_state_dict(torch.load(path, weights_only=True))
