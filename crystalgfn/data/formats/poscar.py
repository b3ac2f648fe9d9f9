"""POSCAR and CONTCAR files of VASP 5 and 6, and those of VASP 4 that name their elements somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.atoms import Record, SkippedRecord, from_matrix
from crystalgfn.data.formats.base import element_number, read_text
from crystalgfn.errors import DataError

MAX_ATOMS = 100_000


class Poscar:
    """One crystal a file."""

    suffixes = (".vasp", ".poscar")
    structures = True

    def open(self, uri: str | Path) -> Iterator[Record | SkippedRecord]:
        """The crystal of a file, or why it cannot be read."""
        path = Path(uri)
        try:
            yield parse(path.name, read_text(path))
        except DataError as error:
            yield SkippedRecord(path.name, f"not a POSCAR that can be read ({error})")


def parse(where: str, text: str) -> Record:
    """The crystal of the text of a POSCAR.

    Raises:
        DataError: a line that is not what the format has there, or elements that are not named.
    """
    lines = text.split("\n")
    rows = np.array([_numbers(lines, i, 3) for i in (2, 3, 4)])
    factor = _factor(lines, rows)
    symbols, counts, at = _counted(lines)
    cartesian, at = _mode(lines, at)
    points = np.array([_numbers(lines, at + i, 3) for i in range(sum(counts))])
    names = _names(lines, symbols, counts, at)
    _check_end(lines, at, names)
    found = {name: element_number(re.split(r"[_/]", name)[0]) for name in dict.fromkeys(names)}
    notes = tuple(note for _, said in found.values() for note in said)
    with np.errstate(all="ignore"):
        rows = rows * factor
        if cartesian:
            try:
                points = points * factor @ np.linalg.inv(rows)
            except np.linalg.LinAlgError as error:
                raise DataError("its lattice vectors lie in one plane") from error
    return Record(where, from_matrix(where, rows, points, [found[name][0] for name in names]), {}, notes)


def _counted(lines: list[str]) -> tuple[list[str] | None, list[int], int]:
    """The symbols of the elements where a line names them, their numbers of atoms, and the line after these."""
    at = 5
    words = _line(lines, at).split()
    symbols = None if all(word.isdigit() for word in words) and words else words
    if symbols is not None:
        at += 1
        words = _line(lines, at).split()
    counts = _counts(words, at)
    if symbols is not None and len(symbols) != len(counts):
        raise DataError(f"line 6 names {len(symbols)} elements and line 7 has {len(counts)} counts")
    return symbols, counts, at + 1


def _mode(lines: list[str], at: int) -> tuple[bool, int]:
    """Whether coordinates are Cartesian, and the first line of them."""
    if _line(lines, at)[:1] in ("S", "s"):
        at += 1
    cartesian = _line(lines, at)[:1] in ("C", "c", "K", "k")
    if not cartesian and _line(lines, at)[:1] not in ("D", "d"):
        raise DataError(f"line {at + 1} is {_line(lines, at)!r}; it must be Direct or Cartesian")
    return cartesian, at + 1


def _names(lines: list[str], symbols: list[str] | None, counts: list[int], at: int) -> list[str]:
    """The element of each atom; ``at`` is the first line of coordinates."""
    if symbols is not None:
        return [symbol for symbol, count in zip(symbols, counts, strict=True) for _ in range(count)]
    names = _named(lines[0], counts) or _trailing(lines[at : at + sum(counts)])
    if names is None:
        raise DataError("it names no elements (VASP 4); write their symbols in a line above the numbers of atoms")
    return names


def _check_end(lines: list[str], at: int, names: list[str]) -> None:
    """Refuse coordinates that go on after the atoms that are counted, and elements named otherwise beside them.

    Raises:
        DataError: says which.
    """
    end = at + len(names)
    if end < len(lines) and _is_point(lines[end]):
        raise DataError(f"{len(names)} atoms are counted, and line {end + 1} has the coordinates of one more")
    if any(line.strip().lower().startswith("direct configuration") for line in lines[end:]):
        raise DataError("it has several configurations, as XDATCAR; give each in a file of its own")
    beside = _trailing(lines[at:end])
    plain = [re.split(r"[_/]", name)[0] for name in names]
    if beside is not None and beside != plain:
        i = next(i for i, (a, b) in enumerate(zip(beside, plain, strict=True)) if a != b)
        raise DataError(f"line {at + i + 1} names {beside[i]} beside its coordinates, and line 6 {plain[i]}")


def _is_point(line: str) -> bool:
    try:
        return len([float(word) for word in line.split()[:3]]) == 3
    except ValueError:
        return False


def _line(lines: list[str], i: int) -> str:
    if i >= len(lines):
        raise DataError(f"it ends before line {i + 1}")
    return lines[i].strip()


def _numbers(lines: list[str], i: int, n: int) -> list[float]:
    words = _line(lines, i).split()[:n]
    try:
        found = [float(word.replace("D", "E").replace("d", "e").replace("_", "?")) for word in words]
    except ValueError:
        found = []
    if len(found) != n or not np.isfinite(found).all():
        raise DataError(f"line {i + 1} is {_line(lines, i)[:60]!r}; it must be {n} numbers")
    return found


def _scale(lines: list[str]) -> list[float]:
    words = re.split(r"[!#]", _line(lines, 1))[0].split()
    n = sum(re.fullmatch(r"[-+]?\.?\d[-+.\deEdD]*", word) is not None for word in words)
    if n not in (1, 3):
        raise DataError(f"line 2 is {_line(lines, 1)[:60]!r}; it must be one scale or three")
    found = _numbers(lines, 1, n)
    if any(x == 0 for x in found) or (n == 3 and min(found) < 0):
        raise DataError(f"the scale {_line(lines, 1)!r} is no scale")
    return found


def _factor(lines: list[str], rows: np.ndarray) -> np.ndarray:
    """What lattice vectors and Cartesian coordinates are multiplied with; a negative scale is the cell's volume."""
    scale = _scale(lines)
    if len(scale) == 1 and scale[0] < 0:
        with np.errstate(all="ignore"):
            volume = abs(np.linalg.det(rows))
        if not volume > 0:
            raise DataError("its lattice vectors lie in one plane")
        return np.array((-scale[0] / volume) ** (1 / 3))
    return np.array(scale if len(scale) == 3 else scale[0])


