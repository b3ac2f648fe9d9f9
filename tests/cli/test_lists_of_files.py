"""A list of files wherever a file of crystals, entries or labels may stand."""

import pandas as pd
import pytest
from pymatgen.core import Lattice, Structure

from crystalgfn.benchmarks.csp.tasks import targets
from crystalgfn.cli.options.compose import compose_config
from crystalgfn.data.labelled import read_labelled
from crystalgfn.data.standard_cells import Parents
from crystalgfn.fitting.proxy import validation_rows
from crystalgfn.properties.convex_hull import ExactHull
from crystalgfn.structures.refiner import dataset

OPTIONS = [
    ("check", "hull"),
    ("check", "templates"),
    ("train_proxy", "labels"),
    ("train_proxy", "templates"),
    ("train_proxy", "val"),
    ("train_refiner", "val"),
    ("benchmark", "csp.data"),
]


def salt(a, cation, anion):
    return Structure.from_spacegroup("Fm-3m", Lattice.cubic(a), [cation, anion], [[0, 0, 0], [0.5, 0.5, 0.5]])


@pytest.fixture
def files(tmp_path):
    """Two tables of one crystal each."""
    paths = []
    for name, structure, energy in (("a", salt(5.64, "Na", "Cl"), -2.1), ("b", salt(4.2, "Mg", "O"), -3.0)):
        paths.append(str(tmp_path / f"{name}.csv"))
        row = {"cif": structure.to(fmt="cif"), "formula": structure.composition.reduced_formula}
        pd.DataFrame([{**row, "formation_energy_per_atom": energy}]).to_csv(paths[-1], index=False)
    return paths


def task_of(command: str, option: str) -> list[str]:
    """The task of a benchmark that an option belongs to."""
    return ["task=csp"] if command == "benchmark" and option.startswith("csp.") else []


@pytest.mark.parametrize(("command", "option"), OPTIONS)
def test_an_option_takes_one_file_and_several(command, option):
    for text, value in (("[a b.csv,c]", ["a b.csv", "c"]), ("a.csv", "a.csv")):
        config = compose_config(command, [*task_of(command, option), f"{option}={text}"])
        for part in option.split("."):
            config = config[part]
        assert config == value


def test_a_hull_of_several_files_has_the_entries_of_all(files):
    both, one = ExactHull.from_entries(files), ExactHull.from_entries({"NaCl": -2.1, "MgO": -3.0})
    formulas = ["NaCl", "MgO", "Na2Mg2Cl2O2"]
    assert both.energy(formulas).tolist() == pytest.approx(one.energy(formulas).tolist())


def test_several_files_are_read_as_their_crystals(files, tmp_path):
    assert sorted(one.truth.composition.reduced_formula for one in targets(files).crystals) == ["MgO", "NaCl"]
    assert len(Parents.read(files)) == 2
    counts = dataset.prepare([files[0]], tmp_path / "train.npz", held_out=[files[1]])
    assert counts["used"] == 1 and counts["held_out"] == 0
    assert dataset.prepare(files, tmp_path / "train.npz", held_out=[files[1]])["held_out"] == 1
    rows = validation_rows([*files, files[0]], cache=tmp_path, progress=False)
    parts = [read_labelled(path, cache=tmp_path, progress=False) for path in files]
    assert len(rows) == 2 and rows.labels.tolist() == [float(part.labels[0]) for part in parts]
