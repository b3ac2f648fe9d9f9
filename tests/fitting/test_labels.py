from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch

from crystalgfn.calculators.energy_references import References
from crystalgfn.crystallography.atoms import CELL
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.elements import NUMBER
from crystalgfn.crystallography.standardize import crystals_of
from crystalgfn.data.labelled import Rows, split_by_formula
from crystalgfn.data.standard_cells import Parents
from crystalgfn.errors import DataError
from crystalgfn.fitting import labels
from crystalgfn.fitting.labels import (
    BOUND,
    FIT,
    HELD,
    HELD_SEED,
    HELD_SHARE,
    HIGH,
    SOURCES,
    VAL,
    VALUE,
    Labels,
    label_crystals,
    read_labels,
    reduced_key,
)
from crystalgfn.properties.convex_hull import ExactHull
from scripts.maintain.labels import make
from scripts.maintain.labels.labelling import Labeller, RawLabel
from scripts.maintain.labels.merge import card, counts, merge_labels
from scripts.maintain.make_hull_entries import make_entries

PRIMITIVE = [3.99, 3.99, 3.99, 60, 60, 60]
ROCK_SALT = ("NaCl", 225, PRIMITIVE, [11, 17], [[0, 0, 0], [0.5, 0.5, 0.5]], -2.1)
POTASSIUM = ("KCl", 225, [4.5, 4.5, 4.5, 60, 60, 60], [19, 17], [[0, 0, 0], [0.5, 0.5, 0.5]], -2.2)
CAESIUM = ("CsCl", 221, [4.2, 4.2, 4.2, 90, 90, 90], [55, 17], [[0, 0, 0], [0.5, 0.5, 0.5]], -2.3)


def write(path, *rows):
    """A Parquet file as MP-20's."""
    columns = {"formula": [r[0] for r in rows], "spacegroup": [r[1] for r in rows]}
    columns |= {name: [r[2][i] for r in rows] for i, name in enumerate(CELL)}
    columns |= {f"prim_{name}": [r[2][i] for r in rows] for i, name in enumerate(CELL)}
    columns |= {"n_atoms": [len(r[3]) for r in rows], "Z": [r[3] for r in rows]}
    columns |= {"frac": [np.ravel(r[4]) for r in rows], "formation_energy_per_atom": [r[5] for r in rows]}
    pd.DataFrame(columns).to_parquet(path)
    return path


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    train = write(tmp_path / "train.parquet", ROCK_SALT, POTASSIUM)
    return train, write(tmp_path / "val.parquet", CAESIUM)


def label(symbols, group=225, energy=-3.0, change=np.nan, base=np.nan, converged=True, given=0, placed=True):
    composition = np.zeros(118, dtype=np.int64)
    for symbol, count in symbols.items():
        composition[NUMBER[symbol] - 1] = count
    lattice = np.array([5.64, 5.64, 5.64, 90, 90, 90])
    return RawLabel(
        space_group=group,
        composition=composition,
        lattice=lattice,
        energy=energy,
        change=change,
        base=base,
        converged=converged,
        candidates=8,
        given=given,
        placed=placed,
    )


class Constant:
    """A calculator that gives every structure -3 eV/atom."""

    name = "made"

    def knows(self, numbers):
        return True

    def energies(self, structures):
        return np.full(len(structures), -3.0)

    def forces_and_stress(self, structures):
        raise NotImplementedError


ZERO = References(energies=(0.0,) * 118, calculator="made", model="", rows=1, checks={})


def merged(files, tmp_path, *rows):
    folder = tmp_path / "shards"
    make._write(folder / "shard-00000.npz", [(source, 0, one) for source, one in rows], Counter(), Counter(), "made")
    return merge_labels(folder, *files, ZERO)


def test_a_label_is_the_parents_energy_and_the_change_or_chgnets_own(files, tmp_path):
    found = merged(
        files,
        tmp_path,
        ("strained", label({"Na": 1, "Cl": 1}, energy=-99, change=0.25, base=-2.1)),
        ("swapped", label({"Li": 1, "Cl": 1}, energy=-1.5, given=1)),
    )
    assert found.value.tolist() == pytest.approx([-1.85, -1.5])
    assert [SOURCES[i] for i in found.source] == ["strained", "swapped"]
    assert found.kind.tolist() == [VALUE, VALUE]


