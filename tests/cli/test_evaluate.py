"""The evaluate command from end to end on crystals of which all is known, killed and gone on with, and its mistakes."""

import functools
import inspect
import json
import os

import numpy as np
import pandas as pd
import pytest
from ase.calculators.emt import EMT
from pymatgen.core import Structure
from structure_fixtures import cif_of

from crystalgfn.calculators.energy_references import References
from crystalgfn.calculators.relaxation import relax
from crystalgfn.cli import app, evaluate
from crystalgfn.crystallography.atoms import CELL
from crystalgfn.crystallography.orbits import Orbit, OrbitStructure
from crystalgfn.evaluation import run as evaluate_run
from crystalgfn.properties.energy_scale import scale_shift


def crystal(group, edge, *atoms) -> Structure:
    """A cubic crystal of (letter, atomic number) pairs."""
    orbits = tuple(Orbit(letter, z) for letter, z in atoms)
    return OrbitStructure(group, (edge, edge, edge, 90.0, 90.0, 90.0), orbits).to_structure()


SALT, CAESIUM, OXIDE = (
    crystal(225, 5.64, ("a", 11), ("b", 17)),
    crystal(221, 3.4, ("a", 11), ("b", 17)),
    crystal(225, 4.2, ("a", 12), ("b", 8)),
)


def relaxed(job):
    """Every structure stays as it is; the oxide is on the hull, the one of caesium chloride 0.05 above, others far."""
    first = job.structure.composition.reduced_formula == "MgO"
    energy = -3.0 if first else (-2.05 if len(job.structure) == 2 and job.structure.volume < 41 else -1.0)
    return {
        "index": job.index, "error": None, "calculator": "CHGNet",
        "formation_energy": energy, "start_energy": energy + 0.1, "converged": True,
        "steps": 1, "strain": 0.0, "volume_ratio": 1.0, "displacement": 0.0, "seconds": 1.0,
        "relaxed_cell": list(job.structure.lattice.parameters), "relaxed_Z": [s.specie.Z for s in job.structure],
        "relaxed_frac": job.structure.frac_coords.ravel().tolist(),
    }  # fmt: skip


