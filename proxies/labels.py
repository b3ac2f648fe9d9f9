"""Labels for what databases lack: formation energies of crystals away from equilibrium, computed with CHGNet.

A label is E*(x), the lowest energy over Wyckoff assignments and coordinates at fixed group, composition and lattice,
on MP-20's scale. It is an upper bound where the relaxation did not converge, or where no real crystal lent its
positions and the cell has more than `SMALL` atoms. How labels are made: `crystalgfn.proxies.labelling`; what the
shipped ones are: ``labels/README.md``.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pandas as pd
import torch

from crystalgfn.domain.crystals import Crystals
from crystalgfn.errors import DataError
from crystalgfn.files import write_aside
from crystalgfn.proxies.data import Rows, read, split
from crystalgfn.proxies.exact_hull import ExactHull
from crystalgfn.proxies.references import References, shipped
from crystalgfn.tables import elements
from crystalgfn.typing import Booleans, Floats, Integers

SHIPPED = Path(__file__).parent / "labels" / "chgnet.npz"
SOURCES = ("strained", "swapped", "placed", "proposed")
#: Kinds: the energy is E*; E* is at most this; more than `CEILING` above the hull, of which only so much is sure.
VALUE, BOUND, HIGH = 0, 1, 2
#: Splits: to fit; of a composition that no fit may see; strained crystals of MP-20 val, to report only.
FIT, HELD, VAL = 0, 1, 2
CEILING = 1.0  # eV/atom above the hull of the training entries
SMALL = 5  # atoms in a cell that random placement searches well enough for a value
HELD_SHARE, HELD_SEED = 0.1, 0
VERSION = 1
FLAGS = ("kind", "source", "split", "candidates", "placed", "converged")


@dataclass(frozen=True)
class Labels:
    """Labelled crystals.

    Attributes:
        crystals: [B].
        value: formation energy in eV/atom, float32 [B].
        kind: `VALUE`, `BOUND` or `HIGH`, int64 [B].
        source: place in `SOURCES`, int64 [B].
        split: `FIT`, `HELD` or `VAL`, int64 [B].
        placed: whether the lowest structure came from random placement, bool [B].
        converged: whether its atoms came to rest, bool [B].
        candidates: structures that the value is the lowest of, int64 [B].
    """

    crystals: Crystals
    value: Floats
    kind: Integers
    source: Integers
    split: Integers
    placed: Booleans
    converged: Booleans
    candidates: Integers

    def __len__(self) -> int:
        return len(self.value)

    def __getitem__(self, index: torch.Tensor | np.ndarray | slice) -> Labels:
        """The labels at ``index`` (positions, a mask or a slice)."""
        if not isinstance(index, slice):
            index = torch.as_tensor(index)
        return Labels(*(getattr(self, name)[index] for name in self.__dataclass_fields__))

    def keys(self) -> list[frozenset[tuple[str, int]]]:
        """(reduced formula, space group) of each, as ``Rows.keys`` of `crystalgfn.proxies.data` has them."""
        formulas = map(formula, self.crystals.composition.numpy())
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
            **{name: getattr(self, name).numpy().astype(np.int8) for name in FLAGS},
        }
        write_aside(Path(path), lambda aside: _save(aside, columns))


def read_labels(path: str | Path = SHIPPED, high: bool = False) -> Labels:
    """Labels from a file that `Labels.save` wrote; those that come with the package by default.

    Args:
        path: the file.
        high: also the labels more than `CEILING` above the hull (kind `HIGH`).

    Raises:
        DataError: the file is missing, of another version, or is not one of labels.
    """
    try:
        with open(path, "rb") as opened, np.load(opened) as file:
            columns = {name: file[name] for name in file.files}
        version = int(columns["version"])
        composition = torch.zeros(len(columns["value"]), 118, dtype=torch.int64)
        row = np.repeat(np.arange(len(composition)), columns["n_elements"])
        composition[row, columns["element"].astype(np.int64) - 1] = torch.from_numpy(columns["count"]).long()
        group = torch.from_numpy(columns["space_group"]).long()
        crystals = Crystals(group, composition, torch.from_numpy(columns["lattice"]))
        flags = {name: torch.from_numpy(columns[name]).long() for name in FLAGS}
        flags |= {name: flags[name].bool() for name in ("placed", "converged")}
        labels = Labels(crystals, torch.from_numpy(columns["value"]), **flags)
    except (OSError, ValueError, KeyError, IndexError, EOFError, BadZipFile) as error:
        raise DataError(f"{path} holds no labels ({error}); make them with crystalgfn.proxies.make_labels") from error
    if version != VERSION:
        raise DataError(f"{path} holds labels of version {version}, this package reads {VERSION}; make them anew")
    return labels if high else labels[labels.kind != HIGH]


def merge_labels(
    folder: str | Path, train: str | Path, val: str | Path, references: References | None = None
) -> Labels:
    """All labels of a folder of shards (`crystalgfn.proxies.make_labels`), on MP-20's scale.

    Labels that share (reduced formula, space group) with ``val`` are left out, but for the strained copies of its own.

    Args:
        folder: with the shards.
        train: the Parquet file the labels were made from; its entries, without those that share (reduced formula,
            space group) with ``val``, make the hull above which labels end.
        val: the Parquet file held out.
        references: that turn CHGNet's energies into formation energies; the shipped ones by default.

    Raises:
        DataError: no shards, or one that cannot be read.
    """
    columns = _shards(Path(folder))
    composition, number = torch.from_numpy(columns["composition"]).long(), torch.from_numpy(columns["space_group"])
    crystals = Crystals(number.long(), composition, torch.from_numpy(columns["lattice"]).double())
    absolute = (references or shipped()).formation_energy(columns["composition"].astype(np.float64), columns["energy"])
    relative = columns["base"] + columns["change"]
    value = np.where(np.isfinite(relative), relative, absolute)
    taken = frozenset().union(*read(val, progress=False).keys)
    formulas = [formula(row) for row in composition.numpy()]
    strange = np.array([pair in taken for pair in zip(formulas, number.tolist(), strict=True)])
    own = columns["source"] == "held"
    kept = torch.from_numpy(np.isfinite(value) & (own | ~strange))

    above = value - _hull(train, taken).energy(crystals).numpy()
    sure = columns["converged"] & ((columns["given"] > 0) | (composition.sum(1).numpy() <= SMALL))
    kind = np.where(above > CEILING, HIGH, np.where(sure, VALUE, BOUND))
    part = np.where(own, VAL, np.where(_held_out(formulas), HELD, FIT))
    names = np.where(own, "strained", columns["source"])
    labels = Labels(
        Crystals(crystals.space_group, composition, crystals.lattice.float()),
        torch.from_numpy(value).float(),
        torch.from_numpy(kind),
        torch.tensor([SOURCES.index(name) for name in names]),
        torch.from_numpy(part),
        torch.from_numpy(columns["placed"]),
        torch.from_numpy(columns["converged"]),
        torch.from_numpy(columns["candidates"]).long(),
    )
    return labels[kept]


def formula(composition: np.ndarray) -> str:
    """Reduced formula of one composition [118] as splits go by it: alphabetical, every count written."""
    present = np.flatnonzero(composition)
    counts = {elements.SYMBOLS[z]: int(composition[z]) for z in present}
    divisor = np.gcd.reduce(list(counts.values()))
    return "".join(f"{symbol}{counts[symbol] // divisor}" for symbol in sorted(counts))


def _held_out(formulas: list[str]) -> np.ndarray:
    """Which formulas no fit may see: those that ``split(rows, HELD_SHARE, HELD_SEED)`` holds out of any rows."""
    n = len(formulas)
    empty = Crystals(torch.ones(n, dtype=torch.int64), torch.zeros(n, 118, dtype=torch.int64), torch.ones(n, 6))
    rows = Rows(empty, torch.arange(n, dtype=torch.float64), [frozenset({(one, 1)}) for one in formulas])
    held = np.zeros(n, dtype=bool)
    held[split(rows, HELD_SHARE, HELD_SEED)[1].labels.long().numpy()] = True
    return held


@functools.cache
def _hull(train: str | Path, taken: frozenset[tuple[str, int]]) -> ExactHull:
    """Of the entries of ``train`` that are not taken."""
    table = pd.read_parquet(train, columns=["formula", "spacegroup", "formation_energy_per_atom"])
    table = table[table.formation_energy_per_atom.notna()]
    names = {text: _alphabetical(text) for text in table.formula.unique()}
    pairs = zip(table.formula.map(names), table.spacegroup.tolist(), strict=True)
    return ExactHull.from_entries(table[[pair not in taken for pair in pairs]])


def _alphabetical(text: str) -> str:
    from pymatgen.core import Composition

    counts = np.zeros(118, dtype=np.int64)
    for symbol, count in Composition(text).get_el_amt_dict().items():
        counts[elements.NUMBER[symbol] - 1] = round(count)
    return formula(counts)


def _shards(folder: Path) -> dict[str, np.ndarray]:
    """The columns of all shards, one after another."""
    paths = sorted(folder.glob("shard-[0-9]*.npz"))
    if not paths:
        raise DataError(f"{folder} holds no shards of labels; make them with crystalgfn.proxies.make_labels")
    wanted = "space_group composition lattice energy change base converged candidates given placed source".split()
    parts = []
    for path in paths:
        try:
            with open(path, "rb") as opened, np.load(opened) as file:
                parts.append({name: file[name] for name in wanted})
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise DataError(f"{path} is not a shard of labels ({error}); remove it") from error
    return {name: np.concatenate([part[name] for part in parts]) for name in wanted}


def _save(path: Path, columns: dict[str, np.ndarray]) -> None:
    with path.open("wb") as file:  # given a name without .npz, numpy would add it
        np.savez_compressed(file, **columns)