def test_what_is_a_value_and_what_a_bound(files, tmp_path):
    small, large = {"Li": 1, "Cl": 1}, {"Li": 4, "Cl": 4}
    rows = [
        (VALUE, label(small)),
        (BOUND, label(large)),
        (VALUE, label(large, given=1)),
        (BOUND, label(large, given=1, converged=False)),
        (HIGH, label(small, energy=1.1)),
        (HIGH, label(large, energy=1.1, converged=False)),
        (VALUE, label(small, energy=0.9)),
    ]
    found = merged(files, tmp_path, *(("placed", one) for _, one in rows))
    assert found.kind.tolist() == [kind for kind, _ in rows]


def test_labels_end_above_the_hull_of_the_training_entries(files, tmp_path):
    rows = [("swapped", label({"K": 1, "Cl": 1}, energy=energy, given=1)) for energy in (-1.25, -1.15)]
    found = merged(files, tmp_path, *rows)
    assert found.kind.tolist() == [VALUE, HIGH]  # the hull is at -2.2
    assert found.value.tolist() == pytest.approx([-1.25, -1.2])


def test_what_val_holds_is_left_out_but_for_its_own_strained_copies(files, tmp_path):
    found = merged(
        files,
        tmp_path,
        ("swapped", label({"Cs": 1, "Cl": 1}, group=221, given=1)),
        ("swapped", label({"Cs": 1, "Cl": 1}, group=225, given=1)),
        ("held", label({"Cs": 1, "Cl": 1}, group=221, change=0.1, base=-2.3)),
    )
    assert found.crystals.space_group.tolist() == [225, 221]
    assert (found.split == VAL).tolist() == [False, True]
    assert SOURCES[found.source[1]] == "strained"


def test_shards_say_whether_the_refiner_placed_atoms_and_older_ones_do_not(files, tmp_path):
    rows = [("strained", label({"Na": 1, "Cl": 1}, base=-2.1, change=0.1)), ("placed", label({"Li": 4, "Cl": 4}))]
    assert merged(files, tmp_path, *rows).refined.tolist() == [False, True]
    path = tmp_path / "shards" / "shard-00000.npz"
    with np.load(path) as file:
        columns = {name: file[name] for name in file.files if name != "refined"}
    np.savez(path, **columns)
    assert not merge_labels(tmp_path / "shards", *files, ZERO).refined.any()


def test_compositions_are_held_out_whole_and_as_split_does(files, tmp_path):
    symbols = ["Li", "Na", "K", "Rb", "Mg", "Ca", "Sr", "Ba", "Al", "Ga", "In", "Y", "La", "Ti", "Zr", "Mn", "Fe"]
    rows = [("swapped", label({s: 1, a: n}, given=1)) for s in symbols for a in ("O", "S", "F") for n in (1, 2, 3)]
    rows += [("placed", label({s: 2, a: 2 * n})) for s in symbols for a in ("O", "S", "F") for n in (1, 2, 3)]
    found = merged(files, tmp_path, *rows)
    parts = {}
    for (key,), part in zip(found.keys(), found.split.tolist(), strict=True):
        parts.setdefault(key[0], set()).add(part)
    assert all(len(part) == 1 for part in parts.values())
    held = {name for name, part in parts.items() if part == {HELD}}
    assert 0.04 < len(held) / len(parts) < 0.2
    equilibrium = split_by_formula(Rows(found.crystals, found.value, found.keys()), HELD_SHARE, HELD_SEED)[1]
    assert {name for (key,) in equilibrium.keys for name in key[:1]} == held
    assert set(found.split.tolist()) == {FIT, HELD}


def test_formulas_are_alphabetical_and_reduced():
    composition = np.zeros(118, dtype=np.int64)
    composition[[NUMBER["O"] - 1, NUMBER["Fe"] - 1, NUMBER["Al"] - 1]] = (8, 2, 4)
    assert reduced_key(composition) == "Al2Fe1O4"


