"""Labels for what databases lack: formation energies of crystals away from equilibrium, by a calculator.

A label is E*(x), the lowest energy over Wyckoff assignments and coordinates at fixed group, composition and lattice,
on MP-20's scale. It is an upper bound where the relaxation did not converge, or where no real crystal lent its
positions and the cell is not small. How labels are made: `scripts.maintain.labels.labelling`; what the
shipped ones are: ``labels/README.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from crystalgfn.calculators.base import Calculator, calculate_energies
from crystalgfn.calculators.energy_references import References, references_of
from crystalgfn.calculators.registry import DEFAULT, load_calculator
from crystalgfn.crystallography import elements
from crystalgfn.crystallography.atoms import reduced_formula
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.standardize import Cell
from crystalgfn.data.labelled import Rows, bags, held
from crystalgfn.errors import DataError
from crystalgfn.fitting.perturbations import jittered
from crystalgfn.properties.convex_hull import ExactHull
from crystalgfn.properties.ensemble import EnsembleProxy
from crystalgfn.structures.ground_state import (  # fmt: skip
    COLLAPSED,
    CROWDED,
    GroundState,
    SearchFailure,
    lowest_structures,
    searched,
)
from crystalgfn.typing import Booleans, FeatureRows, Floats, Integers, MemberValues
from crystalgfn.utils.files import data_folder, load_arrays, path_of, save_arrays

SHIPPED = data_folder("proxies") / "labels" / f"{DEFAULT}.npz"
"""By the default calculator."""
SOURCES = ("strained", "swapped", "placed", "proposed")
#: Kinds: the energy is E*; E* is at most this; found more than `CEILING` above the hull, where labels end: at least
#: that, as far as the search went.
VALUE, BOUND, HIGH = 0, 1, 2
#: Splits: to fit; of a composition that no fit may see; strained crystals of MP-20 val, to report only.
FIT, HELD, VAL = 0, 1, 2
CEILING = 1.0  # eV/atom above the hull of the training entries
#: eV/atom; no compound of MP-20 lies below -4.6, but potentials can go astray in crowded cells.
LOWEST = -5.0
HELD_SHARE, HELD_SEED = 0.1, 0
VERSION = 3
FLAGS = ("kind", "source", "split", "candidates", "placed", "converged", "refined")


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Labelled crystals.

    Attributes:
        crystals: [B].
        value: formation energy in eV/atom, at most that of the hull and `CEILING`, float32 [B].
        kind: `VALUE`, `BOUND` or `HIGH`, int64 [B].
        source: place in `SOURCES`, int64 [B].
        split: `FIT`, `HELD` or `VAL`, int64 [B].
        placed: whether the lowest structure was placed, not given, bool [B].
        converged: whether its relaxation converged, bool [B].
        candidates: structures that the value is the lowest of, int64 [B].
        refined: whether the refiner placed the candidates' atoms, not chance, so that a bound is tighter, bool [B].
        disagreement: the value less that of the first calculator for the same structure, where the value is a second
            one's, eV/atom, float32 [B]; NaN where one calculator was asked.
    """

    crystals: Crystals
    value: Floats
    kind: Integers
    source: Integers
    split: Integers
    placed: Booleans
    converged: Booleans
    candidates: Integers
    refined: Booleans
    disagreement: Floats = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.disagreement is None:
            object.__setattr__(self, "disagreement", torch.full((len(self.value),), torch.nan))

    def __len__(self) -> int:
        return len(self.value)

    def __getitem__(self, index: torch.Tensor | np.ndarray | slice) -> Labels:
        """The labels at ``index`` (positions, a mask or a slice)."""
        if not isinstance(index, slice):
            index = torch.as_tensor(index)
        return Labels(**{name: getattr(self, name)[index] for name in self.__dataclass_fields__})

    def keys(self) -> list[frozenset[tuple[str, int]]]:
        """(reduced formula, space group) of each, as ``Rows.keys`` of `crystalgfn.data.labelled` has them."""
        formulas = map(reduced_key, self.crystals.composition.numpy())
        return [frozenset({pair}) for pair in zip(formulas, self.crystals.space_group.tolist(), strict=True)]

    def save(self, path: str | Path) -> None:
        """Write an ``.npz`` with compositions as lists of (element, count)."""
        row, column = self.crystals.composition.nonzero(as_tuple=True)
        columns = {
            "version": np.array(VERSION),
            "space_group": self.crystals.space_group.numpy().astype(np.uint8),
            "n_elements": torch.bincount(row, minlength=len(self)).numpy().astype(np.int8),
            "element": (column + 1).numpy().astype(np.int8),
            "count": self.crystals.composition[row, column].numpy().astype(np.int8),
            "lattice": self.crystals.lattice.numpy().astype(np.float32),
            "value": self.value.numpy().astype(np.float32),
            "disagreement": self.disagreement.numpy().astype(np.float32),
            **{name: getattr(self, name).numpy().astype(np.int8) for name in FLAGS},
        }
        save_arrays(path_of(path), columns)


