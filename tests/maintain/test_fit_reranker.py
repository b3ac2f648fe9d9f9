"""The choice is fitted to candidates of crystals whose structure is known, and a run that was stopped goes on."""

import numpy as np
import pytest

from crystalgfn.crystallography.orbits import Orbit, OrbitStructure
from crystalgfn.data.structure_index import Prototypes
from crystalgfn.errors import DataError
from crystalgfn.structures.ranking.reranker import CandidateRanker
from crystalgfn.structures.refiner.refiner import DiffusionRefiner
from crystalgfn.structures.sources.templates import Templates
from scripts.maintain import fit_reranker


def rutile(metal, a, c, x=0.305, anion=8):
    return OrbitStructure(136, (a, a, c, 90.0, 90.0, 90.0), (Orbit("a", metal), Orbit("f", anion, (x, x, 0.0))))


@pytest.fixture(scope="module")
def crystals():
    known = [rutile(22, 4.6, 2.96), rutile(50, 4.74, 3.19), rutile(44, 4.49, 3.11), rutile(32, 4.4, 2.87)]
    return known + [rutile(25, 4.87, 3.31, anion=9), rutile(12, 4.62, 3.05, anion=9)]


@pytest.fixture(scope="module")
def refiner(small_refiner, tmp_path_factory):
    folder = tmp_path_factory.mktemp("refiner")
    small_refiner().save(folder)
    return folder


def test_it_fits_and_goes_on(crystals, refiner, tmp_path, capsys, monkeypatch):
    Prototypes.of(crystals).save(tmp_path / "all.npz")
    monkeypatch.setattr(fit_reranker, "CHUNK", 2)
    asked = [
        str(tmp_path / "all.npz"), "--refiner", str(refiner), "--templates", str(tmp_path / "all.npz"),
        "--examples", str(tmp_path / "examples.npz"), "--draws", "4", "--out", str(tmp_path / "choice.safetensors"),
    ]  # fmt: skip
    fit_reranker.main([*asked, "--n", "4"])
    said = capsys.readouterr().out
    assert "T1: 1.000 there" in said  # every crystal has templates among the others
    with np.load(tmp_path / "examples.npz") as file:
        assert len(file["sizes"]) == 12 and file["labels"].any()
        first = file["rows"]
    fit_reranker.main([*asked, "--n", "6"])  # goes on with the last two
    with np.load(tmp_path / "examples.npz") as file:
        assert len(file["sizes"]) == 18 and (file["rows"][: len(first)] == first).all()
    assert CandidateRanker.load(tmp_path / "choice.safetensors")


def test_without_templates(crystals, refiner, tmp_path, capsys):
    Prototypes.of(crystals).save(tmp_path / "all.npz")
    alone = [str(tmp_path / "all.npz"), "--refiner", str(refiner), "--examples", str(tmp_path / "examples.npz")]
    fit_reranker.main([*alone, "--draws", "4", "--out", str(tmp_path / "choice.safetensors")])
    assert "weights written to" in capsys.readouterr().out
    with np.load(tmp_path / "examples.npz") as file:
        assert (file["rows"][:, 1] == 0).all()  # no template among them


def test_a_file_of_something_else(crystals, refiner, tmp_path):
    (tmp_path / "examples.npz").write_text("no")
    with pytest.raises(DataError, match="holds no examples"):
        fit_reranker.gather(
            crystals, DiffusionRefiner.load(refiner), Templates(Prototypes.of(crystals)), 2, tmp_path / "examples.npz"
        )