def _counts(words: list[str], at: int) -> list[int]:
    whole = [word for word in words if word.isdigit()]
    if not words or (len(whole) < len(words) and not (whole and not words[len(whole)].isdigit())):
        raise DataError(f"line {at + 1} is {' '.join(words)[:60]!r}; it must be the numbers of atoms")
    counts = [int(word) for word in words[: len(whole)] if word.isdigit()]
    if not 0 < sum(counts) <= MAX_ATOMS:
        raise DataError(f"line {at + 1} counts {sum(counts)} atoms; from 1 to {MAX_ATOMS} are read")
    return counts


def _named(comment: str, counts: list[int]) -> list[str] | None:
    """The elements that a comment line names: as many symbols as there are counts, with those counts or alone."""
    words = _symbols(comment, counts)
    if words is None or any(a not in elements.NUMBER or n != m for (a, n), m in zip(words, counts, strict=True)):
        return None
    return [a for a, n in words for _ in range(n)]


def _symbols(comment: str, counts: list[int]) -> list[tuple[str, int]] | None:
    """Symbols and numbers of "Na4 Cl4", "Na Cl" or "Na4Cl4"; a number that a symbol apart lacks is that of the file."""
    plain = " ".join(comment.split())
    words = re.findall(r"([A-Z][a-z]?)(\d*)(?=\s|$)", plain)
    if " ".join(a + n for a, n in words) == plain and len(words) == len(counts):
        return [(a, int(n or count)) for (a, n), count in zip(words, counts, strict=True)]
    words = re.findall(r"([A-Z][a-z]?)(\d*)", plain)
    if "".join(a + n for a, n in words) == comment.strip() and len(words) == len(counts):
        return [(a, int(n or 1)) for a, n in words]
    return None


def _trailing(lines: list[str]) -> list[str] | None:
    """The elements at the ends of the lines of coordinates, where every line names one."""
    words = [line.split() for line in lines]
    names = [next((w for w in one[3:] if w not in ("T", "F")), "") for one in words]
    return names if all(name in elements.NUMBER for name in names) else None


POSCAR = Poscar()
