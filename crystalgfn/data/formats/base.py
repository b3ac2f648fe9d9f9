"""What a file format has to do, the registry of formats by suffix, and a check of the contract."""

from __future__ import annotations

import gzip
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from zlib import error as ZlibError

import numpy as np

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.atoms import Record, SkippedRecord, atoms_fault, from_matrix
from crystalgfn.errors import DataError
from crystalgfn.utils.files import is_pipe

ENTRY_POINTS = "crystalgfn.formats"

BUILT_IN = ("cif:CIF", "poscar:POSCAR", "extxyz:EXTXYZ", "tables:PARQUET", "tables:TABLE", "pymatgen_json:JSON")

MAX_OCCUPANCY = 1.02
"""Sums of rounded occupancies up to here are scaled to 1."""
MOLECULES = frozenset(("CO", "HF", "HO", "NO"))
"""Capitals that may be an element's symbol or a molecule's formula."""


@runtime_checkable
class Format(Protocol):
    """A kind of file that holds crystals.

    Attributes:
        suffixes: endings of file names, lower case, such as ``(".cif",)``.
        structures: whether a folder of such files is a set of crystals; tables are read only when named.
    """

    suffixes: tuple[str, ...]
    structures: bool

    def open(self, uri: str | Path) -> Iterator[Record | SkippedRecord]:
        """The records of a file, one after the other, each with its place; `SkippedRecord` for what is no crystal.

        Raises:
            DataError: the file as a whole cannot be read.
        """
        ...


@cache
def formats() -> dict[str, Format]:
    """Suffix -> format: those of the package and of the entry points ``crystalgfn.formats``."""
    found: dict[str, Format] = {}
    for name in BUILT_IN:
        module, _, attribute = name.partition(":")
        _register(found, getattr(importlib.import_module(f"crystalgfn.data.formats.{module}"), attribute), name)
    for point in entry_points(group=ENTRY_POINTS):
        _register(found, point.load(), point.name)
    return found


def _register(found: dict[str, Format], one: Any, name: str) -> None:
    _check_shape(one, name)
    found.update(dict.fromkeys(one.suffixes, one))


def format_of(path: Path) -> Format | None:
    """The format of a file by its suffix, one of compression left aside; None where it has none."""
    if path.name.startswith(("POSCAR", "CONTCAR")):
        return formats()[".vasp"]
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".gz"]:
        suffixes.pop()
    return formats().get(suffixes[-1]) if suffixes else None


def check_format(one: Any, example: str | Path) -> list[Record | SkippedRecord]:
    """Check that a format keeps its contract on an example file; returns what it yields.

    Raises:
        DataError: it does not; names the rule that is broken.
    """
    name = type(one).__name__
    _check_shape(one, name)
    found, again = list(one.open(example)), list(one.open(example))
    if not found:
        raise DataError(f"{name} yields nothing from {example}; a file without a crystal is a DataError")
    for entry in found:
        _check_entry(entry, name)
    if len({entry.where for entry in found}) < len(found):
        raise DataError(f"{name} gives two records the same place; number them")
    if [_content(entry) for entry in found] != [_content(entry) for entry in again]:
        raise DataError(f"{name} yields other records when it opens {example} again")
    for content in (b"", b"\x00\xffnonsense"):
        _check_garbage(one, name, Path(example), content)
    return found


def _check_shape(one: Any, name: str) -> None:
    suffixes = getattr(one, "suffixes", None)
    if not isinstance(one, Format) or not isinstance(suffixes, tuple):
        raise DataError(f"the format {name} needs suffixes (a tuple), structures (a bool) and open(uri)")
    if not suffixes or any(not s.startswith(".") or s != s.lower() for s in suffixes):
        raise DataError(f"the format {name} has the suffixes {suffixes}; write them as ('.cif',)")


def _check_entry(entry: Any, name: str) -> None:
    if not isinstance(entry, Record | SkippedRecord):
        raise DataError(f"{name} yields a {type(entry).__name__}; it must yield Record or SkippedRecord")
    if not entry.where:
        raise DataError(f"{name} yields a record that does not say where it stands")
    if isinstance(entry, Record) and entry.atoms is not None and (reason := atoms_fault(entry.atoms)):
        raise DataError(f"{name} yields {entry.where}, which {reason}; yield a SkippedRecord instead")


def _check_garbage(one: Format, name: str, example: Path, content: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"damaged{one.suffixes[0]}")
        path.write_bytes(content)
        try:
            found = list(one.open(path))
        except DataError:
            return
        except Exception as error:
            raise DataError(
                f"{name} raises {type(error).__name__} for a damaged file; raise DataError or yield SkippedRecord"
            ) from error
    if any(isinstance(entry, Record) for entry in found):
        raise DataError(f"{name} yields a crystal from a damaged file")