def read_labels(path: str | Path = SHIPPED, high: bool = False) -> Labels:
    """Labels from a file that `Labels.save` wrote; those that come with the package by default.

    Args:
        path: the file.
        high: also the labels more than `CEILING` above the hull (kind `HIGH`).

    Raises:
        DataError: the file is missing, of another version, or is not one of labels.
    """
    try:
        columns = load_arrays(Path(path), "file of labels", "make them with scripts.maintain.labels.make")
        version = int(columns["version"])
        if version == 1:  # of placements at random
            columns["refined"] = np.zeros(len(columns["value"]), dtype=np.int8)
        if version < VERSION:  # of one calculator
            columns["disagreement"] = np.full(len(columns["value"]), np.nan, dtype=np.float32)
        composition = torch.zeros(len(columns["value"]), 118, dtype=torch.int64)
        row = np.repeat(np.arange(len(composition)), columns["n_elements"])
        composition[row, columns["element"].astype(np.int64) - 1] = torch.from_numpy(columns["count"]).long()
        group = torch.from_numpy(columns["space_group"]).long()
        crystals = Crystals(group, composition, torch.from_numpy(columns["lattice"]))
        flags = {name: torch.from_numpy(columns[name]).long() for name in FLAGS}
        flags |= {name: flags[name].bool() for name in ("placed", "converged", "refined")}
        energies = {name: torch.from_numpy(columns[name]) for name in ("value", "disagreement")}
        labels = Labels(crystals=crystals, **energies, **flags)
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise DataError(f"{path} holds no labels ({error}); make them with scripts.maintain.labels.make") from error
    if version not in (1, 2, VERSION):
        raise DataError(f"{path} holds labels of version {version}, this package reads {VERSION}; make them anew")
    return labels if high else labels[labels.kind != HIGH]


