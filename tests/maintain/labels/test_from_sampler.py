"""Labels of a sampler's draws: all of them once, also after an interruption, none of what is held out."""

from types import SimpleNamespace

import pytest
import torch

import crystalgfn as cg
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import CheckpointError, DataError, EmptySpace
from crystalgfn.fitting.labels import BOUND, FIT, Labels, read_labels
from crystalgfn.policy.network import PolicyConfig
from scripts.maintain.labels import from_sampler
from scripts.maintain.labels.from_sampler import label_draws

N = 40


class Densities:
    """Labels every crystal with its density; ``stop_at``: is interrupted at that chunk."""

    stop_at: int | None = None

    def __init__(self, hull, templates, seed, calculator, second_opinion) -> None:
        pass

    def __call__(self, crystals: Crystals, number: int) -> tuple[Labels, torch.Tensor]:
        if number == self.stop_at:
            raise KeyboardInterrupt
        n = len(crystals)
        mine = Crystals(crystals.space_group, crystals.composition, crystals.lattice.float())
        flags = torch.zeros(n, dtype=torch.bool)
        kind, source, split = (torch.full((n,), value) for value in (BOUND, 3, FIT))
        labels = Labels(
            crystals=mine,
            value=crystals.density.float(),
            kind=kind,
            source=source,
            split=split,
            placed=flags,
            converged=flags,
            candidates=kind,
            refined=~flags,
        )
        return labels, torch.arange(n)


@pytest.fixture
def sampler(tmp_path, monkeypatch):
    space = cg.CrystalSpace(elements=["Na", "K", "Cl", "F"], space_groups=[221, 225], n_atoms=(2, 4))
    small = cg.Sampler.untrained(space, policy=PolicyConfig(width=16, blocks=1, components=2))
    small.save(tmp_path / "sampler")
    monkeypatch.setattr(from_sampler, "CalculatorLabels", Densities)
    monkeypatch.setattr(from_sampler, "Parents", SimpleNamespace(read=lambda *_: None))
    monkeypatch.setattr(from_sampler, "TemplateCells", lambda _: SimpleNamespace(cells=None))
    monkeypatch.setattr(from_sampler, "hull_without", lambda *_: (None, frozenset()))
    return small


def test_every_draw_is_labelled_once_also_after_an_interruption(sampler, tmp_path, monkeypatch) -> None:
    drawn = sampler.sample(N, seed=4)
    options = {"sampler": str(tmp_path / "sampler"), "n": N, "seed": 4}
    monkeypatch.setattr(Densities, "stop_at", 1)
    with pytest.raises(KeyboardInterrupt):
        label_draws("train", "val", tmp_path / "labels", **options)
    monkeypatch.setattr(Densities, "stop_at", None)
    found = label_draws("train", "val", tmp_path / "labels", **options)
    assert torch.equal(found.crystals.composition, drawn.composition)
    assert torch.allclose(found.value, drawn.density.float())
    assert found.refined.all()


def test_what_is_held_out_is_not_among_them(sampler, tmp_path, monkeypatch) -> None:
    options = {"sampler": str(tmp_path / "sampler"), "n": N}
    every = label_draws("train", "val", tmp_path / "labels", **options)
    (pair,) = every.keys()[0]
    monkeypatch.setattr(from_sampler, "hull_without", lambda *_: (None, frozenset({pair})))
    found = label_draws("train", "val", tmp_path / "labels", **options)
    assert 0 < len(found) < N
    assert not any(pair in key for key in found.keys())


def test_draws_of_chosen_groups_alone(sampler, tmp_path) -> None:
    options = {"sampler": str(tmp_path / "sampler"), "n": N}
    found = label_draws("train", "val", tmp_path / "labels", space_groups=range(222, 231), **options)
    assert len(found) == N and set(found.crystals.space_group.tolist()) == {225}
    with pytest.raises(EmptySpace, match="space_groups"):
        label_draws("train", "val", tmp_path / "others", space_groups=range(1, 5), **options)


def test_draws_with_chosen_elements_alone(sampler, tmp_path) -> None:
    options = {"sampler": str(tmp_path / "sampler"), "n": N}
    found = label_draws("train", "val", tmp_path / "labels", elements=["K", "F"], **options)
    assert len(found) == N and (found.crystals.composition[:, [18, 8]] > 0).all()


def test_a_folder_of_other_draws_is_refused(sampler, tmp_path) -> None:
    options = {"sampler": str(tmp_path / "sampler"), "n": N}
    label_draws("train", "val", tmp_path / "labels", **options)
    with pytest.raises(CheckpointError, match=r"holds labels of .*'seed': 0.*, not of .*'seed': 1"):
        label_draws("train", "val", tmp_path / "labels", seed=1, **options)
    (tmp_path / "labels" / "draws.json").unlink()
    with pytest.raises(CheckpointError, match="nothing says the origin of"):
        label_draws("train", "val", tmp_path / "labels", **options)


def test_the_command_takes_groups_from_the_first_to_the_last(sampler, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(from_sampler, "counts", lambda _: "")
    words = ["label_draws", "train", "val", str(tmp_path / "one"), "--sampler", str(tmp_path / "sampler"), "--n", "20"]
    output = tmp_path / "labels.npz"
    monkeypatch.setattr("sys.argv", [*words, "--output", str(output), "--space-groups", "222", "225"])
    from_sampler.main()
    assert set(read_labels(output, high=True)[-20:].crystals.space_group.tolist()) == {225}
    monkeypatch.setattr("sys.argv", [*words, "--space-groups", "225", "222"])
    with pytest.raises(SystemExit):
        from_sampler.main()
    assert "--space-groups 225 222: give the first and the last" in capsys.readouterr().err


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        label_draws(tmp_path / "nowhere.parquet", tmp_path / "nowhere.parquet", tmp_path / "labels")