def _content(entry: Record | SkippedRecord) -> tuple[Any, ...]:
    if isinstance(entry, SkippedRecord):
        return entry.where, entry.reason
    if entry.atoms is None:
        return entry.where, repr(sorted(entry.values))
    parts = (entry.atoms.lattice, entry.atoms.points, entry.atoms.numbers)
    return entry.where, *(np.ascontiguousarray(part).tobytes() for part in parts)


def read_bytes(path: str | Path) -> bytes:
    """The content of a file, unpacked where its name ends in ``.gz``.

    Raises:
        DataError: it cannot be read.
    """
    path = Path(path)
    if is_pipe(path):
        raise DataError(f"{path.name} is a pipe, which may never end; give a file")
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix.lower() == ".gz" else content
    except (OSError, EOFError, ZlibError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or first_line(error)
        raise DataError(f"{path.name} cannot be read ({reason})") from error
    if content.startswith(b"version https://git-lfs"):
        raise DataError(f"{path.name} is a pointer of Git LFS, not the file; fetch it with git lfs pull")
    return content


def decode(content: bytes, name: str | Path, strict: bool = False) -> str:
    """Text in UTF-8 or UTF-16, with or without a byte order mark, or else in Latin-1.

    Raises:
        DataError: it is no text.
        UnicodeDecodeError: with ``strict``, bytes that are not UTF-8.
    """
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif content[:200].count(0) > len(content[:200]) // 3:  # UTF-16 without a mark: every other byte is zero
        encoding = "utf-16-le" if content[1:2] == b"\0" else "utf-16-be"
    else:
        encoding = "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        if strict:
            raise
        text = content.decode("latin-1") if encoding == "utf-8-sig" else "\0"
    if "\0" in text:
        raise DataError(f"{name} is no text file; save it as text (UTF-8)")
    return text.replace("\r\n", "\n").replace("\r", "\n").lstrip("\ufeff")


def read_text(path: str | Path) -> str:
    """The text of a file; see `decode`."""
    return decode(read_bytes(path), path)


def element_number(symbol: str) -> tuple[int, tuple[str, ...]]:
    """The atomic number of a symbol and what has to be said of it: D and T are read as hydrogen.

    Raises:
        DataError: no element.
    """
    if symbol in ("D", "T"):
        return 1, (f"{symbol} is read as hydrogen",)
    if symbol not in elements.NUMBER:
        raise DataError(f"{symbol} is no element")
    return elements.NUMBER[symbol], ()


def first_line(error: BaseException) -> str:
    """The first line of an error of a foreign library."""
    return (str(error).splitlines() or [type(error).__name__])[0][:160]


def record(where: str, entry: Mapping[str, Any]) -> Record:
    """A structure's dictionary, or an entry that holds one beside other values.

    Raises:
        DataError: a species that is no element.
    """
    inner = _structure_in(entry)
    rows, sites = np.array(inner["lattice"]["matrix"], dtype=np.float64).reshape(3, 3), inner["sites"]
    numbers, shares, owner, notes = [], [], [], []
    for i, site in enumerate(sites):
        if not site["species"]:
            raise DataError(f"its site {i} has no species")
        shares += _scaled([float(one.get("occu", 1)) for one in site["species"]])
        for one in site["species"]:
            number, said = element_number(str(one["element"]))
            notes += said
            numbers.append(number)
            owner.append(i)
    points = np.array([sites[i]["abc"] for i in owner], dtype=np.float64).reshape(-1, 3)
    found = from_matrix(where, rows, points, numbers)
    if any(share != 1 for share in shares):
        found = replace(found, occupancies=np.array(shares), sites=np.array(owner))
    values = {name: value for name, value in entry.items() if not isinstance(value, Mapping | list)}
    return Record(where, found, values, tuple(dict.fromkeys(notes)))


def _structure_in(entry: Any) -> Mapping[str, Any]:
    if not isinstance(entry, Mapping):
        raise DataError(f"it is a {type(entry).__name__}, no dictionary")
    inner = entry.get("structure", entry)
    if not isinstance(inner, Mapping):
        raise DataError(f"its structure is a {type(inner).__name__}, no dictionary")
    if not all(inner["lattice"].get("pbc", (True,))):
        raise DataError("it is not periodic in three directions")
    return inner


def _scaled(shares: list[float]) -> list[float]:
    """Occupancies of a site, those that sum to a little more than 1 scaled to 1."""
    total = sum(shares)
    return [share / total for share in shares] if 1 < total <= MAX_OCCUPANCY else shares
