"""Reads the table of space groups from pyxtal and spglib and writes data/groups.npz."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np

UNIT = 24  # translations in multiples of 1 / 24
CENTRING = {"P": 1, "A": 2, "B": 2, "C": 2, "I": 2, "R": 3, "F": 4}
POLAR_ENANTIOMORPHIC = {"1", "2", "3", "4", "6"}
POLAR = {"m", "mm2", "4mm", "3m", "6mm"}
ENANTIOMORPHIC = {"222", "422", "32", "622", "23", "432"}


def integer_operations(affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotations [n, 3, 3] and translations [n, 3] in 1 / 24 of affine matrices [n, 4, 4]; ValueError if not exact."""
    rotations = np.rint(affine[:, :3, :3]).astype(np.int64)
    translations = np.rint(affine[:, :3, 3] * UNIT).astype(np.int64)
    exact = np.abs(affine[:, :3, 3] * UNIT - translations).max() < 1e-6
    if not exact or np.abs(affine[:, :3, :3] - rotations).max() > 1e-6:
        raise ValueError("an operation is not integer in the unit of the table")
    return rotations, translations


def operation_set(rotations: np.ndarray, translations: np.ndarray) -> set[tuple[int, ...]]:
    """Operations as hashable tuples, translations modulo lattice vectors."""
    return {(*r.ravel().tolist(), *(t % UNIT).tolist()) for r, t in zip(rotations, translations, strict=True)}


