"""Damages files of crystals and of weights and looks at what their readers make of them.

``python -m scripts.maintain.fuzz_readers 2000 --out readers.json``

Each file is a real crystal of some kind (CIF, POSCAR, extended XYZ, CSV, Parquet) or a shipped file of weights in which
bytes, lines, words or numbers are changed. It checks that nothing but the package's own errors comes out, that no file
takes longer than 20 s, that the process lives, and that what gemmi (CIF and CSV) or ase (POSCAR, extended XYZ, Parquet)
still reads has the same cell and the same atoms.
"""

from __future__ import annotations

import argparse
import csv
import io
import random
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from crystalgfn.data.formats.extxyz import frames
from scripts.maintain.watched import report, timed, watch

KINDS = ("cif", "vasp", "extxyz", "csv", "parquet", "safetensors")
BAD = ("traceback", "slow", "crash", "hang", "read otherwise")
WORDS = tuple("? . nan NaN inf -inf -1 0 1e160 51234 1e-300 9999999999 X OH D Wat data_ loop_".split())
WORDS += tuple("; ' \" é # T F 999 1/3 0,5 ** _x".split())
AGREEMENT = 0.002
"""Relative difference of cell parameters and amounts up to which two readers agree."""
Reading = list[tuple[np.ndarray, dict[int, float]]]
"""Of each crystal: a, b, c, alpha, beta, gamma; atoms by atomic number."""


@cache
def originals() -> list[Any]:
    """Structures to begin with: of each sort of lattice, and one that is disordered."""
    from pymatgen.core import Lattice, Structure

    made = Structure.from_spacegroup
    salt = made("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    return [
        salt,
        salt.get_primitive_structure(),
        made("P4_2/mnm", Lattice.tetragonal(4.59, 2.96), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]),
        made("P3_121", Lattice.hexagonal(4.913, 5.405), ["Si", "O"], [[0.4697, 0, 1 / 3], [0.4135, 0.2669, 0.4524]]),
        made("R-3c", Lattice.hexagonal(4.99, 17.06), ["Ca", "C", "O"], [[0, 0, 0], [0, 0, 0.25], [0.257, 0, 0.25]]),
        made("Pnma", Lattice.orthorhombic(5.44, 7.64, 5.38), *_perovskite()),
        made("P2_1/c", Lattice.monoclinic(5.15, 5.2, 5.32, 99.2), *_baddeleyite()),
        made("Fd-3m", Lattice.cubic(8.08), ["Mg", "Al", "O"], [[0] * 3, [5 / 8] * 3, [0.3874] * 3]),
        made("P-1", Lattice.from_parameters(8.14, 12.79, 7.16, 94.2, 116.6, 87.7), *_albite()),
        made("Im-3m", Lattice.cubic(2.9), [{"Fe": 0.5, "Ni": 0.5}], [[0, 0, 0]]),
    ]  # fmt: skip


def _perovskite() -> tuple[list[str], list[list[float]]]:
    places = [[0.03, 0.25, 0.99], [0, 0, 0.5], [0.48, 0.25, 0.07], [0.29, 0.04, 0.71]]
    return ["Ca", "Ti", "O", "O"], places


def _baddeleyite() -> tuple[list[str], list[list[float]]]:
    return ["Zr", "O", "O"], [[0.275, 0.04, 0.208], [0.07, 0.332, 0.345], [0.45, 0.757, 0.479]]


def _albite() -> tuple[list[str], list[list[float]]]:
    return ["Na", "Si"], [[0.27, 0.99, 0.15], [0.01, 0.17, 0.21]]


def written(structure: Any, kind: str, rng: random.Random) -> bytes:
    """A file of one structure; CIFs with symmetry and in P 1, by two programs."""
    from pymatgen.io.ase import AseAtomsAdaptor

    if kind == "cif":
        return _cif(structure, rng).encode()
    if kind == "csv":
        return _csv([_cif(structure, rng), _cif(rng.choice(originals()), rng)])
    if not structure.is_ordered:
        structure = originals()[0]
    if kind == "vasp":
        return structure.to(fmt="poscar").encode()
    if kind == "extxyz":
        from ase.io import write

        text = io.StringIO()
        write(text, AseAtomsAdaptor.get_atoms(structure, msonable=False), format="extxyz")
        return text.getvalue().encode() * rng.choice((1, 1, 2))
    return _parquet(structure, rng)