@pytest.fixture
def some():
    composition = torch.zeros(3, 118, dtype=torch.int64)
    composition[:, 10], composition[1, 16], composition[2, 92] = torch.tensor([4, 1, 80]), 20, 1
    crystals = Crystals(torch.tensor([1, 225, 194]), composition, torch.rand(3, 6) * 50 + 2)
    return Labels(
        crystals=crystals,
        value=torch.tensor([-1.25, 0.0, 3.5]),
        kind=torch.tensor([VALUE, BOUND, HIGH]),
        source=torch.tensor([0, 1, 3]),
        split=torch.tensor([FIT, HELD, VAL]),
        placed=torch.tensor([False, True, False]),
        converged=torch.tensor([True, True, False]),
        candidates=torch.tensor([1, 11, 8]),
        refined=torch.tensor([False, True, True]),
        disagreement=torch.tensor([torch.nan, 0.125, -0.5]),
    )


def test_a_file_gives_back_what_was_saved(some, tmp_path):
    some.save(tmp_path / "labels.npz")
    again = read_labels(tmp_path / "labels.npz", high=True)
    for name in ("value", "kind", "source", "split", "placed", "converged", "candidates", "refined"):
        assert torch.equal(getattr(again, name), getattr(some, name)), name
    assert torch.equal(again.disagreement.nan_to_num(9.0), some.disagreement.nan_to_num(9.0))
    for name in ("space_group", "composition", "lattice"):
        assert torch.equal(getattr(again.crystals, name), getattr(some.crystals, name)), name
    assert read_labels(tmp_path / "labels.npz").kind.tolist() == [VALUE, BOUND]
    assert not [p for p in tmp_path.iterdir() if p.name != "labels.npz"]


def test_a_file_of_one_calculator_alone_is_still_read(some, tmp_path):
    some.save(tmp_path / "labels.npz")
    with np.load(tmp_path / "labels.npz") as file:
        columns = {name: file[name] for name in file.files if name != "disagreement"}
    np.savez(tmp_path / "old.npz", **{**columns, "version": np.array(2)})
    again = read_labels(tmp_path / "old.npz", high=True)
    assert torch.equal(again.value, some.value) and again.disagreement.isnan().all()


def test_the_card_counts_what_is_there(some):
    assert counts(some).splitlines()[2:] == [
        "| strained | 1 | 0 | 0 | 1 | 0 | 0 |",
        "| swapped | 0 | 1 | 0 | 0 | 1 | 0 |",
        "| placed | 0 | 0 | 0 | 0 | 0 | 0 |",
        "| proposed | 0 | 0 | 1 | 0 | 0 | 0 |",
        "| all | 1 | 1 | 1 | 1 | 1 | 0 |",
    ]
    pytest.importorskip("chgnet", reason="the card names the version of the extra [relax]")
    text = card(some, {"strained": 90.0, "swapped": 30.0}, seeds="7")
    assert "Seeds 7. 2 minutes" in text and "strained 2, swapped 0" in text and counts(some) in text


@pytest.mark.parametrize("damage", ["missing", "text", "cut", "other", "version"])
def test_a_file_that_holds_no_labels_is_refused(damage, some, tmp_path):
    path = tmp_path / "labels.npz"
    some.save(path)
    if damage == "missing":
        path.unlink()
    if damage == "text":
        path.write_text("labels")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:300])
    if damage == "other":
        np.savez(path, energies=np.zeros(3))
    if damage == "version":
        with np.load(path) as file:
            columns = dict(file)
        np.savez(path, **{**columns, "version": np.array(99)})
    with pytest.raises(DataError, match="version 99" if damage == "version" else "holds no labels"):
        read_labels(path)


