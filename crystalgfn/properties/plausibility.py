"""CrystalPlausibility: the probability that a crystal of this space group and composition is known rather than drawn.

An ensemble of classifiers fitted by noise-contrastive estimation (Gutmann & Hyvärinen 2010): with as many known
crystals (density p) as draws of samplers (density q), the best classifier says p / (p + q). It sees the composition and
the group alone: shares and statistics of the elements, charges, how often a stoichiometry is known, families of
elements. It is no verdict on novelty: it says whether a crystal looks like those that have been made.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import nn

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.properties.base import check_space_groups
from crystalgfn.properties.features import chemistry_table, element_statistics
from crystalgfn.properties.oxidation import Charges, charges
from crystalgfn.typing import FeatureRows, Floats, Integers, MemberValues
from crystalgfn.utils.files import path_of
from crystalgfn.utils.weight_files import WeightFiles

FILES = WeightFiles(
    what="classifier of crystals", format="crystalgfn-plausibility", version=1, remedy="fit it again, or copy it again"
)
WEIGHTS = "weights.safetensors"
CHUNK = 8192

FAMILIES = {
    "lanthanides": "La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu",
    "actinides": "Ac Th Pa U Np Pu",
    "alkali metals": "Li Na K Rb Cs",
    "alkaline earths": "Be Mg Ca Sr Ba",
    "transition metals": "Sc Ti V Cr Mn Fe Co Ni Cu Zn Y Zr Nb Mo Tc Ru Rh Pd Ag Cd Hf Ta W Re Os Ir Pt Au Hg",
    "metalloids": "B Si Ge As Sb Te",
    "chalcogens": "O S Se Te",
    "halogens": "F Cl Br I",
    "anions": "N O F P S Cl As Se Br Sb Te I",
    "light": "H C N O F",
    "noble gases": "He Ne Ar Kr Xe Rn",
}
"""Families of which it counts the elements and sums the shares."""
MOST_OF_A_FAMILY = {"lanthanides": 1, "halogens": 1, "anions": 2}
RARE, SHORT_OF_CHARGE, SHELLS = 5, 0.2, frozenset("O F S Cl Se Br Te I".split())
"""Fewer known compounds than this, a larger share of missing charge than that in one of these, and it is said."""
WORST_EVIDENCE = -12.0
SLOTS = 6
"""Elements whose counts are features of their own, the most frequent first."""


class CompositionAndGroup(nn.Module):
    """What a model of composition and space group sees of a crystal.

    Args:
        kinds: stoichiometries that are known.
        name: what the model is called in tables.
        source: by which name ``config`` refers to it.

    Attributes:
        known: keys of the stoichiometries that known crystals have, ascending, int64 [K].
        frequency: ln(1 + number of known compounds) of each, [K].
        shift, scale: that standardise the features, [F].
    """

    files: ClassVar[WeightFiles]
    shape: dict[str, Any]
    known: torch.Tensor
    frequency: torch.Tensor
    families: torch.Tensor
    element_table: torch.Tensor
    shift: torch.Tensor
    scale: torch.Tensor

    def __init__(self, kinds: int = 0, name: str = "", source: str | None = None) -> None:
        super().__init__()
        self.name, self.source = name, source
        self.register_buffer("known", torch.zeros(kinds, dtype=torch.int64))
        self.register_buffer("frequency", torch.zeros(kinds))
        rows = [[float(symbol in members.split()) for symbol in elements.SYMBOLS] for members in FAMILIES.values()]
        self.register_buffer("families", torch.tensor(rows).T, persistent=False)
        self.register_buffer("element_table", chemistry_table(), persistent=False)
        size = self.features(_probe()).shape[1]
        self.register_buffer("shift", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))

    def features(self, crystals: Crystals) -> FeatureRows:
        """What the networks see, float32 [B, F]; the first 118 are the shares of the elements."""
        counts = formula_units(crystals.composition)
        total = counts.sum(1, keepdim=True)
        fractions = (counts / total).float()
        shares, which = fractions.topk(SLOTS, dim=1)
        statistics = element_statistics(shares, self.element_table[which])
        most = counts.topk(SLOTS, dim=1).values
        present = (counts > 0).float()
        group = crystals.space_group
        return torch.cat(
            [
                fractions,
                statistics,
                most.float().log1p(),
                (most == 1).float(),
                total.float().log(),
                (counts > 0).sum(1, keepdim=True).float(),
                self._frequency(counts)[:, None],
                present @ self.families,
                fractions @ self.families,
                _charge_features(counts),
                nn.functional.one_hot(group - 1, 230).float(),
                nn.functional.one_hot(_system(group), 7).float(),
            ],
            1,
        )

    def _frequency(self, counts: torch.Tensor) -> torch.Tensor:
        """ln(1 + known compounds with the stoichiometry), float32 [B]."""
        if not len(self.known):
            return torch.zeros(len(counts), device=counts.device)
        keys = stoichiometry_keys(counts)
        place = torch.searchsorted(self.known, keys).clamp_max(len(self.known) - 1)
        return torch.where(self.known[place] == keys, self.frequency[place], 0.0)

    def in_parts(self, crystals: Crystals, value: Callable[[FeatureRows], torch.Tensor]) -> list[torch.Tensor]:
        """A function of the features of `CHUNK` crystals at a time, without gradients."""
        check_space_groups(self.name, crystals)
        with torch.no_grad():
            starts = range(0, max(1, len(crystals)), CHUNK)  # an empty batch has one empty part
            return [value(self.features(crystals[start : start + CHUNK])) for start in starts]

    def config(self) -> dict[str, Any]:
        """The configuration that builds it."""
        return {"_target_": "crystalgfn.rewards.load_proxy", "name": self.source or self.name}

    def save(self, folder: str | Path) -> Path:
        """Write ``weights.safetensors`` into a folder, matrices in half precision, aside and then renamed."""
        weights = {k: v.half() if v.is_floating_point() and v.ndim > 1 else v for k, v in self.state_dict().items()}
        return self.files.write(path_of(folder) / WEIGHTS, weights, shape=json.dumps(self.shape))

    @classmethod
    def load(cls, folder: str | Path, source: str | None = None) -> Self:
        """Read it from a folder with ``weights.safetensors``.

        Raises:
            CheckpointError: no such file, truncated, of another format, version or shape.
        """
        path = path_of(folder) / WEIGHTS
        return cls.files.load(path, lambda header: cls(**json.loads(header["shape"]), source=source))


class CrystalPlausibility(CompositionAndGroup):
    """Probability that a crystal is known rather than drawn, in 0 to 1; a `Property`.

    Args:
        members: networks in the ensemble.
        width: units in each of the two hidden layers.
        name: what it is called in tables.
        source: by which name ``config`` refers to it.
        kinds: stoichiometries that are known.
    """

    files = FILES
    unit = ""

    def __init__(
        self, members: int = 3, width: int = 256, name: str = "plausibility", source: str | None = None, kinds: int = 0
    ) -> None:
        super().__init__(kinds, name, source)
        self.shape = {"members": members, "width": width, "name": name, "kinds": kinds}
        size = len(self.shift)
        self.first = nn.Parameter(torch.randn(members, size, width) * (2 / size) ** 0.5)
        self.offset = nn.Parameter(torch.zeros(members, 1, width))
        self.second = nn.Parameter(torch.randn(members, width, width) * (2 / width) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(members, 1, width))
        self.last = nn.Parameter(torch.randn(members, width, 1) * (1 / width) ** 0.5)
        self.level = nn.Parameter(torch.zeros(members, 1, 1))

    def network(self, features: FeatureRows) -> MemberValues:
        """The logit that each member gives: what fitting trains."""
        x = ((features - self.shift) * self.scale).expand(len(self.first), *features.shape)
        hidden = torch.baddbmm(self.offset, x, self.first).relu()
        hidden = torch.baddbmm(self.bias, hidden, self.second).relu()
        return torch.baddbmm(self.level, hidden, self.last)[:, :, 0]

    def logits(self, crystals: Crystals) -> MemberValues:
        """ln(p / q) of each member, [M, B]."""
        return torch.cat(self.in_parts(crystals, self.network), 1)

    def forward(self, crystals: Crystals) -> Floats:
        """The probability of each crystal, [B]."""
        return self.logits(crystals).mean(0).sigmoid().to(crystals.lattice)

    def std(self, crystals: Crystals) -> Floats:
        """The members' standard deviation of the probability, [B]."""
        members = self.logits(crystals).sigmoid()
        return (members - members.mean(0)).square().mean(0).sqrt().to(crystals.lattice)

    def confidence_bound(self, crystals: Crystals, n_sigma: float) -> Floats:
        """``mean + n_sigma * std``, [B]."""
        return self(crystals) + n_sigma * self.std(crystals)

    def reasons(self, crystals: Crystals) -> list[str]:
        """What about each crystal is rare among known ones, in words; empty where nothing is.

        Example:
            >>> from crystalgfn import load_proxy
            >>> from crystalgfn.rewards.base import example_crystals
            >>> load_proxy("plausibility").reasons(example_crystals()[1])  # rock salt
            ['']
        """
        counts = formula_units(crystals.composition)
        known = self._frequency(counts)
        families = (counts > 0).float() @ self.families
        found = charges(counts)
        return ["; ".join(self._reasons(float(known[i]), families[i], found, i)) for i in range(len(counts))]

    def _reasons(self, known: float, families: torch.Tensor, found: Charges, i: int) -> list[str]:
        words = []
        if round(np.expm1(known)) < RARE:
            words.append(f"stoichiometry of {round(np.expm1(known))} known compounds")
        for family, most in MOST_OF_A_FAMILY.items():
            n = int(families[list(FAMILIES).index(family)])
            if n > most:
                words.append(f"{n} {family}")
        for z, mean, missing in zip(
            found.numbers[i].tolist(), found.mean[i].tolist(), found.missing[i].tolist(), strict=True
        ):
            if elements.SYMBOLS[z - 1] in SHELLS and len(found.numbers[i].nonzero()) > 1 and missing > SHORT_OF_CHARGE:
                words.append(f"{elements.SYMBOLS[z - 1]} carries {mean:+.1f} on average")
        if not np.isfinite(float(found.evidence[i])) and families[list(FAMILIES).index("anions")] > 0:
            words.append("no neutral oxidation states")
        return words


