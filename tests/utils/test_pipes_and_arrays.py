"""Paths that never end and arrays that are damaged are refused, wherever files are read."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from crystalgfn.data.reader import crystals
from crystalgfn.data.standard_cells import Parents
from crystalgfn.data.structure_index import Prototypes
from crystalgfn.errors import CrystalGFNError, DataError
from crystalgfn.fitting.labels import SHIPPED, read_labels
from crystalgfn.properties.convex_hull import ExactHull
from crystalgfn.structures.refiner.dataset import load_prepared
from crystalgfn.utils.files import load_arrays, save_arrays


def all_of(path):
    return list(crystals(path))


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "crystals.cif"
    os.mkfifo(path)
    return path


@pytest.mark.parametrize("opens", [Prototypes.build, Prototypes.read, Parents.read, all_of, ExactHull.from_entries])
def test_a_pipe_is_refused_at_once(pipe, opens):
    with pytest.raises(CrystalGFNError, match="pipe"):
        opens(pipe)


def test_a_pipe_in_a_folder_is_one_record_that_is_skipped(pipe):
    (found,) = crystals(pipe.parent)
    assert "pipe" in found.reason


@pytest.mark.parametrize("reads", [load_arrays, Prototypes.read, read_labels, load_prepared])
@pytest.mark.parametrize("damage", ["cut", "empty", "text", "flipped"])
def test_damaged_arrays(tmp_path, reads, damage):
    path = tmp_path / "x.npz"
    content = bytearray(SHIPPED.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 255
    path.write_bytes({"cut": content[:3000], "empty": b"", "text": b"nonsense", "flipped": content}[damage])
    with pytest.raises(DataError, match=str(path.name)):
        reads(path)


def test_arrays_survive(tmp_path):
    save_arrays(tmp_path / "x.npz", {"a": np.arange(3), "b": np.array(["ü"])})
    found = load_arrays(tmp_path / "x.npz")
    assert found["a"].tolist() == [0, 1, 2] and found["b"].tolist() == ["ü"]


@pytest.mark.skipif(sys.platform != "linux", reason="Python itself reads arguments as UTF-8 elsewhere")
def test_letters_that_the_terminal_lacks_are_named():
    """In an ASCII locale without Python's UTF-8 mode, on which pyarrow and pandas end in tracebacks."""
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "crystalgfn.cli", "sample", "n=2", "structures=false", "out=krä"]
    done = subprocess.run(command, env={**os.environ, **plain}, capture_output=True, check=False)
    assert done.returncode == 2 and b"PYTHONUTF8=1" in done.stderr and b"Traceback" not in done.stderr