def label_crystals(
    crystals: Crystals,
    given: Sequence[Sequence[Cell]] | None = None,
    hull: ExactHull | None = None,
    references: References | None = None,
    seed: int = 0,
    calculator: Calculator | str = DEFAULT,
    second_opinion: Calculator | str | None = None,
) -> tuple[Labels, Integers]:
    """Labels of crystals [B] that a sampler drew, for a loop of sampling and fitting.

    Args:
        crystals: [B].
        given: for each crystal structures to try besides the refiner's (`TemplateCells.cells`); with one, the lowest is
            a value.
        hull: above which labels end; none without.
        references: that turn the calculator's energies into formation energies; None: those that come with the package.
        seed: of the placements.
        calculator: finds the lowest structures, see `load_calculator`.
        second_opinion: a better calculator, whose energies of these structures the labels are; how far the first
            one's lie from them is the labels' ``disagreement``. None: the first one's own.

    Returns:
        Labels of those for which there is a structure, and their positions in ``crystals``; source "proposed". With a
        hull also of those that have none because no placement keeps their atoms apart: labels end there (`HIGH`).

    Raises:
        NotAvailable: the calculator's package is not installed.
    """
    potential = load_calculator(calculator)
    references = references or references_of(potential)
    found = lowest_structures(crystals, given, seed=seed, calculator=potential)
    rows = [
        i
        for i, one in enumerate(found)
        if isinstance(one, GroundState) or (hull is not None and one.failure in (CROWDED, COLLAPSED))
    ]
    mine, lowest = crystals[torch.tensor(rows, dtype=torch.int64)], [found[i] for i in rows]
    columns = {  # of one without a structure: nothing
        name: torch.tensor([getattr(one, name, 0) for one in lowest])
        for name in ("converged", "given", "candidates", "placed")
    }
    energy = np.array([getattr(one, "energy", np.inf) for one in lowest], dtype=np.float64)
    value = torch.from_numpy(references.formation_energy(mine.composition.numpy(), energy))
    value, disagreement = _with_second_opinion(value, second_opinion, mine, lowest)
    top = torch.full_like(value, torch.inf) if hull is None else hull.energy(mine).to(value) + CEILING
    high, value = value > top, torch.minimum(value, top)
    labels = Labels(
        crystals=Crystals(mine.space_group, mine.composition, mine.lattice.float()),
        value=value.float(),
        kind=label_kind(high, columns["converged"].bool(), columns["given"] > 0, mine.n_atoms),
        source=torch.full((len(rows),), SOURCES.index("proposed")),
        split=torch.from_numpy(np.where(held_out([reduced_key(row) for row in mine.composition.numpy()]), HELD, FIT)),
        placed=columns["placed"].bool(),
        converged=columns["converged"].bool(),
        candidates=columns["candidates"].long(),
        refined=torch.ones(len(rows), dtype=torch.bool),
        disagreement=disagreement,
    )
    known = value >= LOWEST
    return labels[known], torch.tensor(rows, dtype=torch.int64)[known]


def _with_second_opinion(
    value: Floats, calculator: Calculator | str | None, crystals: Crystals, found: Sequence[GroundState | SearchFailure]
) -> tuple[Floats, Floats]:
    """Formation energies by a better calculator where it has one, and how far above the first's, eV/atom [B]."""
    if calculator is None:
        return value, torch.full((len(value),), torch.nan)
    potential = load_calculator(calculator)
    energy = np.full(len(found), np.inf)
    rows = [i for i, one in enumerate(found) if isinstance(one, GroundState)]
    energy[rows] = calculate_energies(potential, [one.structure for one in found if isinstance(one, GroundState)])
    better = torch.from_numpy(references_of(potential).formation_energy(crystals.composition.numpy(), energy))
    known = better.isfinite()
    return torch.where(known, better, value), torch.where(known, better - value, torch.nan).float()


def label_kind(high: Booleans, converged: Booleans, helped: Booleans, n_atoms: Integers) -> Integers:
    """`VALUE`, `BOUND` or `HIGH` of each label; ``helped``: a real crystal lent its positions."""
    return torch.where(high, HIGH, torch.where(searched(converged, helped, n_atoms), VALUE, BOUND))


def reduced_key(composition: np.ndarray) -> str:
    """Reduced formula of one composition [118] as splits go by it: alphabetical, every count written."""
    return reduced_formula({elements.SYMBOLS[z]: int(composition[z]) for z in np.flatnonzero(composition)})


def held_out(formulas: list[str]) -> np.ndarray:
    """[B] which formulas no fit may see: those that ``split(rows, HELD_SHARE, HELD_SEED)`` holds out of any rows."""
    return held(formulas, HELD_SHARE, HELD_SEED)


