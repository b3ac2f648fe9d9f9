r"""The fundamental domain of the lattice parameters of every group, and the maps into it.

A crystal has many conventional cells. One is kept:

* triclinic: Niggli-reduced, all angles below 90 (type I) or all at least 90 (type II);
* monoclinic, unique axis b, beta >= 90, and (a, c) reduced by the basis changes that keep the group's symbol;
* orthorhombic: axes ordered by the permutations that keep the group's operations (`groups.AXIS_PERMUTATIONS`);
* tetragonal, hexagonal axes, cubic: the conventional cell is unique.

Lengths enter as logarithms: u = ln(a/b), v = ln(b/c), t = u + v = ln(a/c), and the volume. All rules above are then
bounds on u, v and t at given angles, except the last Niggli condition of type II.

What remains: enantiomorphic and affine equivalences that permute Wyckoff positions only, and special lattices on the
boundary of the domain (measure zero).
"""

from __future__ import annotations

import itertools

import numpy as np
import torch

from crystalgfn.crystallography import space_groups
from crystalgfn.errors import InvalidCrystal
from crystalgfn.typing import Booleans, Floats, Integers, Lattices, Vectors

KINDS = ("triclinic", "monoclinic", "orthorhombic", "tetragonal", "hexagonal", "cubic")
TRICLINIC, MONOCLINIC, ORTHORHOMBIC, TETRAGONAL, HEXAGONAL, CUBIC = range(6)
#: Lattice kind of each group, [230]; R groups are on hexagonal axes.
KIND = np.array([0, 1, 2, 3, 4, 4, 4, 5])[np.asarray(space_groups.CRYSTAL_LATTICE_SYSTEM)]
#: The length that each of a, b, c follows, and the free angles, for each kind of lattice.
FOLLOWS = ((0, 1, 2), (0, 1, 2), (0, 1, 2), (0, 0, 2), (0, 0, 2), (0, 0, 0))
FREE_ANGLES = ((1, 1, 1), (0, 1, 0), (0, 0, 0), (0, 0, 0), (0, 0, 0), (0, 0, 0))


def _order_bounds() -> np.ndarray:
    """Upper bounds 0 (else inf) on u, v, t that order the axes of each group, [230, 3]."""
    bounds = np.full((230, 3), np.inf)
    permutations = list(itertools.permutations(range(3)))
    rules = {
        (): (),
        ((1, 0, 2),): (0,),
        ((0, 2, 1),): (1,),
        ((2, 1, 0),): (2,),
        ((1, 2, 0), (2, 0, 1)): (0, 2),  # cyclic: a is the shortest
    }
    for i in np.flatnonzero(KIND == ORTHORHOMBIC):
        kept = [
            p
            for p, keep in zip(permutations, space_groups.AXIS_PERMUTATIONS[i], strict=True)
            if keep and p != (0, 1, 2)
        ]
        columns = (0, 1) if len(kept) == 5 else rules[tuple(sorted(kept))]
        bounds[i, list(columns)] = 0.0
    return bounds


ORDER_BOUNDS = _order_bounds()


def volume_factor(cosines: torch.Tensor) -> torch.Tensor:
    """w = V / (abc) from the cosines of alpha, beta, gamma, [..., 3] -> [...]."""
    p, q, r = cosines.unbind(-1)
    return (1 - p * p - q * q - r * r + 2 * p * q * r).clamp_min(0).sqrt()


def cell_volume(lattice: Lattices) -> Floats:
    """Volume in Å3 of cells given as a, b, c, alpha, beta, gamma, [B, 6] -> [B]."""
    return lattice[:, :3].prod(1) * volume_factor(cosine_of(lattice[:, 3:]))


def metric(lattice: Lattices) -> torch.Tensor:
    """Metric tensors of cells, Å2, [B, 6] -> [B, 3, 3]."""
    a, b, c = lattice[:, :3].unbind(1)
    p, q, r = cosine_of(lattice[:, 3:]).unbind(1)
    rows = [a * a, a * b * r, a * c * q, a * b * r, b * b, b * c * p, a * c * q, b * c * p, c * c]
    return torch.stack(rows, 1).reshape(-1, 3, 3)


