"""A full disk is a sentence, whoever writes, and leaves what was there and nothing else."""

import errno
import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from crystalgfn.errors import CheckpointError
from crystalgfn.utils import files
from crystalgfn.utils.files import save_arrays, write_aside
from crystalgfn.utils.weight_files import save_model


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("old")
    return path


def expect(path: Path, write) -> None:
    with pytest.raises(CheckpointError, match=f"cannot write {path}: [Nn]o space left on device; free space or choose"):
        write()
    assert path.read_text() == "old" and [one.name for one in path.parent.iterdir()] == ["file"]


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_the_rename(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "replace", full)
    expect(old, lambda: write_aside(old, lambda aside: aside.write_text("new")))
    expect(old, lambda: save_arrays(old, {"a": np.zeros(3)}))
    expect(old, lambda: save_model(torch.nn.Linear(2, 2), old))


def test_text_and_bytes(old: Path) -> None:
    expect(old, lambda: write_aside(old, full))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 8512 vs 8448"),  # torch.save
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_torch_and_safetensors(error: Exception, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(aside: Path) -> None:
        aside.write_text("a part")
        raise error

    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    expect(old, lambda: write_aside(old, write))


def test_what_torch_itself_raises(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its writer meets the full disk in a stream that it is given."""

    class Stream(io.BytesIO):
        def write(self, content: object) -> int:
            full()

    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    expect(old, lambda: write_aside(old, lambda aside: torch.save({"a": torch.zeros(100_000)}, Stream())))


def test_another_failure_of_torch_is_not_called_a_full_disk(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(aside: Path) -> None:
        raise RuntimeError("unexpected pos 8512 vs 8448")

    monkeypatch.setattr(files, "FULL", 0)
    with pytest.raises(CheckpointError, match=r"was not written whole \(unexpected pos 8512 vs 8448\); free space"):
        write_aside(old, broken)


def test_pictures(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    monkeypatch.setattr("PIL.Image.Image.save", full)
    expect(old, lambda: write_aside(old, lambda aside: Figure().savefig(aside, format="png")))
