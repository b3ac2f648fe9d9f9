"""A batch of crystals as dense tensors over their orbits and over the atoms of their primitive cells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch

from crystalgfn.crystallography.lattice import CUBIC, HEXAGONAL, KIND, MONOCLINIC, TETRAGONAL, TRICLINIC
from crystalgfn.crystallography.lattice_vectors import cells_of, lattices_of, log_metric_of, restricted
from crystalgfn.crystallography.orbits import Orbit, OrbitStructure, free_orbit, polar_directions
from crystalgfn.crystallography.supergroups import primitive_basis
from crystalgfn.errors import PlacementError
from crystalgfn.typing import Cells, Integers, LogMetrics, OfAtoms, OfOrbits
from crystalgfn.utils.progress import Bar


@dataclass(frozen=True, kw_only=True)
class OrbitBatch:
    """Crystals with O orbits and N atoms a primitive cell at most; the first axis of every tensor is the batch.

    Places beyond a crystal's own orbits and atoms are filled with zeros, masked, and never change a result.
    """

    space_group: torch.Tensor  # ITA numbers [B]
    log_metric: torch.Tensor  # lattice as coefficients k of `lattice_basis` [B, 6]
    primitive: torch.Tensor  # rows of the primitive cell in units of the conventional one [B, 3, 3]
    species: torch.Tensor  # atomic numbers of the orbits, 0 beyond the last [B, O]
    multiplicity: torch.Tensor  # atoms of the orbits in the primitive cell, 0 beyond the last [B, O]
    letter: torch.Tensor  # of the Wyckoff positions, 0 for a [B, O]
    free: torch.Tensor  # free coordinates u, of period 1 [B, O, 3]
    free_mask: torch.Tensor  # which of them there are [B, O, 3]
    inverse: torch.Tensor  # from a displacement of the representative (primitive) to that of u [B, O, 3, 3]
    polar: torch.Tensor  # orthonormal joint displacements of u, on the last axis, that shift the origin [B, O, 3, 3]
    orbit: torch.Tensor  # of each atom [B, N]
    atom_mask: torch.Tensor  # [B, N]
    linear: torch.Tensor  # from u of its orbit to the primitive coordinates of each atom [B, N, 3, 3]
    shift: torch.Tensor  # of each atom [B, N, 3]

    @classmethod
    def of(cls, structures: Sequence[OrbitStructure], dtype: torch.dtype = torch.float32) -> OrbitBatch:
        """The batch of some structures.

        Raises:
            PlacementError: a structure without an orbit, or a lattice that is not one of the group's lattice system.
        """
        for i, structure in enumerate(structures):
            check_orbits(structure, i)
        b = len(structures)
        o = max((len(s.orbits) for s in structures), default=0)
        n = max((sum(s.composition.values()) for s in structures), default=0)
        kinds = {"species": int, "multiplicity": int, "letter": int, "free_mask": bool, "orbit": int, "atom_mask": bool}
        shapes = {
            "primitive": (3, 3), "species": (o,), "multiplicity": (o,), "letter": (o,), "free": (o, 3),
            "free_mask": (o, 3), "inverse": (o, 3, 3), "polar": (o, 3, 3), "orbit": (n,), "atom_mask": (n,),
            "linear": (n, 3, 3), "shift": (n, 3),
        }  # fmt: skip
        arrays = {name: np.zeros((b, *shape), dtype=kinds.get(name, float)) for name, shape in shapes.items()}
        for i, structure in enumerate(structures):
            _fill({name: array[i] for name, array in arrays.items()}, structure)
        groups = torch.tensor([s.space_group for s in structures], dtype=torch.int64)
        metric = torch.from_numpy(log_metric_of(np.array([s.lattice for s in structures]).reshape(-1, 6)))
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        tensors = {name: x.to(dtype) if x.is_floating_point() else x for name, x in tensors.items()}
        return cls(space_group=groups, log_metric=restricted(groups, metric).to(dtype), **tensors)

    def __len__(self) -> int:
        return len(self.space_group)

    def __getitem__(self, rows: torch.Tensor | slice) -> OrbitBatch:
        """Some of the crystals, with no more padding than they need."""
        part = OrbitBatch(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})
        o = int((part.species > 0).sum(1).max()) if len(part) else 0
        n = int(part.atom_mask.sum(1).max()) if len(part) else 0
        return part.padded(o, n)

    def padded(self, orbits: int, atoms: int) -> OrbitBatch:
        """The same crystals with room for so many orbits and atoms."""
        sizes = dict.fromkeys(("species", "multiplicity", "letter", "free", "free_mask", "inverse", "polar"), orbits)
        sizes |= dict.fromkeys(("orbit", "atom_mask", "linear", "shift"), atoms)
        return replace(self, **{name: _resized(getattr(self, name), size) for name, size in sizes.items()})

    def to(self, device: torch.device | str) -> OrbitBatch:
        """The same crystals on a device."""
        return OrbitBatch(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})

    def at(self, free: OfOrbits | None = None, log_metric: LogMetrics | None = None) -> OrbitBatch:
        """The same orbits at other coordinates, in other lattices."""
        moved = self if free is None else replace(self, free=torch.where(self.free_mask, free % 1.0, 0.0))
        return moved if log_metric is None else replace(moved, log_metric=restricted(self.space_group, log_metric))

    @property
    def n_atoms(self) -> Integers:
        """Atoms in each primitive cell, [B]."""
        return self.atom_mask.sum(1)

    @property
    def orbit_mask(self) -> torch.Tensor:
        """Which orbits there are, bool [B, O]."""
        return self.species > 0

    @property
    def first(self) -> torch.Tensor:
        """Index of the representative atom of each orbit, [B, O]."""
        return (self.multiplicity.cumsum(1) - self.multiplicity).clamp_max(max(self.atom_mask.shape[1] - 1, 0))

    def cells(self) -> Cells:
        """Rows of the primitive cells in Å, in the frame where the conventional cell is symmetric, [B, 3, 3]."""
        return self.primitive @ cells_of(self.log_metric)

    def points(self) -> OfAtoms:
        """Primitive coordinates of all atoms, differentiable in ``free`` and not wrapped, [B, N, 3]."""
        return torch.einsum("bnij,bnj->bni", self.linear, self.of_atoms(self.free)) + self.shift

    def of_atoms(self, values: torch.Tensor) -> torch.Tensor:
        """The value of its orbit for each atom, [B, O, ...] -> [B, N, ...]."""
        index = self.orbit.reshape(*self.orbit.shape, *(1,) * (values.dim() - 2))
        return values.gather(1, index.expand(-1, -1, *values.shape[2:]))

    def representatives(self) -> tuple[OfAtoms, torch.Tensor]:
        """The coordinates u that each atom gives its orbit as its representative, [B, N, 3], and which atoms can be it.

        An atom can where its position, whatever u, is one that the representative takes at another u: all atoms of a
        general position, those on the same line, plane or point of a special one. The second is bool [B, O, N].
        """
        own = self.of_atoms(torch.arange(self.species.shape[1], device=self.free.device).expand_as(self.species))
        first = self.first.gather(1, own)
        linear = self.linear.gather(1, first[..., None, None].expand_as(self.linear))
        shift = self.shift.gather(1, first[..., None].expand_as(self.shift))
        inverse = self.of_atoms(self.inverse)
        turn = inverse @ self.linear
        step = torch.einsum("bnij,bnj->bni", inverse, self.shift - shift)
        left = torch.einsum("bnij,bnj->bni", linear, step) + shift - self.shift
        same = ((linear @ turn - self.linear).abs().amax((2, 3)) < 1e-3) & ((left - left.round()).abs().amax(2) < 1e-3)
        among = (own[:, None] == torch.arange(self.species.shape[1], device=own.device)[:, None]) & self.atom_mask[
            :, None
        ]
        return torch.einsum("bnij,bnj->bni", turn, self.of_atoms(self.free)) + step, among & same[:, None]

    def without_drift(self, field: OfOrbits) -> OfOrbits:
        """A field on the free coordinates without its part that only moves the origin of a polar group."""
        polar = self.polar.to(field.dtype)
        drift = torch.einsum("boik,boi->bk", polar, field)
        return field - torch.einsum("boik,bk->boi", polar, drift)

    def structures(self) -> list[OrbitStructure]:
        """The crystals as orbits again."""
        lattices = lattices_of(self.space_group, self.log_metric)
        free = self.free.double().cpu().numpy()
        groups, letters, species = (x.cpu().tolist() for x in (self.space_group, self.letter, self.species))
        result = []
        for i, group in enumerate(groups):
            orbits = []
            for letter, z, u in zip(letters[i], species[i], free[i], strict=True):
                if z:
                    name = chr(ord("a") + letter) if letter < 26 else "A"
                    orbits.append(Orbit(name, z, tuple((free_orbit(group, name).to_parameters @ u).tolist())))
            result.append(OrbitStructure(group, tuple(lattices[i].tolist()), tuple(orbits)))
        return result


def check_orbits(structure: OrbitStructure, i: int) -> None:
    """PlacementError where structure number ``i`` cannot be in a batch."""
    if not structure.orbits:
        raise PlacementError(f"structure {i} has no orbit; give at least one letter")
    if any(orbit.occupancy != 1 for orbit in structure.orbits):
        raise PlacementError(f"structure {i} has partly occupied orbits; only full occupancies can be refined")
    if not np.isfinite([*structure.lattice, *(x for o in structure.orbits for x in o.parameters)]).all():
        raise PlacementError(f"structure {i} has coordinates or a lattice that are not finite; give numbers")
    if (wrong := lattice_fault(structure.space_group, structure.lattice)) is not None:
        raise PlacementError(f"structure {i}: {wrong}")


LENGTHS = (0.3, 1000.0)
"""Å, of the edges of a cell."""
FLATTEST = 1e-3
"""Volume of a cell over the product of its edges, at least."""


def lattice_fault(space_group: int, lattice: Sequence[float]) -> str | None:
    """Why conventional cell parameters are none of a space group, in a sentence; None where they are."""
    if not np.isfinite(lattice).all():
        return f"the lattice {', '.join(map(str, lattice))} is not a cell; give finite numbers"
    a, b, c, alpha, beta, gamma = lattice
    words = ", ".join(f"{x:g}" for x in lattice)
    if not all(LENGTHS[0] <= x <= LENGTHS[1] for x in (a, b, c)):
        return f"the lattice {words} is not a cell; edges are from {LENGTHS[0]:g} to {LENGTHS[1]:g} Å"
    x, y, z = np.cos(np.radians([alpha, beta, gamma]))
    if not all(0 < angle < 180 for angle in (alpha, beta, gamma)) or (
        1 - x * x - y * y - z * z + 2 * x * y * z <= FLATTEST**2
    ):
        return f"the lattice {words} is not a cell; its angles leave no volume"
    kind = KIND[space_group - 1]
    unlike = {TETRAGONAL: [(a, b)], HEXAGONAL: [(a, b)], CUBIC: [(a, b), (b, c)]}.get(kind, [])
    right = {
        TRICLINIC: (), MONOCLINIC: (alpha, gamma), HEXAGONAL: (alpha, beta, gamma - 30),
    }.get(kind, (alpha, beta, gamma))  # fmt: skip
    if any(abs(one - other) > 1e-2 * one for one, other in unlike) or any(abs(angle - 90) > 0.5 for angle in right):
        return (
            f"the lattice {words} is not one of the lattice system of space group {space_group}; give one that is, in "
            "its conventional setting"
        )
    return None


def _fill(row: dict[str, np.ndarray], structure: OrbitStructure) -> None:
    """One crystal's part of the arrays."""
    row["primitive"][:] = primitive_basis(structure.space_group)
    directions = polar_directions(structure.space_group)
    at = 0
    for i, orbit in enumerate(structure.orbits):
        way = free_orbit(structure.space_group, orbit.letter)
        m, n = len(way.linear), way.n_free
        row["species"][i], row["multiplicity"][i] = orbit.species, m
        row["letter"][i] = 26 if orbit.letter == "A" else ord(orbit.letter) - ord("a")
        row["free"][i] = (way.from_parameters @ np.array(orbit.parameters)) % 1.0
        row["free_mask"][i, :n] = True
        row["inverse"][i, :n] = way.inverse[:n]
        row["polar"][i, :n, : directions.shape[1]] = way.inverse[:n] @ directions
        row["orbit"][at : at + m], row["atom_mask"][at : at + m] = i, True
        row["linear"][at : at + m], row["shift"][at : at + m] = way.linear, way.shift
        at += m
    k = directions.shape[1]
    flat = row["polar"].reshape(-1, 3)
    flat[:, :k] = np.linalg.qr(flat[:, :k])[0]


