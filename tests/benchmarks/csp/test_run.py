"""Crystal structure prediction: what is given, what counts as found, what is written down."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

from crystalgfn.benchmarks.csp import methods as csp_methods
from crystalgfn.benchmarks.csp import report as csp_report
from crystalgfn.benchmarks.csp import run, scores, tasks
from crystalgfn.benchmarks.csp.outside import Pyxtal
from crystalgfn.calculators.base import calculate_energies
from crystalgfn.calculators.registry import load_calculator
from crystalgfn.crystallography.atoms import atoms_of
from crystalgfn.data.structure_index import Prototypes
from crystalgfn.errors import CheckpointError
from crystalgfn.evaluation.metrics.compositions import amounts, valid_composition, whole
from crystalgfn.evaluation.metrics.matching import match, valid_structure
from crystalgfn.structures.config import BuildConfig
from crystalgfn.structures.sources.base import random_cell
from crystalgfn.structures.sources.templates import Templates
from scripts.maintain.fit_template_distance import unfitted

SALT = Structure.from_spacegroup(225, Lattice.cubic(5.64), ["Na", "Cl"], [[0] * 3, [0.5] * 3])
RUTILE = Structure.from_spacegroup(136, Lattice.tetragonal(4.59, 2.96), ["Ti", "O"], [[0] * 3, [0.305, 0.305, 0]])


@pytest.fixture
def crystals():
    return [
        tasks.target_of(atoms_of(name, s, 225 if s is SALT else 0)) for name, s in (("salt", SALT), ("rutile", RUTILE))
    ]


def test_a_structure_matches_itself_and_not_another():
    primitive = RUTILE.get_primitive_structure()
    primitive.translate_sites(range(len(primitive)), [0.1, 0.2, 0.3])
    assert match(primitive, RUTILE).rms == pytest.approx(0, abs=1e-6)
    assert match(SALT, RUTILE).rms is None
    moved = Structure.from_spacegroup(136, RUTILE.lattice, ["Ti", "O"], [[0] * 3, [0.315, 0.315, 0]])
    assert 0 < match(moved, RUTILE).rms < 0.05


def test_the_filtered_protocol():
    def allowed(structure):
        return valid_composition(whole(amounts(structure)))

    assert allowed(SALT) and allowed(RUTILE)
    assert allowed(Structure(Lattice.cubic(3), ["Fe", "Al"], [[0] * 3, [0.5] * 3]))  # all metals
    assert not allowed(Structure(Lattice.cubic(5), ["Na"] * 2 + ["Cl"], np.eye(3) / 2))
    assert valid_structure(SALT)
    assert not valid_structure(Structure(Lattice.cubic(4), ["Na", "Cl"], [[0] * 3, [0.05] * 3]))


def test_what_is_given(crystals):
    lattice, letters = crystals[1].orbits.lattice, crystals[1].orbits.wyckoff()
    one, two, three, four = (run.query(task, crystals[1]) for task in run.TASKS)
    assert one.letters == letters and two.letters is None and three.letters is None
    assert one.lattice == pytest.approx(lattice) and two.lattice == pytest.approx(lattice) and three.lattice is None
    assert three.space_group == 136 and three.counts == {"O": 4, "Ti": 2}
    assert four.space_group is None and four.counts == {"O": 2, "Ti": 1} and four.lattice is four.letters is None
    assert crystals[0].keys == {("Cl1Na1", 225)}
    with pytest.raises(ValueError, match="there is no task 'T9'; there are T1, T2, T3, T4"):
        run.query("T9", crystals[0])


def test_records_and_rates(crystals, tmp_path):
    """A method that knows the truth as its second answer for one crystal, and nothing for the other."""

    def method(what, k, seed):
        return [SALT, RUTILE][:k] if "Ti" in what.counts else []

    calls = []

    def counted(what, k, seed):
        calls.append(what)
        return method(what, k, seed)

    out = tmp_path / "records.jsonl"
    records = run.run_csp(crystals, {"oracle": counted}, ("T2",), k=5, out=out)
    assert [r["formula"] for r in records] == ["Cl1Na1", "O4Ti2"] or [r["formula"] for r in records] == [
        "Cl1Na1",
        "O2Ti1",
    ]
    (row,) = [row for row in scores.csp_figures(records)["rows"] if row["slice"] == "all crystals"]
    assert row["rate"]["value"][:2] == row["filtered"]["value"][:2] == [0.0, 0.5]
    assert row["rmse"]["value"][0] is None and row["rmse"]["value"][1] == pytest.approx(0, abs=1e-6)
    assert (records[1]["free"], records[0]["free"], records[0]["system"]) == (1, 0, "cubic")
    assert len(out.read_text().splitlines()) == len(calls) == 2

    # begun again, with a line that was cut off: only that one is done again
    lines = out.read_text().splitlines(keepends=True)
    out.write_text(lines[0] + lines[1][:20])
    again = run.run_csp(crystals, {"oracle": counted}, ("T2",), k=5, out=out)
    assert len(calls) == 3 and [r["rms"] for r in again] == [r["rms"] for r in records]
    assert [json.loads(line)["where"] for line in out.read_text().splitlines()] == ["salt", "rutile"]

    out.write_text("".join(lines).rstrip("\n"))  # whole but for its end: what is added must not join it
    run.run_csp(crystals, {"oracle": counted}, ("T2",), k=5, out=out)
    assert len(calls) == 4 and out.read_text().count("\n") == 2

    report = csp_report.csp_tables(scores.csp_figures(records, baseline="oracle"))
    assert "| T2 | oracle | 2 | 0.0 (0.0-0.0) | 50.0 (0.0-100.0) |" in report and "one of the oracle" in report


def test_a_file_of_something_else(crystals, tmp_path):
    (tmp_path / "records.jsonl").write_text("hello\nworld\n")
    with pytest.raises(CheckpointError, match="line 1, is no record"):
        run.run_csp(crystals, {}, out=tmp_path / "records.jsonl")


def test_templates_and_random_placement_as_methods(crystals):
    index = Prototypes.of([c.orbits for c in crystals])
    templates = Templates(index, unfitted())
    knowing, fair = csp_methods.FromTemplates(templates, leave_out=False), csp_methods.FromTemplates(templates)
    for task in run.TASKS:
        assert run.predict_target(crystals[1], task, "knowing", knowing, 2, 0)["rms"][0] == pytest.approx(0, abs=1e-4)
        assert run.predict_target(crystals[1], task, "fair", fair, 2, 0)["rms"] == []
        record = run.predict_target(crystals[0], task, "random", csp_methods.Built(), 1, 0)
        assert len(record["rms"]) == 1
        if task != "T4":  # rock salt has nothing to choose once its group is known
            assert record["rms"] == [pytest.approx(0, abs=1e-6)]
        assert record["seconds"] > 0 and record["error"] is None


def test_pyxtal_itself(crystals):
    method = Pyxtal()
    for task in run.TASKS[:3]:
        record = run.predict_target(crystals[0], task, "pyxtal", method, 2, 0)
        assert len(record["rms"]) == 2 and record["error"] is None
        assert task == "T3" or record["rms"] == [pytest.approx(0, abs=1e-6)] * 2  # rock salt has nothing to choose
    one, other = method(run.query("T1", crystals[1]), 2, 0)
    for structure in (one, other):
        assert structure.composition.formula == RUTILE.composition.formula
        assert structure.lattice.parameters == pytest.approx(RUTILE.lattice.parameters, abs=1e-6)
        assert structure.get_space_group_info()[1] == 136
    assert [s.frac_coords.tolist() for s in method(run.query("T1", crystals[1]), 2, 0)] == [
        s.frac_coords.tolist() for s in (one, other)
    ]
    assert one.frac_coords.tolist() != other.frac_coords.tolist()
    formula = method(run.query("T4", crystals[0]), 3, 0)
    assert 1 <= len(formula) <= 3 and {s.composition.reduced_formula for s in formula} == {"NaCl"}
    # of three kinds with four atoms each in Fm-3m one has no place
    none = replace(run.query("T2", crystals[0]), counts={"Na": 1, "Cl": 1, "O": 1})
    assert method(none, 2, 0) == []


def test_random_placement_relaxed(crystals):
    """Relaxed within its group, the lowest energy first; the cell only where none is given."""
    pytest.importorskip("chgnet")
    method = csp_methods.RelaxedAtRandom()
    kept = method(run.query("T2", crystals[1]), 3, 0)
    assert [s.composition.reduced_formula for s in kept] == ["TiO2"] * len(kept) and len(kept) > 1
    found = calculate_energies(load_calculator(), kept)
    assert (np.diff(found) > -1e-4).all()
    assert kept[0].lattice.parameters == pytest.approx(RUTILE.lattice.parameters, abs=1e-6)
    assert match(kept[0], RUTILE).rms < 0.02  # rutile has one free coordinate
    (free,) = method(run.query("T3", crystals[0]), 1, 0)
    assert free.lattice.a == pytest.approx(5.64, abs=0.15) and free.get_space_group_info()[1] == 225


def test_the_refiner_with_energies(crystals, small_refiner):
    """The same structures in another order, and not where no group is given."""
    pytest.importorskip("chgnet")
    plain = csp_methods.Refined(BuildConfig(refiner=small_refiner(), draws=12, steps=3))
    ranked = csp_methods.Refined(replace(plain.config, energies=True))
    asked = run.query("T2", crystals[1])
    names = [sorted(str(s.frac_coords.tolist()) for s in method(asked, 50, 0)) for method in (plain, ranked)]
    assert names[0] == names[1] and len(names[0]) > 2
    assert "T4" in plain.tasks and ranked.tasks == ("T1", "T2", "T3")


def test_several_processes_say_the_same(crystals, tmp_path):
    methods = {"random": csp_methods.Built()}
    alone = run.run_csp(crystals, methods, ("T1", "T2"), k=2)
    together = run.run_csp(crystals, methods, ("T1", "T2"), k=2, out=tmp_path / "records.jsonl", n_jobs=2)
    for one, other in zip(alone, together, strict=True):
        assert one.pop("rms") == pytest.approx(other.pop("rms"), abs=1e-9)
        timeless = {"seconds": 0.0, "cpu_seconds": 0.0}
        assert one | timeless == other | timeless
    again = run.run_csp(crystals, {}, ("T1",), k=2, out=tmp_path / "records.jsonl")
    assert again == [] and len((tmp_path / "records.jsonl").read_text().splitlines()) == 4


def test_the_refiner_as_a_method(crystals, small_refiner):
    refiner = small_refiner()
    templates = Templates(Prototypes.of([question.orbits for question in crystals]))
    config = BuildConfig(refiner=refiner, draws=6, steps=2)
    plain = csp_methods.Refined(config)
    helped = csp_methods.Refined(replace(config, templates=templates), leave_out=False)
    held_back = csp_methods.Refined(replace(config, templates=templates))
    records = run.run_csp(crystals, {"plain": plain, "helped": helped, "held back": held_back}, ("T1", "T2", "T3"), k=5)
    assert len(records) == 18 and all(r["error"] is None and r["rms"] for r in records)
    for record in records:
        if record["method"] == "helped" and record["task"] != "T3":
            assert min(rms for rms in record["rms"] if rms is not None) < 1e-3
        if record["formula"] == "Cl1Na1" and record["task"] == "T1":
            assert record["rms"][0] is not None  # nothing is free
    rows = [row for row in scores.csp_figures(records)["rows"] if row["slice"] == "all crystals"]
    assert {row["method"] for row in rows} == {"plain", "helped", "held back"} and len(rows) == 9


def test_random_cells_are_of_the_group():

    from crystalgfn.crystallography.lattice import in_domain

    rng = np.random.default_rng(0)
    for number in (1, 5, 14, 19, 62, 88, 148, 166, 191, 225):
        cells = torch.tensor(np.array([random_cell(number, {"Sr": 2, "O": 4}, rng) for _ in range(5)]))
        assert in_domain(torch.full((5,), number), cells).all()


def test_questions_are_those_that_pandas_draws(shared_data):
    import pandas as pd

    source = shared_data / "mp20" / "val.parquet"
    drawn = tasks.targets(source, 5, seed=0).crystals
    wanted = pd.read_parquet(source).sample(5, random_state=0)
    assert [q.where for q in drawn] == [f"row {i}" for i in wanted.index]
    assert [q.truth.composition.reduced_formula for q in drawn] == [
        Structure(Lattice.cubic(9), z, np.random.rand(len(z), 3)).composition.reduced_formula for z in wanted.Z
    ]