def row(structure, energy, group) -> dict:
    cell = {f"cell_{k}": v for k, v in zip(CELL, structure.lattice.parameters, strict=True)}
    atoms = {"Z": [s.specie.Z for s in structure], "frac": structure.frac_coords.ravel().tolist()}
    return {**cell, **atoms, "formation_energy_per_atom": energy, "spacegroup": group}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Five good CIFs (a duplicate, a copy enlarged), a broken one; a reference of rock salt and periclase."""
    monkeypatch.setattr(evaluate, "run", functools.partial(evaluate.run, job=relaxed))
    cifs = tmp_path / "cifs"
    cifs.mkdir()
    for name, structure, group in (
        ("a", SALT, 225),
        ("b", CAESIUM, 221),
        ("c", SALT * [2, 1, 1], 1),
        ("d", OXIDE, 225),
    ):
        (cifs / f"{name}.cif").write_text(cif_of(structure, group))
    close = SALT.copy()
    close.translate_sites([4], [0.42, 0, 0])
    (cifs / "e.cif").write_text(cif_of(close, 1))
    (cifs / "f.cif").write_text("data_broken\nloop_\n_atom_site_label\n")
    table = pd.DataFrame([row(SALT, -2.1, 225), row(OXIDE, -3.0, 225)])
    table.to_parquet(tmp_path / "known.parquet")
    return tmp_path


def arguments(folder, *more):
    named = [f"samples={folder / 'cifs'}", f"reference={folder / 'known.parquet'}", f"out={folder / 'out'}"]
    given = {one.split("=")[0] for one in more}
    return [*(one for one in named if one.split("=")[0] not in given), "progress=false", "report=false", *more]


def summary(folder) -> dict:
    return json.loads((folder / "out" / "summary.json").read_text())


def test_everything_is_found(folder, capsys):
    assert app.evaluate(arguments(folder)) == 0
    said = capsys.readouterr()
    assert "not judged: f.cif: not a CIF" in said.err and len(said.err.strip().splitlines()) == 1
    figures, table = summary(folder), pd.read_parquet(folder / "out" / "structures.parquet").set_index("where")
    assert figures["given"] == 6 and figures["readable"]["k"] == 5 and list(figures["errors"]) == ["f.cif"]
    assert table.duplicate_of.dropna().to_dict() == {"c.cif": "a.cif"} and figures["unique"]["k"] == 4
    assert table.known_as.dropna().to_dict() == {"a.cif": "row 0", "c.cif": "row 0", "d.cif": "row 1"}
    assert table.space_group.to_dict() == {"a.cif": 225, "b.cif": 221, "c.cif": 225, "d.cif": 225, "e.cif": 99}
    assert table.group_claimed["c.cif"] == 1 and figures["claims_p1"] == 2
    assert figures["groups"]["0.01"] == {
        "k": 3,
        "n": 3,
        "share": 1.0,
        "low": pytest.approx(0.4385, abs=1e-4),
        "high": 1,
    }
    assert table.shortest["e.cif"] == pytest.approx(0.08 * 5.64) and not table.valid_structure["e.cif"]
    assert figures["valid"]["k"] == 4 and figures["good"]["k"] == 1
    assert figures["notes"] == {"smact": "not installed"} or figures["checks"]["smact"]["n"] == 5
    assert table.n_atoms["c.cif"] == 2 and table.prototype["a.cif"] == table.prototype["d.cif"] == "AB_225_a_b"
    assert figures["properties"]["density"]["reference"]["n"] == 2 and figures["stability"] is None
    assert (folder / "out" / "summary.md").read_text().strip() in said.out
    assert figures["command"].startswith("crystalgfn-evaluate ") and set(figures["seconds"]) >= {"describing"}


def test_smact_is_one_of_the_checks(folder):
    pytest.importorskip("smact")
    assert app.evaluate(arguments(folder)) == 0
    figures, table = summary(folder), pd.read_parquet(folder / "out" / "structures.parquet").set_index("where")
    assert figures["notes"] == {} and figures["checks"]["smact"]["n"] == 5
    assert table.smact.all()


def test_its_table_is_a_source_of_samples(folder, capsys):
    assert app.evaluate(arguments(folder)) == 0
    again = arguments(folder, f"samples={folder / 'out' / 'structures.parquet'}", f"out={folder / 'again'}")
    assert app.evaluate(again) == 0
    assert json.loads((folder / "again" / "summary.json").read_text())["unique"]["k"] == 4


def test_several_references(folder, capsys):
    """A row without atoms, of a more stable compound, moves the hull."""
    lower = {name: [None] for name in row(SALT, -2.5, 225)} | {
        "formula": ["NaCl2"],
        "formation_energy_per_atom": [-9.0],
    }
    known = pd.DataFrame([{**row(CAESIUM, -1.0, 221), "formula": "NaCl"}])
    pd.concat([known, pd.DataFrame(lower)], ignore_index=True).to_parquet(folder / "more.parquet")
    files = f"reference=[{folder / 'known.parquet'},{folder / 'more.parquet'}]"
    assert app.evaluate(arguments(folder, "relax=true", files)) == 0
    table = pd.read_parquet(folder / "out" / "structures.parquet").set_index("where")
    assert table.known_as["b.cif"] == "more.parquet, row 0" and table.known_as["a.cif"] == "known.parquet, row 0"
    assert table.e_above_hull_mp2020["a.cif"] == pytest.approx(-1.0 + 0.75 * 9.0)
    shift = scale_shift(["NaCl", "NaCl2"])  # half of the chlorine of NaCl2 has no charge
    assert table.e_above_hull["a.cif"] == pytest.approx(
        -1.0 + float(shift[0]) + 0.75 * (9.0 - float(shift[1])), abs=1e-6
    )
    pytest.importorskip("pymatviz")
    assert app.evaluate(arguments(folder, "relax=true", "report=true", files)) == 0
    assert "known crystals of known.parquet, more.parquet" in (folder / "out" / "report.html").read_text()


def test_stability(folder, capsys):
    assert app.evaluate(arguments(folder, "relax=true", "best=e_above_hull", "best_n=2")) == 0
    said, found = capsys.readouterr().out, summary(folder)["stability"]
    assert "CHGNet, not DFT" in said and found["label"] == "CHGNet, not DFT" and found["chosen"] == 6
    assert [found[name]["k"] for name in ("relaxed", "stable", "metastable", "sun", "msun")] == [5, 1, 2, 0, 1]
    assert found["failures"] == {"could not be read": 1} and found["hull_entries"] == 2
    assert summary(folder)["diversity_best"]["n"] == 2
    table = pd.read_parquet(folder / "out" / "structures.parquet").set_index("where")
    assert table.e_above_hull["b.cif"] == pytest.approx(0.05) and table.relaxed_novel["b.cif"]


def test_exchanged_elements_are_asked_for(folder):
    assert app.evaluate(arguments(folder, "swap=true")) == 0
    figures = summary(folder)
    assert figures["swap_unique"]["k"] == figures["unique"]["k"] - 1  # rock salt and periclase
    assert figures["swap_novel"]["k"] == 2


def test_a_kill_loses_what_is_in_work_only(folder, monkeypatch, capsys):
    monkeypatch.setattr(evaluate_run, "CHUNK", 2)
    whole, seen = evaluate_run.Describer.records, []

    def watched(self, pieces, energy=None):
        seen.extend(i for i, _ in pieces if energy is None)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return whole(self, pieces, energy)

    monkeypatch.setattr(evaluate_run.Describer, "records", watched)
    assert app.evaluate(arguments(folder)) == 130
    assert "go on with the same command" in capsys.readouterr().err and not (folder / "out" / "summary.json").exists()
    assert app.evaluate(arguments(folder, "symprec=0.2")) == 2
    assert "symprec=0.1, not 0.2" in capsys.readouterr().err
    assert app.evaluate(arguments(folder)) == 0
    assert seen == [0, 1, 2, 3, 2, 3, 4] and summary(folder)["readable"]["k"] == 5


def test_a_killed_relaxation_goes_on_and_does_nothing_twice(folder, monkeypatch, capsys):
    done = []

    def stopped(job):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(job.index)
        return relaxed(job)

    run = evaluate.run
    monkeypatch.setattr(evaluate, "run", functools.partial(run.func, job=stopped))
    assert app.evaluate(arguments(folder, "relax=true")) == 130
    path = folder / "out" / "work" / "relaxations.jsonl"
    assert len(path.read_text().splitlines()) == 2
    monkeypatch.setattr(evaluate, "run", run)
    assert app.evaluate(arguments(folder, "relax=true")) == 0
    indices = [json.loads(line)["index"] for line in path.read_text().splitlines()]
    assert indices[:2] == done and sorted(indices) == [0, 1, 2, 3, 4]
    before = os.stat(path).st_mtime_ns
    assert app.evaluate(arguments(folder, "relax=true")) == 0 and os.stat(path).st_mtime_ns == before


@pytest.mark.slow
def test_processes_find_the_same(folder):
    app.evaluate(arguments(folder, f"out={folder / 'one'}"))
    app.evaluate(arguments(folder, f"out={folder / 'two'}", "n_jobs=2"))
    one, two = (pd.read_parquet(folder / name / "structures.parquet") for name in ("one", "two"))
    assert one.drop(columns="seconds").astype(str).equals(two.drop(columns="seconds").astype(str))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (["samples=null"], ["samples is missing"]),
        (["samples=nowhere"], ["nowhere"]),
        (["reference=nowhere.parquet"], ["nowhere.parquet"]),
        (["n_jobs=0"], ["n_jobs=0"]),
        (["limit=0"], ["limit=0", "at least 1"]),
        (["limit=many"], ["limit", "whole number"]),
        (["symprecs=[0.0]"], ["symprecs"]),
        (["best_n=0"], ["best_n=0"]),
        (["relax=true", "energy=e_form"], ["e_form", "no hull"]),
        (["relax=true", "reference=null"], ["reference"]),
        (["sample=cifs"], ["sample", "samples"]),
    ],
)
def test_mistakes(wrong, words, folder, capsys):
    assert app.evaluate(arguments(folder, *wrong)) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    assert all(word in lines[0] for word in words), lines[0]
    assert not (folder / "out").exists()


def test_a_column_that_is_not_there(folder, capsys):
    assert app.evaluate(arguments(folder, "best=beauty")) == 2
    assert "no column beauty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("numbers", "words"),
    [([119, 17], "atomic number 119"), ([0, 17], "atomic number 0"), ([11, 17, 17], "6 coordinates and 3 atoms")],
)
def test_rows_of_the_reference_that_cannot_be_read_are_named(numbers, words, folder, capsys):
    bad = {**row(SALT, -2.1, 225), "Z": numbers}
    bad["frac"] = bad["frac"][:6]
    pd.DataFrame([row(OXIDE, -3.0, 225), bad]).to_parquet(folder / "known.parquet")
    assert app.evaluate(arguments(folder, f"samples={folder / 'cifs' / 'a.cif'}")) == 0
    assert f"left out of the reference: row 1: {words}" in capsys.readouterr().err.replace("row 1: it has ", "row 1: ")


@pytest.mark.parametrize("kind", ["empty", "texts", "broken"])
def test_nothing_to_judge(kind, folder, capsys):
    for path in (folder / "cifs").iterdir():
        path.unlink()
    if kind == "texts":
        (folder / "cifs" / "notes.txt").write_text("hello")
    if kind == "broken":
        (folder / "cifs" / "a.cif").write_text("hello")
    assert app.evaluate(arguments(folder)) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert ("can be judged" if kind == "broken" else "holds no") in line


def test_without_chgnet_it_says_what_to_install(folder, monkeypatch, capsys):
    from crystalgfn.calculators import chgnet

    monkeypatch.setattr(evaluate, "run", evaluate.run.func)
    monkeypatch.setattr(chgnet, "_load", inspect.unwrap(chgnet._load))  # the model may be there from another test
    monkeypatch.setitem(__import__("sys").modules, "chgnet.model.model", None)
    assert app.evaluate(arguments(folder, "relax=true")) == 2
    assert 'pip install -e ".[relax]"' in capsys.readouterr().err


def test_a_calculator_of_the_users_own_relaxes_and_is_named(tmp_path, monkeypatch, capsys):
    """Copper by ase's effective medium theory, with energy references of its own."""
    copper = crystal(225, 3.7, ("a", 29))
    (tmp_path / "copper.cif").write_text(cif_of(copper, 225))
    pd.DataFrame([row(crystal(225, 3.6, ("a", 29)), 0.0, 225)]).to_parquet(tmp_path / "known.parquet")
    values = tuple(-0.02 if z == 28 else float("nan") for z in range(118))
    own = References(energies=values, calculator="EMT", model="", rows=1, checks={})
    own.save(tmp_path / "emt.json")
    common = [f"samples={tmp_path / 'copper.cif'}", f"reference={tmp_path / 'known.parquet'}", "relax=true"]
    common += [f"out={tmp_path / 'out'}", "calculator=ase.calculators.emt:EMT", "report=false", "progress=false"]
    assert app.evaluate(common) == 2
    assert "there are no energy references of EMT" in capsys.readouterr().err
    other = References(energies=values, calculator="LennardJones", model="", rows=1, checks={})
    other.save(tmp_path / "other.json")
    assert app.evaluate([*common, f"energy_references={tmp_path / 'other.json'}"]) == 2
    assert "of LennardJones, which do not go with EMT" in capsys.readouterr().err
    assert app.evaluate([*common, f"energy_references={tmp_path / 'emt.json'}"]) == 0
    assert "EMT, not DFT" in capsys.readouterr().out
    (found,) = pd.read_parquet(tmp_path / "out" / "structures.parquet").to_dict("records")
    assert found["calculator"] == "EMT" and found["converged"] and found["relax_error"] is None
    wanted = relax([copper.get_primitive_structure()], EMT(), 100, fixed_cell=False, max_force=0.1)[0].energy + 0.02
    assert found["e_above_hull"] == pytest.approx(wanted, abs=2e-3)


def test_help_names_every_option(capsys):
    from crystalgfn.cli.options.compose import compose_config

    assert app.run("evaluate", ["--help"], "crystalgfn") == 0
    said = capsys.readouterr().out
    assert set(compose_config("evaluate", [])) <= {word.split("=")[0] for word in said.split()}
    assert "$" not in said and max(map(len, said.splitlines())) <= 140


def test_figures_are_plain(folder):
    assert app.evaluate(arguments(folder)) == 0
    text = (folder / "out" / "summary.json").read_text()
    assert "NaN" not in text and "Infinity" not in text
    table = pd.read_parquet(folder / "out" / "structures.parquet")
    assert np.isfinite(table.density).all() and table.valid_structure.dtype == bool
