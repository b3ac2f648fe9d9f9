"""Damages files of crystals and looks at what the reader makes of them.

``python -m scripts.maintain.fuzz_readers 400``

Each file is a real crystal of some kind (CIF, POSCAR, extended XYZ, CSV, Parquet) in which bytes, lines, words or
numbers are changed. It checks that nothing but `DataError` comes out, that no file takes longer than 20 s, that the
process lives, and that what gemmi (CIF) or ase (POSCAR, extended XYZ) still reads has the same atoms. Each worker is
a process of its own, so that one that dies is counted.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import random
import tempfile
import time
import warnings
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

KINDS = ("cif", "vasp", "extxyz", "csv", "parquet")
SECONDS = 20
WORDS = tuple("? . nan inf -1 0 1e160 51234 X OH D Wat data_ loop_ ; ' é 999".split())
AGREEMENT = 0.01
"""Relative difference of volumes and amounts up to which two readers agree."""


@cache
def originals() -> list[Any]:
    """Structures to begin with."""
    from pymatgen.core import Lattice, Structure

    salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    cell = Lattice.tetragonal(4.59, 2.96)
    rutile = Structure.from_spacegroup("P4_2/mnm", cell, ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]])
    cell = Lattice.hexagonal(4.913, 5.405)
    quartz = Structure.from_spacegroup("P3_121", cell, ["Si", "O"], [[0.4697, 0, 1 / 3], [0.4135, 0.2669, 0.4524]])
    return [salt, rutile, quartz]


def written(structure: Any, kind: str, rng: random.Random) -> bytes:
    """A file of one structure, some CIFs with symmetry and some in P 1."""
    from pymatgen.io.ase import AseAtomsAdaptor
    from pymatgen.io.cif import CifWriter

    if kind == "cif":
        return str(CifWriter(structure, symprec=0.01 if rng.random() < 0.7 else None)).encode()
    if kind == "vasp":
        return structure.to(fmt="poscar").encode()
    if kind == "extxyz":
        from ase.io import write

        text = io.StringIO()
        write(text, AseAtomsAdaptor.get_atoms(structure, msonable=False), format="extxyz")
        return text.getvalue().encode()
    import pandas as pd

    if kind == "csv":
        return pd.DataFrame({"cif": [structure.to(fmt="cif")] * 2, "gap": [1.0, 2.0]}).to_csv(index=False).encode()
    names = ("a", "b", "c", "alpha", "beta", "gamma")
    row = dict(zip((f"prim_{x}" for x in names), structure.lattice.parameters, strict=True))
    row |= {"Z": [site.specie.Z for site in structure], "frac": structure.frac_coords.ravel().tolist(), "e": -1.0}
    broken = rng.choice(list(row))
    wrong = {broken: rng.choice([None, float("nan"), float("inf"), -1.0, 1e160, 51234.0])}
    if broken in ("Z", "frac"):
        values = list(row[broken])
        values[rng.randrange(len(values))] = rng.choice([0, 119, -3]) if broken == "Z" else rng.choice([1e200, -1e5])
        wrong = {broken: rng.choice([values, values[:-1], []])}
    frame = pd.DataFrame([row, {**row, **wrong}])
    if rng.random() < 0.2:
        frame = frame.drop(columns=rng.choice(list(frame)))
    content = io.BytesIO()
    frame.to_parquet(content)
    return content.getvalue()


def mutated(content: bytes, kind: str, rng: random.Random) -> bytes:
    """The file with one to three changes."""
    if kind == "parquet" and rng.random() < 0.6:
        return content  # the values are changed already
    for _ in range(rng.randint(1, 3)):
        how = rng.choice(("byte", "cut", "line", "twice", "word", "word", "number", "swap"))
        if kind == "parquet" or how == "byte":
            at = rng.randrange(max(1, len(content)))
            content = content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :]
        elif how == "cut":
            content = content[: rng.randrange(len(content) + 1)]
        else:
            content = _lines(content, how, rng)
    return content


def _lines(content: bytes, how: str, rng: random.Random) -> bytes:
    lines = content.split(b"\n")
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    words = lines[i].split()
    if how == "line":
        del lines[i]
    elif how == "twice":
        lines.insert(j, lines[i])
    elif how == "swap":
        lines[i], lines[j] = lines[j], lines[i]
    elif words:
        k = rng.randrange(len(words))
        number = f"{rng.uniform(-2, 12):.{rng.randint(0, 5)}f}"
        words[k] = (rng.choice(WORDS) if how == "word" else number).encode()
        lines[i] = b" ".join(words)
    return b"\n".join(lines)


def other_reading(path: Path, kind: str) -> list[tuple[float, dict[int, float]]] | None:
    """Volume and atoms of each crystal as another reader has them; None where it reads nothing."""
    warnings.simplefilter("ignore")
    try:
        if kind == "cif":
            return _by_gemmi(path)
        from ase.io import read

        found = read(path, format="vasp" if kind == "vasp" else "extxyz", index=":")
        return [(abs(atoms.get_volume()), dict(Counter(map(float, atoms.numbers)))) for atoms in found]
    except Exception:
        return None


def _by_gemmi(path: Path) -> list[tuple[float, dict[int, float]]] | None:
    import gemmi

    found = []
    for block in gemmi.cif.read(str(path)):
        small = gemmi.make_small_structure_from_block(block)
        if not small.sites or not small.cell.is_crystal():
            continue
        amounts: dict[int, float] = {}
        for site in small.get_all_unit_cell_sites():
            z = site.element.atomic_number
            amounts[z] = amounts.get(z, 0.0) + site.occ
        found.append((small.cell.volume, amounts))
    return found or None


def _agree(own: tuple[float, dict[int, float]], other: tuple[float, dict[int, float]]) -> bool:
    (volume, amounts), (volume2, amounts2) = own, other
    amounts2 = {z: n for z, n in amounts2.items() if n}
    if amounts.keys() != amounts2.keys() or abs(volume - volume2) > AGREEMENT * volume2:
        return False
    return all(abs(n - amounts2[z]) <= AGREEMENT * n for z, n in amounts.items())


def attempt(number: int, folder: str) -> tuple[str, str]:
    """What comes of one damaged file, and a word on it."""
    from crystalgfn.crystallography.atoms import Record, volume_of_parameters
    from crystalgfn.crystallography.standardize import standardise
    from crystalgfn.data.reader import records
    from crystalgfn.errors import DataError

    rng = random.Random(number)
    kind = KINDS[number % len(KINDS)]
    path = Path(folder, f"{number}.{kind}")
    path.write_bytes(mutated(written(rng.choice(originals()), kind, rng), kind, rng))
    begun = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            entries = list(records(path))
            for entry in entries:
                if isinstance(entry, Record) and entry.atoms is not None:
                    standardise(entry.atoms.lattice, entry.atoms.points, entry.atoms.numbers)
        except DataError as error:
            return "refused", str(error)
        except Exception as error:
            return "traceback", f"{type(error).__name__}: {error}"
    if time.perf_counter() - begun > SECONDS:
        return "slow", f"{time.perf_counter() - begun:.0f} s"
    crystals = [entry.atoms for entry in entries if isinstance(entry, Record) and entry.atoms is not None]
    if not crystals:
        return "named", str(entries[0])
    if kind in ("csv", "parquet"):
        return "read", ""
    other = other_reading(path, kind)
    if other is None:
        return "read alone", ""
    own = [(volume_of_parameters(atoms.lattice), {z: n for z, n in atoms.amounts.items()}) for atoms in crystals]
    same = len(own) == len(other) and all(map(_agree, own, other))
    return ("read the same", "") if same else ("read otherwise", f"{own} and {other}")


def _worker(numbers: list[int], folder: str, queue: Any) -> None:
    for number in numbers:
        queue.put((number, "begun", ""))
        queue.put((number, *attempt(number, folder)))


def fuzz(count: int, seed: int = 0) -> dict[int, tuple[str, str]]:
    """Outcome and word of each of some damaged files, by number; "crash" and "hang" of those that ended a worker."""
    context = multiprocessing.get_context("spawn")
    todo = list(range(seed, seed + count))
    found: dict[int, tuple[str, str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        while todo:
            queue = context.Queue()
            process = context.Process(target=_worker, args=(todo, folder, queue))
            process.start()
            current = _drain(process, queue, found, len(todo))
            if process.is_alive():
                process.kill()
            process.join()
            if current is not None:
                found[current] = ("hang" if process.exitcode == -9 else "crash", f"exit code {process.exitcode}")
            todo = [number for number in todo if number not in found]
    return found


def _drain(process: Any, queue: Any, found: dict[int, tuple[str, str]], count: int) -> int | None:
    """Collect until all are done or the worker hangs or dies; the number that it was at then."""
    import queue as queues

    current, done = None, 0
    while done < count:
        try:
            number, outcome, word = queue.get(timeout=SECONDS + 60)
        except queues.Empty:
            return current
        if outcome == "begun":
            current = number
        else:
            found[number], current, done = (outcome, word), None, done + 1
        if not process.is_alive() and queue.empty():
            break
    return current


def main() -> None:
    """The command: counts of outcomes, and every one that should not be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, help="damaged files")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found = fuzz(options.count, options.seed)
    for number, (outcome, word) in sorted(found.items()):
        if outcome in ("traceback", "slow", "crash", "hang", "read otherwise"):
            print(f"{number} ({KINDS[number % len(KINDS)]}): {outcome}: {word[:300]}")
    for outcome, count in Counter(outcome for outcome, _ in found.values()).most_common():
        print(f"{count:6d} {outcome}")


if __name__ == "__main__":
    main()
