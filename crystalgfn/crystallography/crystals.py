"""A batch of crystals: space group, composition and lattice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from math import gcd
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from crystalgfn.crystallography import elements, space_groups
from crystalgfn.crystallography.lattice import canonical_lattice, cell_volume
from crystalgfn.crystallography.symmetry import is_sound, standard_lattice, standard_symmetry
from crystalgfn.errors import DataError, InvalidCrystal, check_kind
from crystalgfn.typing import DENSITY_UNIT, Doubles, Floats, Integers
from crystalgfn.utils.plain import Plain
from crystalgfn.utils.tables import notebook_table

if TYPE_CHECKING:
    import pandas as pd
    from pymatgen.core import Structure


@dataclass(frozen=True, repr=False)
class Crystals(Plain):
    """Crystals as tensors, batch first.

    Attributes:
        space_group: ITA numbers 1-230, int64 [B].
        composition: atoms per primitive cell, column Z - 1, int64 [B, 118].
        lattice: conventional a, b, c (Å) and alpha, beta, gamma (degrees), floating point [B, 6].

    Raises:
        InvalidCrystal: shapes, dtypes or devices that do not go together.

    Example:
        >>> composition = torch.zeros(1, 118, dtype=torch.int64)
        >>> composition[0, [10, 16]] = 1
        >>> salt = Crystals(torch.tensor([225]), composition, torch.tensor([[5.64, 5.64, 5.64, 90.0, 90.0, 90.0]]))
        >>> salt.formulas(), round(float(salt.density[0]), 2)
        (['NaCl'], 2.16)
    """

    space_group: torch.Tensor
    composition: torch.Tensor
    lattice: torch.Tensor

    def __post_init__(self) -> None:
        for one in (self.space_group, self.composition, self.lattice):
            if not isinstance(one, torch.Tensor):
                raise InvalidCrystal(f"crystals are made of tensors, got a {type(one).__name__}; use torch.as_tensor")
        n = self.space_group.shape[0] if self.space_group.ndim == 1 else -1
        if n < 0 or self.composition.shape != (n, 118) or self.lattice.shape != (n, 6):
            raise InvalidCrystal(
                "crystals need space_group [B], composition [B, 118] and lattice [B, 6], got "
                f"{list(self.space_group.shape)}, {list(self.composition.shape)} and {list(self.lattice.shape)}"
            )
        self._check_dtypes()

    def _check_dtypes(self) -> None:
        if self.space_group.dtype != torch.int64 or self.composition.dtype != torch.int64:
            raise InvalidCrystal(
                f"space_group and composition must be int64, got {self.space_group.dtype} and {self.composition.dtype}"
            )
        if not self.lattice.dtype.is_floating_point:
            raise InvalidCrystal(f"lattice must be a floating-point tensor, got {self.lattice.dtype}")

    def __len__(self) -> int:
        return self.space_group.shape[0]

    def __getitem__(self, index: int | slice | torch.Tensor | np.ndarray | Sequence[int]) -> Crystals:
        """The crystals at ``index``, always a batch (an integer gives a batch of one)."""
        if isinstance(index, (int, np.integer)):
            if not -len(self) <= index < len(self):
                raise IndexError(f"crystal {index} of {len(self)}")
            index = slice(index, index + 1 or None)
        elif not isinstance(index, (slice, torch.Tensor)):
            index = torch.as_tensor(np.asarray(index), device=self.space_group.device)
        return Crystals(self.space_group[index], self.composition[index], self.lattice[index])

    def __iter__(self) -> Iterator[Crystals]:
        return (self[i] for i in range(len(self)))

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.space_group.device

    def to(self, device: torch.device | str) -> Crystals:
        """The same crystals on ``device``."""
        return Crystals(self.space_group.to(device), self.composition.to(device), self.lattice.to(device))

    def as_dict(self) -> dict[str, Any]:
        """For JSON: a dictionary for each crystal, and the precision of the lattices."""
        rows = zip(self.space_group.tolist(), self.composition.cpu(), self.lattice.tolist(), strict=True)
        own = [
            {
                "space_group": n,
                "counts": {elements.SYMBOLS[z]: row[z].item() for z in row.nonzero()[:, 0].tolist()},
                "lattice": cell,
            }
            for n, row, cell in rows
        ]
        return {**self.kind(), "dtype": str(self.lattice.dtype).removeprefix("torch."), "crystals": own}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The crystals of `as_dict`.

        Raises:
            DataError: it is none.
        """
        try:
            rows, dtype = content["crystals"], getattr(torch, content["dtype"])
            amounts = torch.int64 if cls is Crystals else torch.float64
            composition = torch.zeros(len(rows), 118, dtype=amounts)
            for i, row in enumerate(rows):
                for symbol, n in row["counts"].items():
                    composition[i, elements.NUMBER[symbol] - 1] = n
            groups = torch.tensor([row["space_group"] for row in rows], dtype=torch.int64)
            lattice = torch.tensor([row["lattice"] for row in rows], dtype=dtype).reshape(-1, 6)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise DataError(f"this is no {cls.__name__} ({error}); give what as_dict made") from error
        return cls(groups, composition, lattice)

    def __repr__(self) -> str:
        first = ", ".join(
            f"{one} {n}" for one, n in zip(self[:3].formulas(), self.space_group[:3].tolist(), strict=True)
        )
        return f"{type(self).__name__}({len(self)}: {first}{', ...' * (len(self) > 3)})"

    def _repr_html_(self) -> str:
        return f"<p>{len(self)} crystals</p>{notebook_table(self.to_pandas())}"

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The tensors of a checkpoint, compositions as int16."""
        return {
            "space_group": self.space_group, "composition": self.composition.to(torch.int16), "lattice": self.lattice,
        }  # fmt: skip

    @staticmethod
    def from_state_dict(state: dict[str, torch.Tensor]) -> Crystals:
        """The crystals of `state_dict`; further entries are passed over."""
        return Crystals(state["space_group"], state["composition"].long(), state["lattice"])

    @staticmethod
    def of_rows(
        space_groups: Sequence[int],
        compositions: Sequence[np.ndarray],
        lattices: Sequence[Sequence[float] | np.ndarray],
    ) -> Crystals:
        """Crystals of group numbers, atoms of each element per primitive cell [118] and cells [6], a row a crystal."""
        return Crystals(
            torch.tensor(space_groups, dtype=torch.int64),
            torch.from_numpy(np.array(compositions, dtype=np.int64).reshape(-1, 118)),
            torch.from_numpy(np.array(lattices, dtype=np.float64).reshape(-1, 6)),
        )

    @staticmethod
    def cat(batches: Sequence[Crystals]) -> Crystals:
        """One batch of several, in order."""
        check_kind("batches", batches, (list, tuple), "a list of Crystals", InvalidCrystal)
        if not batches:
            raise InvalidCrystal("Crystals.cat needs at least one batch")
        return Crystals(
            torch.cat([b.space_group for b in batches]),
            torch.cat([b.composition for b in batches]),
            torch.cat([b.lattice for b in batches]),
        )

    @property
    def n_atoms(self) -> Integers:
        """Atoms per primitive cell, int64 [B]."""
        return self.composition.sum(1)

    @property
    def n_elements(self) -> Integers:
        """Different elements, int64 [B]."""
        return (self.composition > 0).sum(1)

    @property
    def centring(self) -> Integers:
        """Lattice points per conventional cell (P 1; A, B, C, I 2; R 3; F 4), int64 [B]; 0 for no known space group."""
        known = (self.space_group >= 1) & (self.space_group <= 230)
        centring = torch.tensor(space_groups.CENTRING, device=self.device)[(self.space_group - 1).clamp(0, 229)].long()
        return torch.where(known, centring, 0)

    @property
    def volume(self) -> Floats:
        """Volume of the conventional cell in Å3, [B]."""
        return cell_volume(self.lattice)

    @property
    def volume_per_atom(self) -> Floats:
        """Å3 per atom, [B]; NaN for no known space group."""
        return self.volume / (self.n_atoms * self._known_centring)

    @property
    def mass(self) -> Floats:
        """Mass of the primitive cell in u, [B]."""
        masses = torch.tensor(elements.MASS, device=self.device).to(self.lattice.dtype)
        return self.composition.to(self.lattice.dtype) @ masses

    @property
    def density(self) -> Floats:
        """g/cm3, [B]; NaN for no known space group."""
        return DENSITY_UNIT * self.mass * self._known_centring / self.volume

    @property
    def _known_centring(self) -> torch.Tensor:
        """`centring`, with NaN in place of 0 where it is needed."""
        centring = self.centring
        return centring if bool((centring > 0).all()) else torch.where(centring > 0, centring, torch.nan)

    def counts(self, i: int) -> dict[str, int]:
        """Element symbol -> atoms per primitive cell of crystal ``i``, by atomic number."""
        return {elements.SYMBOLS[z]: n for z, n in enumerate(self.composition[i].tolist()) if n}

    def formulas(self) -> list[str]:
        """Reduced formulas, elements by electronegativity as chemists write them."""
        return [_formula(row) for row in self.composition.cpu().numpy()]

    def to_pandas(self) -> pd.DataFrame:
        """A table: one row per crystal, one column per parameter."""
        import pandas as pd

        lattice = self.lattice.detach().cpu().numpy()
        number = self.space_group.cpu().numpy()
        return pd.DataFrame(
            {
                "formula": self.formulas(),
                "space_group": number,
                "symbol": [space_groups.SYMBOL[n - 1] if 1 <= n <= 230 else None for n in number],
                **dict(zip(("a", "b", "c", "alpha", "beta", "gamma"), lattice.T, strict=True)),
                "n_atoms": self.n_atoms.cpu().numpy(),
                "volume_per_atom": self.volume_per_atom.detach().cpu().numpy(),
                "density": self.density.detach().cpu().numpy(),
            }
        )

    @staticmethod
    def from_structures(structures: Sequence[Structure], symprec: float = 0.1) -> Crystals:
        """Crystals of pymatgen structures: group found by spglib, lattice mapped into the fundamental domain.

        Args:
            structures: ordered structures with elements up to Z = 118.
            symprec: tolerance of spglib in Å (MP-20's own convention is 0.1).

        Raises:
            InvalidCrystal: a disordered structure, or one in which spglib finds no group; names its position.
        """
        if not isinstance(structures, Iterable) or hasattr(structures, "frac_coords"):
            raise InvalidCrystal(f"{type(structures).__name__} is no list of structures; give [structure]")
        rows = [_parameters(structure, symprec, i) for i, structure in enumerate(structures)]
        groups, compositions, lattices = zip(*rows, strict=True) if rows else ((), (), ())
        return Crystals.of_rows(groups, compositions, lattices)


def row_of_counts(counts: Mapping[int, int]) -> np.ndarray:
    """Atoms by element [118] of atomic number -> atoms."""
    row = np.zeros(118, dtype=np.int64)
    for z, count in counts.items():
        row[z - 1] = count
    return row


def _formula(row: np.ndarray) -> str:
    present = np.flatnonzero(row)
    order = sorted(present, key=lambda z: (elements.ELECTRONEGATIVITY[z], elements.SYMBOLS[z]))
    divisor = reduce(gcd, (int(row[z]) for z in present), 0) or 1
    counts = [(elements.SYMBOLS[z], int(row[z]) // divisor) for z in order]
    return "".join(symbol + (str(count) if count > 1 else "") for symbol, count in counts)


def _parameters(structure: Structure, symprec: float, position: int) -> tuple[int, np.ndarray, np.ndarray]:
    if not hasattr(structure, "frac_coords"):
        raise InvalidCrystal(
            f"structure {position} is {type(structure).__name__} {str(structure)[:40]!r}, no Structure"
        )
    name = f"structure {position} ({structure.composition.reduced_formula})"
    if not all(structure.pbc):
        raise InvalidCrystal(f"{name} is not periodic in three directions")
    if not structure.is_ordered:
        raise InvalidCrystal(
            f"{name} is disordered; "
            "crystals have whole atoms: order it first, e.g. with pymatgen's OrderDisorderedStructureTransformation"
        )
    numbers = [site.specie.Z for site in structure]
    if not all(1 <= z <= 118 for z in numbers):
        raise InvalidCrystal(f"{name} has sites of no element; they must be those from H to Og")
    cell = (structure.lattice.matrix, structure.frac_coords, numbers)
    if not is_sound(cell, symprec):
        raise InvalidCrystal(
            f"{name} has a lattice or coordinates that are not finite numbers, or a cell without volume"
        )
    data = standard_symmetry(cell, symprec)
    if not data:
        raise InvalidCrystal(
            f"spglib finds no space group in {name} at "
            f"symprec {symprec}; look for atoms on top of each other or give another symprec"
        )
    number = int(data.number)
    counts = np.bincount(data.std_types, minlength=119)[1:119] // int(space_groups.CENTRING[number - 1])
    return number, counts, canonical_lattice(number, standard_lattice(data))


@dataclass(frozen=True, repr=False)
class Disordered(Crystals):
    """Crystals whose amounts need not be whole: atoms per primitive cell, float64 [B, 118].

    The features of a proxy are computed from it as from ordered crystals.

    Raises:
        InvalidCrystal: shapes or dtypes that do not go together.
    """

    def _check_dtypes(self) -> None:
        if self.space_group.dtype != torch.int64 or not self.composition.dtype.is_floating_point:
            raise InvalidCrystal(
                "disordered crystals need whole group numbers and floating-point amounts, got "
                f"{self.space_group.dtype} and {self.composition.dtype}"
            )

    def __getitem__(self, index: slice | torch.Tensor) -> Disordered:
        """The crystals at ``index`` (a slice, positions or a mask)."""
        return Disordered(self.space_group[index], self.composition[index], self.lattice[index])

    @property
    def n_atoms(self) -> Doubles:
        """Atoms per primitive cell, vacancies not counted, [B]."""
        return self.composition.sum(1)