def test_no_shards_and_a_damaged_one_are_refused(files, tmp_path):
    with pytest.raises(DataError, match="holds no shards"):
        merge_labels(tmp_path, *files, ZERO)
    (tmp_path / "shard-00000.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"shard-00000.npz is not a shard"):
        merge_labels(tmp_path, *files, ZERO)


class Counting:
    """Two sources that take no time but that of the clock below; the second stops the run at its third unit."""

    def __init__(self, *_):
        self.made, self.calculator = [], Constant()
        self.sources = {"strained": (0.75, self._unit("strained")), "swapped": (0.25, self._unit("swapped"))}

    def _unit(self, source):
        def unit(k):
            Counting.clock += 1.0
            if Counting.stop_at == (source, k):
                raise KeyboardInterrupt
            return [label({"Li": k + 1, "Cl": 1}, given=1)]

        return unit


@pytest.fixture
def counting(monkeypatch):
    Counting.clock, Counting.stop_at = 0.0, None
    monkeypatch.setattr(make, "Labeller", Counting)
    monkeypatch.setattr(make.time, "monotonic", lambda: Counting.clock)
    return Counting


def units(folder):
    """(source, unit) of all labels in all shards, in order."""
    found = []
    for path in make.shards_of(folder):
        with np.load(path) as file:
            found += list(zip(file["source"].tolist(), file["unit"].tolist(), strict=True))
    return found


def test_a_run_goes_on_where_another_stopped(files, tmp_path, counting):
    folder = tmp_path / "shards"
    make.make_labels(*files, folder, seconds=12, shard_seconds=4, progress=False)
    assert len(make.shards_of(folder)) == 3
    make.make_labels(*files, folder, seconds=8, shard_seconds=4, progress=False)
    assert len(make.shards_of(folder)) == 5
    found = units(folder)
    assert len(found) == 20 and len(set(found)) == 20
    assert sorted(k for source, k in found if source == "swapped") == list(range(5))  # a quarter of the time
    assert sorted(k for source, k in found if source == "strained") == list(range(15))


def test_an_interrupted_run_keeps_its_finished_units(files, tmp_path, counting):
    counting.stop_at = ("swapped", 2)
    folder = tmp_path / "shards"
    make.make_labels(*files, folder, seconds=1000, shard_seconds=50, progress=False)
    kept = units(folder)
    assert ("swapped", 1) in kept and ("swapped", 2) not in kept
    counting.stop_at = None
    make.make_labels(*files, folder, seconds=5, shard_seconds=50, progress=False)
    assert ("swapped", 2) in units(folder) and len(set(units(folder))) == len(units(folder))


@pytest.fixture
def labeller(files):
    pytest.importorskip("chgnet", reason="needs the extra [relax]")
    return Labeller(Parents.read(files[0], frozenset({("K1Cl1", 225)})), Parents.read(files[1]), seed=0)


def test_taken_crystals_are_no_parents(files):
    parents = Parents.read(files[0], frozenset({("Cl1K1", 225)}))
    assert [parents.cell(i) is None for i in range(2)] == [False, True]
    assert parents.cell(0).formula == "Cl1Na1" and parents.formation_energy(0) == -2.1


def test_strained_crystals_cost_energy(labeller):
    found = labeller.sources["strained"][1](0)
    assert len(found) == 6 and {one.space_group for one in found} == {225}
    for one in found:
        volume = one.lattice[0] ** 3 / 4
        equilibrium = 44.9 if one.base == -2.1 else 64.4
        strain = abs(np.log(volume / equilibrium))
        assert one.change > -0.01 and (one.change > 0.02 or strain < 0.15)
        assert one.lattice[:3] == pytest.approx(np.full(3, one.lattice[0])) and one.converged
    assert {one.base for one in found} == {-2.1, -2.2}
    again = labeller.sources["strained"][1](0)
    assert [one.energy for one in again] == pytest.approx([one.energy for one in found], abs=1e-5)


def test_templates_are_other_crystals_in_the_cell_asked_for(labeller):
    crystals = crystals_of([labeller.parents.cell(0)])
    (cell,) = labeller.templates.cells(crystals, without="Cl1Na1")  # potassium chloride
    assert cell.formula == "Cl1Na1" and cell.space_group == 225
    assert cell.lattice == pytest.approx(crystals.lattice[0].numpy())
    assert labeller.templates.cells(crystals_of([labeller.held.cell(0)]), without="Cl1Cs1") == []


def test_swapped_crystals_are_in_the_space_and_have_a_prototype(labeller):
    rng = np.random.default_rng(0)
    cells = [labeller.swaps.draw(labeller.parents.cell(0), rng) for _ in range(10)]
    cells = [cell for cell in cells if cell is not None]
    assert len(cells) >= 5 and labeller.space.contains(crystals_of(cells)).all()
    assert all(cell.formula != "Cl1Na1" and cell.space_group == 225 for cell in cells)


def test_drawn_crystals_are_labelled(labeller):
    salt = labeller.parents.cell(0)
    tight = salt.with_lattice(salt.lattice * [0.6, 0.6, 0.6, 1, 1, 1])
    wide = salt.with_lattice(salt.lattice * [1.3, 1.3, 1.3, 1, 1, 1])
    crystals = crystals_of([tight, salt, wide])
    hull = ExactHull.from_entries({"NaCl": -2.1})
    every, rows = label_crystals(crystals, hull=hull)
    assert rows.tolist() == [0, 1, 2]
    # the first has no room for its atoms
    assert every.kind[0] == HIGH and every.value[0] == pytest.approx(-1.1, abs=1e-6) and every.candidates[0] == 0
    found, rows = label_crystals(crystals)
    assert rows.tolist() == [1, 2] and torch.equal(every.value[1:], found.value.clamp_max(-1.1))
    assert found.value[0] == pytest.approx(-2.1, abs=0.1)  # as in the Materials Project
    assert found.value[1] > found.value[0] + 0.3
    assert every.kind[1:].tolist() == [VALUE, HIGH if found.value[1] > -1.1 else VALUE]
    assert found.kind.tolist() == [VALUE, VALUE]
    assert {SOURCES[i] for i in found.source} == {"proposed"} and found.placed.all() and found.converged.all()
    assert torch.equal(found.crystals.composition, crystals.composition[1:])
    none, rows = label_crystals(crystals[:1])
    assert len(none) == len(rows) == 0


def test_the_shipped_labels_hold_all_sources_and_parts():
    found = read_labels()
    assert len(found) > 2000
    assert set(found.source.tolist()) == set(range(len(SOURCES)))
    assert set(found.split.tolist()) == {FIT, HELD, VAL} and set(found.kind.tolist()) == {VALUE, BOUND}
    assert 80 <= int((found.split == VAL).sum()) <= 200
    assert torch.isfinite(found.value).all() and torch.isfinite(found.crystals.lattice).all()
    assert found.value.min() > -6 and found.value.max() < 4
    held = {name for (key,), part in zip(found.keys(), found.split, strict=True) if part == HELD for name in key[:1]}
    fitted = {name for (key,), part in zip(found.keys(), found.split, strict=True) if part == FIT for name in key[:1]}
    assert held and not held & fitted


def test_the_constants_of_kinds_are_those_of_the_file_format():
    assert (labels.VALUE, labels.BOUND, labels.HIGH, labels.FIT, labels.HELD, labels.VAL) == (0, 1, 2, 0, 1, 2)


def test_entries_of_a_hull_on_the_scale_of_chgnet(tmp_path):
    far = ("CsCl", 225, [5.0, 5.0, 5.0, 60, 60, 60], [55, 17], [[0, 0, 0], [0.5, 0.5, 0.5]], -1.3)
    pytest.importorskip("chgnet", reason="needs the extra [relax]")
    entries = make_entries([write(tmp_path / "one.parquet", ROCK_SALT, far), write(tmp_path / "two.parquet", CAESIUM)])
    assert entries.formula.tolist() == ["Cl1Na1", "Cl1Cs1"]  # the other one lies 1 eV/atom above the hull
    assert entries.dft.tolist() == [-2.1, -2.3]
    assert entries.formation_energy_per_atom.to_numpy() == pytest.approx([-2.1, -2.3], abs=0.15)


def test_entries_without_atoms_keep_their_energy_so_that_the_hull_has_no_holes(tmp_path, monkeypatch):
    path = write(tmp_path / "train.parquet", ROCK_SALT, POTASSIUM, CAESIUM)
    table = pd.read_parquet(path)
    table["Z"] = [table.Z[0], None, None]
    table.to_parquet(path)
    monkeypatch.setattr("scripts.maintain.make_hull_entries.references_of", lambda _: ZERO)
    entries = make_entries([path], calculator=Constant(), progress=False)
    known = dict(zip(table.formula, table.formation_energy_per_atom, strict=True))
    found = dict(zip(entries.formula, entries.formation_energy_per_atom, strict=True))
    assert found == {"Cl1Na1": -3.0, "KCl": known["KCl"], "CsCl": known["CsCl"]}
    assert sorted(entries.dft) == sorted(known.values())


def test_labels_of_version_1_come_from_placements_at_random(some, tmp_path):
    path = tmp_path / "labels.npz"
    some.save(path)
    with np.load(path) as file:
        columns = {name: file[name] for name in file.files if name != "refined"}
    np.savez(path, **{**columns, "version": np.array(1)})
    again = read_labels(path, high=True)
    assert torch.equal(again.value, some.value)
    assert not again.refined.any()
