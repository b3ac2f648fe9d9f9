"""The loop of fitting, drawing and labelling, on tiny things and without CHGNet."""

import numpy as np
import pandas as pd
import pytest
import torch

from crystalgfn import CrystalSpace, PolicyConfig, Sampler, TrainerConfig
from crystalgfn.calculators.base import ForcesAndStress
from crystalgfn.calculators.energy_references import References
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.data.labelled import Rows
from crystalgfn.errors import CheckpointError
from crystalgfn.evaluation.proxy_check.report import gap
from crystalgfn.fitting import active_learning
from crystalgfn.fitting import labels as labels_module
from crystalgfn.fitting.active_learning import (
    CalculatorLabels,
    SamplerDraws,
    active_learning_loop,
    concat_labels,
    gap_row,
    hull_of,
    without,
)
from crystalgfn.fitting.labels import BOUND, FIT, VALUE, Labels, label_crystals, read_labels
from crystalgfn.properties.ensemble import EnsembleProxy
from crystalgfn.rewards import Density
from crystalgfn.utils.files import write_aside
from crystalgfn.utils.run_folder import RunFolder

SPACE = CrystalSpace(elements=["Na", "K", "Cl", "F"], space_groups=[221, 225], n_atoms=(2, 4))
SMALL = PolicyConfig(width=16, blocks=1, components=2)


def labels_of(crystals: Crystals, value: torch.Tensor) -> Labels:
    """Values for cells of two atoms, bounds for larger ones."""
    n = len(crystals)
    crystals = Crystals(crystals.space_group, crystals.composition, crystals.lattice.float())
    kind = torch.where(crystals.n_atoms == 2, VALUE, BOUND)
    return Labels(
        crystals=crystals,
        value=value.float(),
        kind=kind,
        source=torch.full((n,), 3),
        split=torch.full((n,), FIT),
        placed=torch.zeros(n, dtype=torch.bool),
        converged=torch.ones(n, dtype=torch.bool),
        candidates=torch.full((n,), 8),
        refined=torch.ones(n, dtype=torch.bool),
    )