def member_values(labels: Labels, members: int, seed: int) -> MemberValues:
    """What each member of an ensemble is to fit, eV/atom [members, B].

    Where two calculators were asked, half of the members believe each of them (of an odd number one more the second),
    so that the members' standard deviation, and with it the bound that rewards use, knows how far they disagree.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(members, len(labels), generator=generator).argsort(0)
    first = labels.value - labels.disagreement.nan_to_num(0.0)
    return torch.where(order < members // 2, first, labels.value)


#: Labels in a step.
BATCH = 64
#: How far E* lies below an upper bound, on average, eV/atom, where chance placed the atoms, against the deviation of
#: an energy that is known: lowest of eight placements against real crystals (docs/how-to/label-off-equilibrium.md),
#: taken as exponentially distributed. Where the refiner placed them half of the bounds are E* itself, and an absolute
#: error, which fits medians, may mind both sides alike.
SLACK, SLACK_REFINED, KNOWN = 0.35, 0.05, 0.05
#: Weight of a prediction below what is probably too high by more than labels go.
TOO_LOW = 1.0


@dataclass(frozen=True, kw_only=True)
class OffEquilibriumLabels:
    """Labels that a fit may see.

    Attributes:
        crystals: [B].
        features: of these, [B, n].
        target: standardised energies [members, B], see `member_values`.
        is_upper_bound: of which the energy lies at most as high [B].
        bound_slack: how far these lie too high on average, eV/atom [B].
        is_lower_bound: which say where labels end, so that the energy lies above [B].
        seen: which member may see which [members, B].
        sampling_weight: how often each is drawn [B].
        jitter: how far cells are moved each time that they are drawn, see `jittered`; an energy known near its lowest
            hardly changes, and what is learned holds for more than the very cell.
    """

    crystals: Crystals
    features: FeatureRows
    target: MemberValues
    is_upper_bound: Booleans
    bound_slack: Floats
    is_lower_bound: Booleans
    seen: MemberValues
    sampling_weight: Floats
    jitter: float = 0.0

    @classmethod
    def of(
        cls, proxy: EnsembleProxy, labels: Labels, balance: float, left_out: float, seed: int, jitter: float = 0.0
    ) -> OffEquilibriumLabels:
        """The labels to fit for a proxy that has been standardised.

        ``balance``: share of the draws that are no strained real crystals, where there are both; ``left_out``: share of
        the formulas that each member does not see, chosen with the seed; ``jitter``: how far cells are moved each time.
        """
        own = labels[labels.split == FIT]
        with torch.no_grad():
            features = proxy.features(own.crystals)
        target = ((member_values(own, proxy.shape["members"], seed) - proxy.label_mean) / proxy.label_std).float()
        seen = bags(Rows(own.crystals, own.value, own.keys()), proxy.shape["members"], left_out, seed)
        strained = own.source == SOURCES.index("strained")
        weight = torch.ones(len(own))
        if strained.any() and not strained.all():
            weight = torch.where(strained, (1 - balance) / strained.sum(), balance / (~strained).sum())
        return cls(
            crystals=own.crystals,
            features=features,
            target=target,
            is_upper_bound=own.kind == BOUND,
            bound_slack=torch.where(own.refined, SLACK_REFINED, SLACK),
            is_lower_bound=own.kind == HIGH,
            seen=seen,
            sampling_weight=weight,
            jitter=jitter,
        )

    def loss(self, proxy: EnsembleProxy, generator: torch.Generator) -> torch.Tensor:
        """Mean absolute error on known energies; above a bound the same, below it as much less as bounds lie too high.

        What lies higher than labels go is wrong below their end only.
        """
        chosen = torch.multinomial(self.sampling_weight, BATCH, replacement=True, generator=generator)
        features = self.features[chosen]
        if self.jitter:
            with torch.no_grad():
                features = proxy.features(jittered(self.crystals[chosen], self.jitter, generator))
        error = proxy.network(features, self.crystals.space_group[chosen]) - self.target[:, chosen]
        size = absolute(error)
        size = torch.where(self.is_upper_bound[chosen] & (error < 0), KNOWN / self.bound_slack[chosen] * size, size)
        size = torch.where(self.is_lower_bound[chosen], torch.where(error < 0, TOO_LOW * size, 0.0), size)
        weight = self.seen[:, chosen].float()
        return (weight * size).sum() / weight.sum().clamp_min(1) * len(weight)


def absolute(error: MemberValues) -> MemberValues:
    """Absolute errors, rounded off near 0."""
    return torch.nn.functional.smooth_l1_loss(error, torch.zeros_like(error), beta=0.02, reduction="none")