def _cif(structure: Any, rng: random.Random) -> str:
    from pymatgen.io.ase import AseAtomsAdaptor
    from pymatgen.io.cif import CifWriter

    if structure.is_ordered and rng.random() < 0.2:
        from ase.io import write

        text = io.BytesIO()
        write(text, AseAtomsAdaptor.get_atoms(structure, msonable=False), format="cif")
        return text.getvalue().decode()
    return str(CifWriter(structure, symprec=0.01 if rng.random() < 0.7 else None))


def _csv(cifs: list[str]) -> bytes:
    import pandas as pd

    return pd.DataFrame({"cif": cifs, "gap": [1.0, 2.0]}).to_csv(index=False).encode()


def _parquet(structure: Any, rng: random.Random) -> bytes:
    import pandas as pd

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
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        how = rng.choice(("byte", "byte", "cut", "line", "twice", "word", "number", "digit", "digit", "swap"))
        if kind in ("parquet", "safetensors"):
            how = rng.choice(("byte", "byte", "start", "start", "cut"))
        if how in ("byte", "start"):  # a header is at the start
            at = rng.randrange(max(1, min(len(content), 3000) if how == "start" else len(content)))
            content = content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :]
        elif how == "cut":
            content = content[: rng.randrange(len(content) + 1)]
        elif how == "digit":
            digits = [i for i, letter in enumerate(content) if letter in b"0123456789."]
            if digits:
                at = rng.choice(digits)
                content = content[:at] + rng.choice((b"", b"7", b"0", b".", b"-", b"e")) + content[at + 1 :]
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


def other_reading(path: Path, kind: str) -> list[Any] | None:
    """The crystals as another reader has them, each for itself; None where it reads nothing."""
    from ase.io import read

    warnings.simplefilter("ignore")
    text = path.read_text(encoding="utf-8", errors="replace")
    if kind == "cif":
        return _of_each([text], _by_gemmi)
    if kind == "csv":
        return _of_each([row.get("cif", "") for row in csv.DictReader(io.StringIO(text, newline=""))], _by_gemmi)
    if kind == "parquet":
        import pyarrow.parquet as pq

        return _of_each(pq.read_table(path).to_pylist(), _by_ase_of_columns)
    parts = [text] if kind == "vasp" else [part for _, part, wrong in frames(text) if wrong is None]
    form = "vasp" if kind == "vasp" else "extxyz"
    return _of_each(parts, lambda part: [_of_ase(read(io.StringIO(part), format=form))])


def _of_each(parts: Iterable[Any], read: Callable[[Any], Reading]) -> list[Any] | None:
    """The crystals of all parts; None in the place of a part that cannot be read."""
    found: list[Any] = []
    for part in parts:
        try:
            found += read(part) or [None]
        except Exception:
            found.append(None)
    return found if any(one is not None for one in found) else None


def _of_ase(atoms: Any) -> tuple[np.ndarray, dict[int, float]]:
    return atoms.cell.cellpar(), dict(Counter(map(float, atoms.numbers)))


def _by_ase_of_columns(row: dict[str, Any]) -> Reading:
    from ase import Atoms

    cell = [row[f"prim_{x}"] for x in ("a", "b", "c", "alpha", "beta", "gamma")]
    points = np.array(row["frac"], dtype=float).reshape(-1, 3)
    return [_of_ase(Atoms(numbers=row["Z"], scaled_positions=points, cell=cell))]


def _by_gemmi(text: str) -> Reading:
    import gemmi

    found: Reading = []
    for block in gemmi.cif.read_string(text):
        small = gemmi.make_small_structure_from_block(block)
        if not small.sites or not small.cell.is_crystal():
            continue
        amounts: dict[int, float] = {}
        for site in small.get_all_unit_cell_sites():
            z = site.element.atomic_number
            amounts[z] = amounts.get(z, 0.0) + site.occ
        found.append((np.array(small.cell.parameters), amounts))
    return found