class Bench:
    """What the loop calls, counted: untrained networks as fits, untrained samplers' draws, minus the density."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.fitted, self.drawn, self.labelled, self.stop_at = [], [], [], stop_at

    def fit(self, folder, labels) -> None:
        self.fitted.append(labels)
        torch.manual_seed(len(labels))
        EnsembleProxy("formation_energy", "eV/atom", 2, 8, 1).save(folder)
        write_aside(folder / "metrics.json", lambda path: path.write_text("{}"))

    def draw(self, proxy, folder, number) -> Crystals:
        self.drawn.append(number)
        return Sampler.untrained(SPACE, policy=SMALL).sample(20, seed=number)

    def label(self, crystals, number):
        if number == self.stop_at:
            raise KeyboardInterrupt
        self.labelled.append(number)
        kept = torch.arange(1, len(crystals))  # the first one of a chunk cannot be placed
        return labels_of(crystals[kept], -crystals.density[kept]), kept


@pytest.fixture
def start() -> Labels:
    crystals = Sampler.untrained(SPACE, policy=SMALL).sample(6, seed=99)
    return labels_of(crystals, -crystals.density)


def test_each_fit_sees_the_labels_of_the_rounds_before_it(start, tmp_path):
    bench = Bench()
    table = active_learning_loop(tmp_path, 2, start, bench.fit, bench.draw, bench.label, progress=False)
    assert [len(labels) for labels in bench.fitted] == [6, 24, 42]  # 20 drawn a round, two chunks, each lacks one
    assert bench.drawn == [0, 1, 2] and bench.labelled == [0, 1, 10_000, 10_001, 20_000, 20_001]
    assert table["round"].tolist() == [0, 1, 2] and table.labelled.tolist() == [18] * 3
    assert pd.read_csv(tmp_path / "gaps.csv")["median"].to_numpy() == pytest.approx(table["median"], abs=1e-4)
    assert len(read_labels(tmp_path / "labels.npz", high=True)) == 60
    last, kept = EnsembleProxy.load(tmp_path / "round_2"), EnsembleProxy.load(tmp_path)
    assert torch.equal(last(start.crystals), kept(start.crystals))


def test_what_was_interrupted_goes_on_and_what_is_done_is_not_done_again(start, tmp_path):
    bench = Bench(stop_at=10_001)
    with pytest.raises(KeyboardInterrupt):
        active_learning_loop(tmp_path, 1, start, bench.fit, bench.draw, bench.label, progress=False)
    again = Bench()
    found = active_learning_loop(tmp_path, 1, start, again.fit, again.draw, again.label, progress=False)
    assert not again.fitted and not again.drawn and again.labelled == [10_001]
    whole = Bench()
    other = active_learning_loop(tmp_path / "other", 1, start, whole.fit, whole.draw, whole.label, progress=False)
    pd.testing.assert_frame_equal(found, other)
    more = Bench()
    assert len(active_learning_loop(tmp_path, 2, start, more.fit, more.draw, more.label, progress=False)) == 3
    assert more.drawn == [2]


def test_what_is_held_out_enters_no_fit(start, tmp_path):
    taken = frozenset({("Cl1Na1", 225), ("F1K1", 221)})
    bench = Bench()
    active_learning_loop(tmp_path, 1, start, bench.fit, bench.draw, bench.label, taken, progress=False)
    made = bench.fitted[1][torch.arange(6, len(bench.fitted[1]))]
    drawn = concat_labels([bench.label(bench.draw(None, None, 0)[i : i + 16], 0)[0] for i in (0, 16)])
    assert any(key & taken for key in drawn.keys())
    assert not any(key & taken for key in made.keys())
    assert len(made) == sum(not key & taken for key in drawn.keys())


def test_the_gap_of_a_round_by_hand(start):
    claim = Density()
    row = gap_row(3, claim, start.crystals, start)
    density = start.crystals.density.double().numpy()
    assert row["median"] == pytest.approx(np.median(2 * density), rel=1e-5)
    assert row["bias"] == pytest.approx(2 * density.mean(), rel=1e-5)
    values = (start.kind == VALUE).numpy()
    assert 0 < row["value_crystals"] == values.sum() < 6 == row["crystals"]
    assert row["value_bias"] == pytest.approx(gap(density[values], -density[values])["bias"], rel=1e-5)
    assert gap_row(0, claim, start.crystals, start[start.kind == 7])["median"] is None


def test_labels_are_put_together_and_left_out_whole(start):
    both = concat_labels([start, start[:2]])
    assert len(both) == 8 and torch.equal(both.value[6:], start.value[:2])
    assert len(without(start, frozenset())) == 6
    assert len(without(start, frozenset().union(*start.keys()))) == 0


def test_the_hull_knows_nothing_of_the_validation_rows():
    crystals = Sampler.untrained(SPACE, policy=SMALL).sample(30, seed=4)
    keys = [frozenset({pair}) for pair in zip(crystals.formulas(), crystals.space_group.tolist(), strict=True)]
    rows = Rows(crystals, torch.full((30,), -1.0, dtype=torch.float64), keys)
    val = rows[np.array([formula == "NaCl" for formula in crystals.formulas()])]
    assert 0 < len(val) < 30
    assert hull_of(rows, val).energy(["NaCl"]).item() == pytest.approx(0, abs=1e-9)
    assert hull_of(rows, rows[np.zeros(30, dtype=bool)]).energy(["NaCl"]).item() == pytest.approx(-1)


def test_a_sampler_is_trained_once_a_round(tmp_path, monkeypatch):
    trainer = TrainerConfig(steps=2, batch_size=10, progress=False)
    draws = SamplerDraws(space=SPACE, n=5, policy=SMALL, trainer=trainer)
    torch.manual_seed(3)
    proxy = EnsembleProxy("formation_energy", "eV/atom", 2, 8, 1)
    proxy.save(tmp_path)
    proxy = EnsembleProxy.load(tmp_path)
    drawn = draws(proxy, tmp_path / "round_0", 0)
    assert len(drawn) == 5 and bool(SPACE.contains(drawn).all())
    monkeypatch.setattr(active_learning, "train", None)
    assert torch.equal(draws(proxy, tmp_path / "round_0", 0).lattice, drawn.lattice)


@pytest.mark.slow
def test_a_calculator_labels_what_is_drawn():
    pytest.importorskip("chgnet", reason="needs the extra [relax]")
    crystals = Sampler.untrained(SPACE, policy=SMALL).sample(6, seed=1)
    labels, rows = CalculatorLabels(seed=2)(crystals, 0)
    assert len(labels) == len(rows) and torch.isfinite(labels.value).all()
    assert torch.equal(labels.crystals.composition, crystals.composition[rows])


class Wells:
    """Energies that are lowest at a volume per atom, without forces."""

    def __init__(self, name: str, lowest: float) -> None:
        self.name, self.lowest = name, lowest

    def knows(self, numbers):
        return True

    def energies(self, structures):
        return np.array([self.lowest + (one.volume / len(one) / 20 - 1) ** 2 for one in structures])

    def forces_and_stress(self, structures):
        energies = self.energies(structures)
        return [
            ForcesAndStress(energy=e, forces=np.zeros((len(one), 3)), stress=np.zeros((3, 3)))
            for e, one in zip(energies, structures, strict=True)
        ]


def test_a_second_opinion_is_the_label_and_the_disagreement_is_kept(monkeypatch):
    zero = References(energies=(0.0,) * 118, calculator="Wells", model="", rows=0, checks={})
    monkeypatch.setattr(labels_module, "references_of", lambda calculator: zero)
    crystals = Sampler.untrained(SPACE, policy=SMALL).sample(8, seed=1)
    one = label_crystals(crystals, references=zero, seed=2, calculator=Wells("first", -1.0))
    both = label_crystals(
        crystals, references=zero, seed=2, calculator=Wells("first", -1.0), second_opinion=Wells("second", -0.75)
    )
    assert len(one[0]) and torch.equal(one[1], both[1]) and one[0].disagreement.isnan().all()
    assert torch.allclose(both[0].value, one[0].value + 0.25, atol=1e-6)
    assert torch.allclose(both[0].disagreement, torch.full((len(both[0]),), 0.25), atol=1e-6)


def test_a_loop_goes_on_with_what_it_began_with_and_alone(start, tmp_path):
    bench = Bench(stop_at=1)
    with pytest.raises(KeyboardInterrupt):
        active_learning_loop(tmp_path, 1, start, bench.fit, bench.draw, bench.label, progress=False)
    again = Bench()
    how = {"fit": again.fit, "draw": again.draw, "label": again.label, "progress": False}
    with pytest.raises(CheckpointError, match="holds a loop with labels=6, not 5"):
        active_learning_loop(tmp_path, 1, start[:5], **how)
    with pytest.raises(CheckpointError, match="holds a loop with content="):
        active_learning_loop(tmp_path, 1, start, excluded_keys=frozenset({("Cl1Na1", 225)}), **how)
    with RunFolder(tmp_path), pytest.raises(CheckpointError, match="is in use by process"):
        active_learning_loop(tmp_path, 1, start, **how)
    assert not again.fitted
    assert len(active_learning_loop(tmp_path, 1, start, **how)) == 2