def deform(space_group: Integers, lattice: Lattices, stretch: Vectors, turn: Vectors) -> Lattices:
    """Cells of the same lattice systems with other lengths and angles, [B, 6]; what the group fixes stays fixed.

    ``stretch`` [B, 3] is added to the logarithms of the lengths, where equal ones take that of the first; ``turn``
    [B, 3] to the free angles, degrees.
    """
    kind = torch.as_tensor(KIND, device=lattice.device)[space_group - 1]
    follows = torch.tensor(FOLLOWS, device=lattice.device)[kind]
    free = torch.tensor(FREE_ANGLES, device=lattice.device).bool()[kind]
    lengths = lattice[:, :3].gather(1, follows) * stretch.gather(1, follows).exp()
    return torch.cat([lengths, torch.where(free, lattice[:, 3:] + turn, lattice[:, 3:])], 1)


def cosine_of(angles: torch.Tensor) -> torch.Tensor:
    """Cosines of angles in degrees, exactly 0 at 90 and -1/2 at 120."""
    cosine = torch.cos(torch.deg2rad(angles))
    return torch.where(angles == 90, 0.0, torch.where(angles == 120, -0.5, cosine))


def monoclinic_ratio_bounds(k: torch.Tensor, reduction: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Bounds on t = ln(a/c) at k = -cos(beta) for the reduction type 1, 2 or 3 of the group.

    Type 1 allows every basis of the ac plane (Gauss-reduced, a <= c); types 2 and 3 are the fundamental domain of
    Gamma_0(2), with c-glides (2k <= c/a, k <= a/c) or C centring (2k <= a/c, k <= c/a).
    """
    log_k, log_2k = torch.log(k), torch.log(2 * k)
    low = torch.where(reduction == 2, log_k, log_2k)
    high = torch.where(reduction == 1, 0.0, torch.where(reduction == 2, -log_2k, -log_k))
    return low, high


def in_domain(space_group: Integers, lattice: Lattices, length: float = 1e-3, angle: float = 0.01) -> Booleans:
    """Whether cells [B, 6] are in the fundamental domain of their groups [B], bool [B].

    Lengths may miss it by the relative tolerance ``length``, angles by ``angle`` degrees.
    """
    kind = torch.tensor(KIND, device=lattice.device)[space_group - 1]
    a, b, c, alpha, beta, gamma = lattice.double().unbind(1)
    u, v = torch.log(a / b), torch.log(b / c)
    right = [(x - 90).abs() <= angle for x in (alpha, beta, gamma)]
    equal_ab, equal_bc = u.abs() <= 2 * length, v.abs() <= 2 * length
    hexagonal = right[0] & right[1] & ((gamma - 120).abs() <= angle) & equal_ab
    orthogonal = right[0] & right[1] & right[2]
    bounds = torch.tensor(ORDER_BOUNDS, device=lattice.device)[space_group - 1] + 2 * length
    ordered = (torch.stack([u, v, u + v], 1) <= bounds).all(1)
    slack = 2 * length + np.radians(angle)
    table = [
        _niggli(lattice.double(), length, angle),
        right[0] & right[2] & (beta >= 90 - angle) & _monoclinic(space_group, u + v, beta, slack),
        orthogonal & ordered,
        orthogonal & equal_ab,
        hexagonal,
        orthogonal & equal_ab & equal_bc,
    ]
    return torch.stack(table, 1).gather(1, kind[:, None]).squeeze(1)


def _monoclinic(space_group: torch.Tensor, t: torch.Tensor, beta: torch.Tensor, slack: float) -> torch.Tensor:
    reduction = torch.tensor(space_groups.MONOCLINIC_REDUCTION, device=t.device)[space_group - 1]
    # multiplied out, so that the tolerance means the same near beta = 90, where the logarithms diverge
    k = -cosine_of(beta)
    low = torch.where(reduction == 2, k, 2 * k)
    high = torch.where(reduction == 2, 2 * k, k)
    ratio = torch.exp(t)
    ordered = torch.where(reduction == 1, ratio <= 1 + slack, high * ratio <= 1 + slack)
    return (low <= ratio * (1 + slack) + slack) & ordered


def _niggli(lattice: torch.Tensor, length: float, angle: float) -> torch.Tensor:
    a, b, c = lattice[:, :3].unbind(1)
    angles = lattice[:, 3:]
    one = (angles <= 90 + angle).all(1)
    two = (angles >= 90 - angle).all(1)
    p, q, r = cosine_of(angles).abs().unbind(1)
    slack = 1 + 2 * length
    extra = np.radians(angle)
    reduced = (a <= b * slack) & (b <= c * slack) & (2 * p * c <= b * slack + 2 * extra * c)
    reduced &= (2 * q * c <= a * slack + 2 * extra * c) & (2 * r * b <= a * slack + 2 * extra * b)
    total = 2 * (b * c * p + a * c * q + a * b * r)
    short = total <= (a * a + b * b) * slack + 2 * extra * (b * c + a * c + a * b)
    return reduced & (one | (two & short))


def canonical_lattice(space_group: int, lattice: np.ndarray) -> np.ndarray:
    """The cell of the fundamental domain that describes the same lattice of a group, float64 [6] -> [6]."""
    kind = KIND[space_group - 1]
    a, b, c, alpha, beta, gamma = (float(x) for x in lattice)
    if kind == TRICLINIC:
        return _niggli_cell(lattice)
    if kind == MONOCLINIC:
        a, c, beta = _reduce_plane(
            a, c, np.cos(np.radians(beta)), int(space_groups.MONOCLINIC_REDUCTION[space_group - 1])
        )
        return np.array([a, b, c, 90, beta, 90])
    if kind == ORTHORHOMBIC:
        lengths = np.array([a, b, c])
        kept = space_groups.AXIS_PERMUTATIONS[space_group - 1]
        candidates = [lengths[list(p)] for p, keep in zip(itertools.permutations(range(3)), kept, strict=True) if keep]
        inside = [x for x in candidates if _ordered(x, ORDER_BOUNDS[space_group - 1])]
        return np.array([*inside[0], 90, 90, 90])
    mean = np.sqrt(a * b)
    if kind == CUBIC:
        mean = c = (a * b * c) ** (1 / 3)
    return np.array([mean, mean, c, 90, 90, 120 if kind == HEXAGONAL else 90])


def _ordered(lengths: np.ndarray, bounds: np.ndarray) -> bool:
    a, b, c = np.log(lengths)
    return bool((np.array([a - b, b - c, a - c]) <= bounds + 1e-12).all())


def _reduce_plane(a: float, c: float, cosine: float, reduction: int) -> tuple[float, float, float]:
    """Reduce the basis (a, c) of the plane by the steps its reduction type allows; a, c, beta >= 90."""
    first = np.array([a, 0.0])
    second = c * np.array([cosine, np.sqrt(max(0.0, 1 - cosine * cosine))])
    step_first = 2 if reduction == 3 else 1  # a may take multiples of this many c
    step_second = 2 if reduction == 2 else 1
    for _ in range(1000):
        before = (first.copy(), second.copy())
        n = _nearest(float(first @ second / (second @ second)), step_first)
        first = first - n * second
        n = _nearest(float(first @ second / (first @ first)), step_second)
        second = second - n * first
        if reduction == 1 and first @ first > second @ second * (1 + 1e-12):
            first, second = second, first
        if np.array_equal(before[0], first) and np.array_equal(before[1], second):
            break
    lengths = np.linalg.norm(first), np.linalg.norm(second)
    cosine = min(1.0, float(abs(first @ second) / (lengths[0] * lengths[1])))
    return float(lengths[0]), float(lengths[1]), float(180 - np.degrees(np.arccos(cosine)))


def _nearest(x: float, step: int) -> float:
    """The nearest multiple of step to x, staying at 0 on ties (so that a reduced basis is a fixed point)."""
    n = np.round(x / step)
    return step * n if abs(x) > step / 2 * (1 + 1e-9) else 0.0


def _niggli_cell(lattice: np.ndarray) -> np.ndarray:
    import spglib
    from pymatgen.core import Lattice

    if not np.isfinite(lattice).all():
        raise InvalidCrystal(f"the lattice {np.asarray(lattice).tolist()} is not six finite numbers")
    matrix = Lattice.from_parameters(*lattice).matrix
    reduced = spglib.niggli_reduce(matrix, eps=1e-7)
    cell = np.array(Lattice(matrix if reduced is None else reduced).parameters)
    near = np.abs(cell[3:] - 90) < 1e-4  # right angles belong to type II
    if (cell[3:][~near] >= 90).all():
        cell[3:] = np.where(near, np.maximum(cell[3:], 90.0), cell[3:])
    return cell
