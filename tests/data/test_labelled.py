from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pymatgen.core import Lattice, Structure

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.data.labelled import bags, exclude, read_labelled, split_by_formula
from crystalgfn.errors import DataError

CELL = ("a", "b", "c", "alpha", "beta", "gamma")


def row(formula: str, n_atoms: int, group: int, cell: tuple, label: float, structure: Structure | None = None) -> dict:
    found = {"formula": formula, "n_atoms": n_atoms, "spacegroup": group, "formation_energy_per_atom": label}
    found |= dict(zip(CELL, cell, strict=True))
    inner = structure.lattice.parameters if structure else (np.nan,) * 6
    found |= {"prim_" + x: value for x, value in zip(CELL, inner, strict=True)}
    found["Z"] = [site.specie.Z for site in structure] if structure else None
    found["frac"] = structure.frac_coords.ravel().tolist() if structure else None
    return found


SALT = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.6), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
RUTILE = Structure.from_spacegroup(
    "P4_2/mnm", Lattice.tetragonal(4.6, 2.96), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]
)


@pytest.fixture
def table() -> pd.DataFrame:
    return pd.DataFrame(
        [
            row("NaCl", 2, 225, (5.6, 5.6, 5.6, 90, 90, 90), -2.1, SALT.get_primitive_structure()),
            row("TiO2", 6, 136, (4.6, 4.6, 2.96, 90, 90, 90), -3.4, RUTILE),
            row("ZnO", 4, 186, (3.25, 3.25, 5.2, 90, 90, 120), -1.8),  # no positions, one conventional cell: read
            row("KBr", 2, 225, (6.7, 6.7, 6.7, 90, 90, 90), -2.0),  # 2 atoms cannot be a whole F cell: read
            row("NaBr", 8, 225, (6.0, 6.0, 6.0, 90, 90, 90), -1.9),  # 8 may be the conventional cell's: not read
            row("ZrO2", 12, 14, (5.2, 5.2, 5.3, 90, 99, 90), -3.8),  # monoclinic without positions: not read
            row("MgO", 2, 225, (4.2, 4.2, 4.2, 90, 90, 90), np.nan),  # no label: not read
        ]
    )


@pytest.fixture
def path(table: pd.DataFrame, tmp_path: Path) -> Path:
    table.to_parquet(tmp_path / "some.parquet")
    return tmp_path / "some.parquet"


def test_rows_become_crystals(path: Path, tmp_path: Path) -> None:
    rows = read_labelled(path, cache=tmp_path / "cache")
    assert rows.crystals.formulas() == ["NaCl", "TiO2", "ZnO", "KBr"]
    assert rows.crystals.space_group.tolist() == [225, 136, 186, 225]
    assert rows.crystals.n_atoms.tolist() == [2, 6, 4, 2]
    assert rows.labels.tolist() == [-2.1, -3.4, -1.8, -2.0]
    torch.testing.assert_close(rows.crystals.lattice[0, :3], torch.full((3,), 5.6).double())
    torch.testing.assert_close(rows.crystals.volume_per_atom[3], torch.tensor(6.7**3 / 8).double())
    assert rows.keys[1] == {("O2Ti1", 136)}


def test_the_cache_gives_the_same_rows(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read_labelled(path, cache=tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 1
    monkeypatch.setattr(Crystals, "from_structures", None)  # would fail if it were called
    again = read_labelled(path, cache=tmp_path / "cache")
    assert torch.equal(first.crystals.lattice, again.crystals.lattice)
    assert torch.equal(first.crystals.composition, again.crystals.composition)
    assert torch.equal(first.labels, again.labels) and first.keys == again.keys


def test_other_data_have_another_cache(path: Path, table: pd.DataFrame, tmp_path: Path) -> None:
    read_labelled(path, cache=tmp_path / "cache")
    table.iloc[:2].to_parquet(path)
    assert len(read_labelled(path, cache=tmp_path / "cache")) == 2


def test_exclude_goes_by_formula_and_group(path: Path, tmp_path: Path) -> None:
    rows = read_labelled(path, cache=tmp_path / "cache")
    assert exclude(rows, rows[[0, 2]]).crystals.formulas() == ["TiO2", "KBr"]
    assert len(exclude(rows, rows)) == 0
    # the same formula in another group stays, with more formula units in the same group it goes
    other = pd.DataFrame(
        [
            row("NaCl", 2, 221, (3.4, 3.4, 3.4, 90, 90, 90), -1.9),
            row("Ti2O4", 6, 136, (4.7, 4.7, 3.0, 90, 90, 90), -3.3),
        ]
    )
    other.to_parquet(tmp_path / "other.parquet")
    kept = exclude(rows, read_labelled(tmp_path / "other.parquet", cache=tmp_path / "cache"))
    assert kept.crystals.formulas() == ["NaCl", "ZnO", "KBr"]


def test_the_detected_group_counts_as_well_as_the_files(path: Path, table: pd.DataFrame, tmp_path: Path) -> None:
    table.loc[0, "spacegroup"] = 216  # the file says otherwise than spglib finds
    table.to_parquet(tmp_path / "wrong.parquet")
    wrong = read_labelled(tmp_path / "wrong.parquet", cache=tmp_path / "cache")[[0]]
    assert wrong.keys[0] == {("Cl1Na1", 216), ("Cl1Na1", 225)}
    assert "NaCl" not in exclude(read_labelled(path, cache=tmp_path / "cache"), wrong).crystals.formulas()


def many(n: int, tmp_path: Path):
    rows = [row(f"Na{i % 10 + 1}Cl{i % 7 + 1}", i % 10 + i % 7 + 2, 123, (4, 4, 5, 90, 90, 90), 0.0) for i in range(n)]
    pd.DataFrame(rows).to_parquet(tmp_path / "many.parquet")
    return read_labelled(tmp_path / "many.parquet", cache=tmp_path / "cache")


def test_parts_share_no_formula(tmp_path: Path) -> None:
    rows = many(300, tmp_path)
    train, held = split_by_formula(rows, 0.2, seed=0)
    assert len(train) + len(held) == 300 and 20 < len(held) < 120
    assert not {min(k)[0] for k in train.keys} & {min(k)[0] for k in held.keys}
    assert split_by_formula(rows, 0.2, seed=1)[1].keys != held.keys


def test_members_leave_out_whole_formulas(tmp_path: Path) -> None:
    rows = many(300, tmp_path)
    seen = bags(rows, 4, 0.3, seed=0)
    assert seen.shape == (4, 300) and 0.5 < float(seen.double().mean()) < 0.9
    for member in seen:
        within = {min(k)[0] for k, kept in zip(rows.keys, member, strict=True) if kept}
        without = {min(k)[0] for k, kept in zip(rows.keys, member, strict=True) if not kept}
        assert not within & without
    assert not torch.equal(seen[0], seen[1])
    assert bags(rows, 4, 0.0, seed=0).all()


def test_bad_files_are_named(path: Path, table: pd.DataFrame, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(DataError, match="there is no file or folder"):
        read_labelled(tmp_path / "nothing.parquet", cache=cache)
    with pytest.raises(DataError, match="no data for the property 'colour'"):
        read_labelled(path, "colour", cache=cache)
    with pytest.raises(DataError, match="has no column band_gap"):
        read_labelled(path, "band_gap", cache=cache)
    (tmp_path / "text.parquet").write_text("not a table")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_labelled(tmp_path / "text.parquet", cache=cache)
    table.assign(formation_energy_per_atom=np.nan).to_parquet(path)
    with pytest.raises(DataError, match="no row with a value"):
        read_labelled(path, cache=cache)
