"""The index of shipped weights and tables says what is there, and a damaged file is found out."""

import json
import shutil
from pathlib import Path

import pytest

from crystalgfn.errors import CheckpointError
from crystalgfn.properties.registry import load_proxy
from crystalgfn.sampling.sampler import Sampler
from crystalgfn.utils import shipped_files as module
from crystalgfn.utils.shipped_files import INDEX, check_size, roots, shipped_files, shipped_index, verify_weights


def test_every_file_is_listed_with_its_checksum_licence_and_card():
    assert verify_weights() == len(shipped_index()) == len(shipped_files())
    for entry in shipped_index().values():
        root, _, rest = entry["card"].partition("/")
        assert (roots()[root] / rest).is_file(), entry
        assert entry["licence"] and entry["data"], entry


def test_no_weights_lie_elsewhere():
    root = Path(module.__file__).resolve().parents[2]
    everything = {path for folder in ("crystalgfn", "proxies", "config") for path in (root / folder).rglob("*")}
    weights = {path for path in everything if path.suffix in (".safetensors", ".npz", ".pt")}
    assert weights == {path for path in shipped_files().values() if path.suffix != ".json"}


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of two shipped folders and the index."""
    shutil.copytree(module.SHIPPED / "samplers" / "density", tmp_path / "weights" / "samplers" / "density")
    shutil.copytree(module.data_folder("proxies") / "band_gap", tmp_path / "proxies" / "band_gap")
    index = [entry for entry in shipped_index().values() if "density/" in entry["file"] or "band_gap/" in entry["file"]]
    (tmp_path / "weights" / INDEX.name).write_text(json.dumps(index))
    monkeypatch.setattr(module, "INDEX", tmp_path / "weights" / INDEX.name)
    monkeypatch.setattr(module, "SHIPPED", tmp_path / "weights")
    monkeypatch.setattr(module, "data_folder", lambda name: tmp_path / name)
    return tmp_path


def test_a_truncated_file_is_refused_when_it_is_loaded(copied: Path):
    assert verify_weights() == 3
    weights, proxy = copied / "weights/samplers/density/weights.safetensors", copied / "proxies/band_gap"
    for path in (weights, proxy / "weights.safetensors"):
        path.write_bytes(path.read_bytes()[:-8])
    for load in (lambda: Sampler.load(weights.parent), lambda: load_proxy(proxy)):
        with pytest.raises(CheckpointError, match=r"has \d+ bytes, not \d+; install the package again"):
            load()


def test_changed_missing_and_unlisted_files_are_named(copied: Path):
    weights = copied / "weights/samplers/density/weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1  # of the same size
    weights.write_bytes(content)
    (copied / "proxies/band_gap/weights.safetensors").unlink()
    (copied / "proxies/band_gap/more.npz").write_bytes(b"")
    check_size(weights)
    with pytest.raises(CheckpointError) as error:
        verify_weights()
    for words in (
        "density/weights.safetensors has another",
        "weights.safetensors is missing",
        "more.npz is not listed",
    ):
        assert words in str(error.value)


def test_a_users_own_files_may_have_any_size(tmp_path: Path):
    (tmp_path / "weights.safetensors").write_bytes(b"mine")
    check_size(tmp_path / "weights.safetensors")


def test_a_damaged_index_is_named(copied: Path):
    (copied / "weights" / INDEX.name).write_text("[{")
    with pytest.raises(CheckpointError, match="index.json cannot be read"):
        verify_weights()