def _agree(own: tuple[np.ndarray, dict[int, float]], other: tuple[np.ndarray, dict[int, float]]) -> bool:
    (cell, amounts), (cell2, amounts2) = own, other
    amounts2 = {z: n for z, n in amounts2.items() if n}
    if amounts.keys() != amounts2.keys() or (np.abs(cell - cell2) > AGREEMENT * np.abs(cell2)).any():
        return False
    return all(abs(n - amounts2[z]) <= AGREEMENT * n for z, n in amounts.items())


def attempt(number: int, folder: str) -> tuple[str, str]:
    """What comes of one damaged file, and a word on it."""
    rng = random.Random(number)
    kind = KINDS[number % len(KINDS)]
    if kind == "safetensors":
        return timed(partial(_weights, rng, Path(folder, str(number))))
    path = Path(folder, f"{number}.{kind}")
    path.write_bytes(mutated(written(rng.choice(originals()), kind, rng), kind, rng))
    return timed(partial(_crystals, path, kind))


def _crystals(path: Path, kind: str) -> tuple[str, str]:
    from crystalgfn.crystallography.atoms import Record
    from crystalgfn.crystallography.standardize import standardise
    from crystalgfn.data.reader import records
    from crystalgfn.errors import CrystalGFNError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            entries = list(records(path))
            for entry in entries:
                if isinstance(entry, Record) and entry.atoms is not None:
                    standardise(entry.atoms.lattice, entry.atoms.points, entry.atoms.numbers)
        except CrystalGFNError as error:
            return "refused", str(error)
        except Exception as error:
            return "traceback", f"{type(error).__name__}: {error}"
    crystals = [entry.atoms for entry in entries if isinstance(entry, Record) and entry.atoms is not None]
    if not crystals:
        return "named", str(entries[0])
    try:
        other = other_reading(path, kind)
    except Exception:
        other = None
    own: Reading = [(atoms.lattice, {z: n for z, n in atoms.amounts.items()}) for atoms in crystals]
    if other is None:
        return "read alone", ""
    # a crystal that is named as skipped is not read: each that is read must be one of the other reader's, in order
    rest = iter(other)
    same = all(any(two is None or _agree(one, two) for two in rest) for one in own)
    return ("read the same", "") if same else ("read otherwise", f"{own} and {other}")


def _weights(rng: random.Random, folder: Path) -> tuple[str, str]:
    """A damaged file of weights, loaded by what loads its kind."""
    from crystalgfn.errors import CrystalGFNError
    from crystalgfn.properties.registry import load_proxy
    from crystalgfn.sampling.sampler import Sampler
    from crystalgfn.structures.ranking.polymorphs import PolymorphModel
    from crystalgfn.structures.ranking.wyckoff import WyckoffModel
    from crystalgfn.structures.refiner.refiner import DiffusionRefiner
    from crystalgfn.utils.files import SHIPPED, data_folder

    sources = (
        (SHIPPED / "rankers" / "wyckoff.safetensors", WyckoffModel.load),
        (SHIPPED / "rankers" / "polymorphs.safetensors", PolymorphModel.load),
        (data_folder("proxies") / "ionic_conductivity" / "weights.safetensors", lambda path: load_proxy(path.parent)),
        (SHIPPED / "refiners" / "default" / "weights.safetensors", lambda path: DiffusionRefiner.load(path.parent)),
        (SHIPPED / "samplers" / "density" / "weights.safetensors", lambda path: Sampler.load(path.parent)),
    )
    source, load = rng.choice(sources)
    shutil.copytree(source.parent, folder)
    path = folder / source.name
    path.write_bytes(mutated(source.read_bytes(), "safetensors", rng))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            load(path)
    except CrystalGFNError as error:
        return "refused", str(error)
    except Exception as error:
        return "traceback", f"{source.parent.name}/{source.name}: {type(error).__name__}: {error}"
    finally:
        shutil.rmtree(folder)
    return "loaded", ""


def main() -> None:
    """The command: counts of outcomes, and every one that should not be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, help="damaged files")
    parser.add_argument("--seed", type=int, default=0, help="number of the first")
    parser.add_argument("--out", type=Path, help="JSON file of the counts and of what should not be")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = watch(partial(attempt, folder=folder), range(options.seed, options.seed + options.count))
    sys.exit(report(found, BAD, lambda number: KINDS[number % len(KINDS)], options.out))


if __name__ == "__main__":
    main()