def keeps_group(rotations: np.ndarray, translations: np.ndarray, basis: np.ndarray) -> bool:
    """Whether the unimodular change (a', b', c') = (a, b, c) ``basis`` keeps the set of operations.

    Shifts of the origin by multiples of 1 / 8 are allowed for.
    """
    inverse = np.rint(np.linalg.inv(basis)).astype(np.int64)
    moved_r = inverse @ rotations @ basis
    moved_t = translations @ inverse.T
    table: dict[tuple[int, ...], list[np.ndarray]] = {}
    for r, t in zip(rotations, translations, strict=True):
        table.setdefault(tuple(r.ravel().tolist()), []).append(t)
    shifts = np.array(list(itertools.product(range(8), repeat=3))) * (UNIT // 8)
    alive = np.ones(len(shifts), dtype=bool)
    for r, t in zip(moved_r, moved_t, strict=True):
        targets = table.get(tuple(r.ravel().tolist()))
        if targets is None:
            return False
        shifted = t + shifts @ (np.eye(3, dtype=np.int64) - r).T
        alive &= np.any([((shifted - target) % UNIT == 0).all(axis=1) for target in targets], axis=0)
    return bool(alive.any())


def axis_permutations(rotations: np.ndarray, translations: np.ndarray) -> list[bool]:
    """Which of the six axis permutations keep an orthorhombic group; signs of the axes are free, hands are kept."""
    found = []
    for permutation in itertools.permutations(range(3)):
        basis = np.zeros((3, 3), dtype=np.int64)
        basis[list(permutation), range(3)] = 1  # new axis i is old axis permutation[i]
        signed = [basis * np.array(signs) for signs in itertools.product((1, -1), repeat=3)]
        found.append(any(round(np.linalg.det(b)) == 1 and keeps_group(rotations, translations, b) for b in signed))
    return found


def monoclinic_reduction(rotations: np.ndarray, translations: np.ndarray) -> int:
    """The class of bases of the ac plane that keep a monoclinic group (see ``groups.MONOCLINIC_REDUCTION``)."""

    def keeps(ac: tuple[tuple[int, int], tuple[int, int]]) -> bool:
        (aa, ac_), (ca, cc) = ac  # a' = aa a + ac c, c' = ca a + cc c
        for b in (1, -1):
            basis = np.array([[aa, 0, ca], [0, b, 0], [ac_, 0, cc]])
            if keeps_group(rotations, translations, basis):
                return True
        return False

    a_plus_c, c_plus_a = keeps(((1, 1), (0, 1))), keeps(((1, 0), (1, 1)))
    a_plus_2c, c_plus_2a = keeps(((1, 2), (0, 1))), keeps(((1, 0), (2, 1)))
    exchange = keeps(((0, 1), (1, 0)))
    answer = {
        (True, True, True, True, True): 1,
        (True, False, True, True, False): 2,
        (False, True, True, True, False): 3,
    }.get((a_plus_c, c_plus_a, a_plus_2c, c_plus_2a, exchange))
    if answer is None:
        raise ValueError("a monoclinic group outside the three classes")
    return answer


def hall_number(number: int, operations: set[tuple[int, ...]]) -> int:
    """The Hall number whose operations are exactly these; ValueError if there is none."""
    import spglib

    for hall in range(1, 531):
        if spglib.get_spacegroup_type(hall).number != number:
            continue
        database = spglib.get_symmetry_from_database(hall)
        translations = np.rint(database["translations"] * UNIT).astype(np.int64)
        if operation_set(database["rotations"].astype(np.int64), translations) == operations:
            return hall
    raise ValueError(f"no Hall number has the operations of group {number}")


def crystal_lattice_system(number: int, symbol: str) -> int:
    """Index into ``groups.CRYSTAL_LATTICE_SYSTEMS``."""
    if 143 <= number <= 167:
        return 4 if symbol.startswith("R") else 5
    return int(np.searchsorted([2, 15, 74, 142, 142, 167, 194, 230], number))


def point_symmetry(point_group: str, rotations: np.ndarray) -> int:
    """Index into ``groups.POINT_SYMMETRIES``."""
    if (rotations == -np.eye(3)).all(axis=(1, 2)).any():
        return 0
    families = (POLAR_ENANTIOMORPHIC, POLAR, ENANTIOMORPHIC)
    return next((i for i, family in enumerate(families, start=1) if point_group in family), 4)


def build_groups(folder: Path) -> None:
    """Writes ``folder / "groups.npz"``."""
    import spglib
    from pyxtal.symmetry import Group

    table: dict[str, list] = {}

    def add(**values: object) -> None:
        for name, value in values.items():
            table.setdefault(name, []).append(value)

    orbit_rotations, orbit_translations = [], []
    for number in range(1, 231):
        group = Group(number)
        rotations, translations = integer_operations(np.array([op.affine_matrix for op in group[0].ops]))
        hall = hall_number(number, operation_set(rotations, translations))
        system = crystal_lattice_system(number, group.symbol)
        centring = CENTRING[group.symbol[0]]
        identity = [p == (0, 1, 2) for p in itertools.permutations(range(3))]
        add(
            symbol=group.symbol,
            crystal_lattice_system=system,
            point_symmetry=point_symmetry(spglib.get_spacegroup_type(hall).pointgroup_international, rotations),
            centring=centring,
            hall_number=hall,
            point_group_order=len(rotations) // centring,
            axis_permutations=axis_permutations(rotations, translations) if system == 2 else identity,
            monoclinic_reduction=monoclinic_reduction(rotations, translations) if system == 1 else 0,
        )
        for position in reversed(group.Wyckoff_positions):
            orbit = integer_operations(np.array([op.affine_matrix for op in position.ops]))
            orbit_rotations.append(orbit[0])
            orbit_translations.append(orbit[1])
            add(
                wyckoff_group=number - 1,
                wyckoff_letter=position.letter,
                wyckoff_multiplicity=position.multiplicity,
                wyckoff_n_free=int(np.linalg.matrix_rank(orbit[0][0])),
            )
    np.savez_compressed(
        folder / "groups.npz",
        rotations=np.concatenate(orbit_rotations).astype(np.int8),
        translations=np.concatenate(orbit_translations).astype(np.int8),
        **{name: np.array(values) for name, values in table.items()},
    )
