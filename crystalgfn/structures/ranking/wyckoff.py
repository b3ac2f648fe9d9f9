"""Which Wyckoff letters each element takes: realisable assignments scored by a small model learned from real crystals.

The score of an assignment is a sum over its orbits (what an element makes of a position) plus a term for the whole.
Probabilities are the softmax over all assignments of the crystal, equivalent ones once. The sum alone says which are
looked at where there are too many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from crystalgfn.crystallography import elements, space_groups
from crystalgfn.crystallography.assignments import Letters
from crystalgfn.crystallography.enumeration import CAP, assignments
from crystalgfn.structures.ranking.wyckoff_features import (
    N_ASSIGNMENT,
    N_CRYSTAL,
    N_LETTERS,
    N_ORBIT,
    Room,
    WyckoffSite,
    assignment_features,
    crystal_features,
    letter_offset,
    orbit_features,
    usable_letters,
)
from crystalgfn.typing import RowFloats, RowVectors
from crystalgfn.utils import files
from crystalgfn.utils.weight_files import load_model, save_model

WEIGHTS = files.SHIPPED / "rankers" / "wyckoff.safetensors"
ELEMENT, LETTER, HIDDEN, POOLED = 16, 8, 64, 32


@dataclass(frozen=True, kw_only=True)
class AssignmentBatch:
    """Assignments of several crystals, flat.

    ``orbit_*``: the different (crystal, element, letter); ``member_*``: orbits of assignments; ``owner``: the crystal
    of each assignment.
    """

    orbit_features: torch.Tensor  # [R, N_ORBIT]
    orbit_element: torch.Tensor  # [R] atomic number - 1
    orbit_letter: torch.Tensor  # [R] place among the letters of all groups
    orbit_crystal: torch.Tensor  # [R]
    member_orbit: torch.Tensor  # [Q]
    member_assignment: torch.Tensor  # [Q]
    assignment_features: torch.Tensor  # [M, N_ASSIGNMENT]
    owner: torch.Tensor  # [M]
    crystal_features: torch.Tensor  # [B, N_CRYSTAL]


class WyckoffModel(nn.Module):
    """Scores of assignments."""

    def __init__(self) -> None:
        super().__init__()
        self.element = nn.Embedding(118, ELEMENT)
        self.letter = nn.Embedding(N_LETTERS, LETTER)
        nn.init.zeros_(self.letter.weight)
        self.element.weight.data[:, :5] = torch.tensor(_chemistry(), dtype=torch.float32)
        self.element.weight.data[:, 5:] *= 0.1
        inputs = N_ORBIT + ELEMENT + LETTER + N_CRYSTAL
        self.orbit = nn.Sequential(nn.Linear(inputs, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN), nn.SiLU())
        self.alone = nn.Linear(HIDDEN, 1)
        self.pool = nn.Linear(HIDDEN, POOLED)
        self.whole = nn.Sequential(
            nn.Linear(POOLED + N_ASSIGNMENT + N_CRYSTAL, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, 1)
        )

    def orbits(self, batch: AssignmentBatch) -> tuple[RowFloats, RowVectors]:
        """Score of each different orbit by itself [R], and what it adds to the whole [R, POOLED]."""
        parts = (
            batch.orbit_features,
            self.element(batch.orbit_element),
            self.letter(batch.orbit_letter),
            batch.crystal_features[batch.orbit_crystal],
        )
        hidden = self.orbit(torch.cat(parts, 1))
        return self.alone(hidden).squeeze(1), self.pool(hidden)

    def forward(self, batch: AssignmentBatch) -> tuple[RowFloats, RowFloats]:
        """Scores of all assignments [M], and the part of them that is a sum over orbits."""
        alone, pooled = self.orbits(batch)
        n = len(batch.owner)
        summed = torch.zeros(n, dtype=alone.dtype).index_add(0, batch.member_assignment, alone[batch.member_orbit])
        together = torch.zeros(n, POOLED, dtype=alone.dtype)
        together = together.index_add(0, batch.member_assignment, pooled[batch.member_orbit])
        context = torch.cat([torch.tanh(together), batch.assignment_features, batch.crystal_features[batch.owner]], 1)
        return summed + self.whole(context).squeeze(1), summed

    @torch.no_grad()
    def rank(
        self,
        space_group: int,
        counts: Mapping[str, int],
        lattice: np.ndarray | None = None,
        n: int = 20,
        cap: int = CAP,
    ) -> list[tuple[dict[str, tuple[str, ...]], float]]:
        """At most ``n`` different assignments with their probabilities, the most probable first.

        Args:
            space_group: 1-230.
            counts: element symbol -> atoms per primitive cell.
            lattice: conventional cell [6] in the fundamental domain of the group, or None where it is not known.
            n: how many, at most.
            cap: assignments looked at; the probabilities are among these.
        """
        # the order of elements decides which of equivalent choices is looked at, so it is that of the examples
        symbols = sorted((s for s, count in counts.items() if count), key=lambda s: (counts[s], elements.NUMBER[s]))
        site = WyckoffSite(
            space_group,
            tuple(elements.NUMBER[s] for s in symbols),
            tuple(int(counts[s]) for s in symbols),
            None if lattice is None else np.asarray(lattice, dtype=np.float64),
        )
        letters = usable_letters(site)
        room = None if lattice is None else Room(site, letters)
        alone = self._alone(site, letters, room)
        found, _ = assignments(space_group, site.counts, cap, lambda e, f: alone[e, f])
        if not found:
            return []
        scores = self(collate_assignments([(site, found, room)]))[0].double()
        chances = torch.softmax(scores, 0).numpy()
        best = np.argsort(-chances, kind="stable")[:n]
        return [(dict(zip(symbols, found[i], strict=True)), float(chances[i])) for i in best]

    def _alone(self, site: WyckoffSite, letters: list[str], room: Room | None) -> dict[tuple[int, str], float]:
        size = {p.letter: p.primitive_multiplicity for p in space_groups.WYCKOFF[site.space_group - 1]}
        every = [(e, f) for e, count in enumerate(site.counts) for f in letters if size[f] <= count]
        batch = collate_assignments([(site, [_single(len(site.counts), e, f) for e, f in every], room)], whole=False)
        values = self.orbits(batch)[0].tolist()
        return dict(zip(every, values, strict=True))

    def save(self, path: str | Path) -> None:
        """Write the weights as safetensors.

        Raises:
            CheckpointError: they cannot be written.
        """
        save_model(self, path)

    @staticmethod
    def load(path: str | Path) -> WyckoffModel:
        """The model in a file of `save`.

        Raises:
            CheckpointError: the file is missing or of another kind.
        """
        return load_model(WyckoffModel(), path, "holds no model of Wyckoff letters; fit one, or use the shipped")

    @staticmethod
    @cache
    def shipped() -> WyckoffModel:
        """The model that comes with the package."""
        return WyckoffModel.load(WEIGHTS)


def _single(n: int, element: int, letter: str) -> Letters:
    return tuple((letter,) if e == element else () for e in range(n))


def _chemistry() -> np.ndarray:
    columns = np.stack(
        [elements.ELECTRONEGATIVITY, elements.RADIUS, elements.GROUP / 6, elements.ROW / 2, elements.METAL], axis=1
    )
    return (columns - columns.mean(0)) / columns.std(0)


def collate_assignments(
    entries: Sequence[tuple[WyckoffSite, Sequence[Letters], Room | None]], whole: bool = True
) -> AssignmentBatch:
    """One batch of crystals with their assignments; ``whole`` False leaves the features of assignments at zero."""
    features, numbers, places, crystals = [], [], [], []
    member_orbit, member_assignment, about, owner = [], [], [], []
    for b, (site, found, room) in enumerate(entries):
        offset = letter_offset(site.space_group)
        rank = {p.letter: i for i, p in enumerate(space_groups.WYCKOFF[site.space_group - 1])}
        seen: dict[tuple[int, str], int] = {}
        for letters in found:
            for e, element in enumerate(letters):
                for letter in element:
                    if (e, letter) not in seen:
                        seen[e, letter] = len(features)
                        features.append(orbit_features(site, e, letter, room))
                        numbers.append(site.species[e] - 1)
                        places.append(offset + rank[letter])
                        crystals.append(b)
                    member_orbit.append(seen[e, letter])
                    member_assignment.append(len(owner))
            about.append(assignment_features(site, letters, room) if whole else np.zeros(N_ASSIGNMENT))
            owner.append(b)
    return AssignmentBatch(
        orbit_features=torch.tensor(np.array(features), dtype=torch.float32),
        orbit_element=torch.tensor(numbers),
        orbit_letter=torch.tensor(places),
        orbit_crystal=torch.tensor(crystals),
        member_orbit=torch.tensor(member_orbit),
        member_assignment=torch.tensor(member_assignment),
        assignment_features=torch.tensor(np.array(about), dtype=torch.float32),
        owner=torch.tensor(owner),
        crystal_features=torch.tensor(
            np.array([crystal_features(site) for site, _, _ in entries]), dtype=torch.float32
        ),
    )