def _resized(tensor: torch.Tensor, size: int) -> torch.Tensor:
    """Cut or filled with zeros along its second axis."""
    if tensor.shape[1] >= size:
        return tensor[:, :size]
    return torch.cat([tensor, tensor.new_zeros(len(tensor), size - tensor.shape[1], *tensor.shape[2:])], 1)


PAIRS = {"cpu": 6_000, "cuda": 600_000}
"""Pairs of a representative and an atom that are in one batch, at most."""


def bucket_by_size(
    structures: Sequence[OrbitStructure], rows: Sequence[int], device: str, progress: str | None = None
) -> Iterator[list[int]]:
    """Rows of structures in parts of about one size that fit a batch on this type of device, with little padding.

    ``progress`` is what a bar is called; None: no bar.
    """
    sizes = {i: (len(structures[i].orbits), sum(structures[i].composition.values())) for i in rows}
    ordered = sorted(rows, key=lambda i: sizes[i][0] * sizes[i][1])
    most = PAIRS["cuda" if device == "cuda" else "cpu"]
    with Bar(total=len(rows), description=progress, unit="structures", shown=progress is not None) as bar:
        while ordered:
            part, orbits, atoms = [], 0, 0
            for i in ordered:
                orbits, atoms = max(orbits, sizes[i][0]), max(atoms, sizes[i][1])
                if part and (len(part) + 1) * orbits * atoms > most:
                    break
                part.append(i)
            ordered = ordered[len(part) :]
            yield part
            bar.update(len(part))