def formula_units(composition: torch.Tensor) -> torch.Tensor:
    """Counts of one formula unit, int64 [B, 118]."""
    divisor = torch.from_numpy(np.gcd.reduce(composition.cpu().numpy(), axis=1).astype(np.int64)).to(composition.device)
    return composition // divisor.clamp_min(1)[:, None]


def stoichiometry_keys(counts: torch.Tensor) -> Integers:
    """One number for the counts of a formula unit, whatever the elements (ABX3 is ABX3), int64 [B]."""
    most = counts.topk(SLOTS + 2, dim=1).values.clamp_max(127)
    key = torch.zeros(len(counts), dtype=torch.int64, device=counts.device)
    for column in most.T:
        key = key * 128 + column
    return key


def _charge_features(counts: torch.Tensor) -> torch.Tensor:
    """Charges of the most plausible assignments: evidence, extremes, what anions lack, order of electronegativities."""
    found = charges(counts)
    share = found.amounts / found.amounts.sum(1, keepdim=True)
    here = found.numbers > 0
    chi = torch.tensor(elements.ELECTRONEGATIVITY, device=share.device)[found.numbers.clamp_min(1) - 1]
    anion, cation = share * found.anionic * here, share * found.positive
    chi_anion = (anion * chi).sum(1) / anion.sum(1).clamp_min(1e-6)
    chi_cation = (cation * chi).sum(1) / cation.sum(1).clamp_min(1e-6)
    assigned = torch.isfinite(found.evidence)
    columns = [
        found.evidence.clamp_min(WORST_EVIDENCE),
        assigned.double(),
        found.mean.amax(1),
        found.mean.amin(1),
        (share * found.missing).sum(1),
        (found.missing * found.anionic * here).amax(1),
        anion.sum(1),
        ((found.anionic > 0.5) & here & assigned[:, None]).sum(1).double(),
        torch.where(assigned, chi_anion - chi_cation, 0.0),
        cation.sum(1),
    ]
    return torch.stack(columns, 1).float()


def _system(group: torch.Tensor) -> torch.Tensor:
    ends = torch.tensor([2, 15, 74, 142, 167, 194], device=group.device)
    return torch.searchsorted(ends, group)


def _probe() -> Crystals:
    composition = torch.zeros(1, 118, dtype=torch.int64)
    composition[0, [10, 16]] = 1
    return Crystals(torch.tensor([225]), composition, torch.tensor([[5.64, 5.64, 5.64, 90.0, 90.0, 90.0]]))
