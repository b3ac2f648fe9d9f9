"""A discovery from end to end: copper and gold with ase's EMT, in Python and on the command line."""

import json

import numpy as np
import pandas as pd
import pytest
from ase.calculators.emt import EMT
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition, Structure

import crystalgfn as cg
from crystalgfn.calculators.energy_references import References
from crystalgfn.cli import app
from crystalgfn.discovery.proposer import Proposer, ProposerConfig
from crystalgfn.errors import CalculatorError, CheckpointError, DataError
from crystalgfn.evaluation.relaxation_job import relaxed_structure  # noqa: F401 - what structures are read with

KNOWN = {"CuAu": -0.04, "Cu3Au": -0.02, "Cu": 0.0, "Au": 0.0}
SPACE = {"elements": ["Cu", "Au"], "n_atoms": (1, 4), "crystal_systems": ["cubic", "tetragonal"]}
SMALL = ProposerConfig(draws=120, pool=40, beta=20.0, build={"refiner": None})


@pytest.fixture(scope="module")
def sampler():
    space = cg.CrystalSpace(**SPACE, oxidation_states=None)
    return cg.Sampler.untrained(space, policy=cg.PolicyConfig(width=16, blocks=1, components=2))


@pytest.fixture(scope="module")
def references(tmp_path_factory):
    """Energies of the elements by EMT, which has them at 0 in its own cells."""
    energies = np.full(118, np.nan)
    energies[[28, 78]] = -0.0057, 0.0002
    path = tmp_path_factory.mktemp("references") / "emt.json"
    checks = {"all": {"rows": 1, "mae": 0.02, "bias": 0.0}}
    References(energies=tuple(energies), calculator="EMT", model="ase", rows=2, checks=checks).save(path)
    return str(path)


@pytest.fixture(scope="module")
def look(sampler, references):
    def run(out, **more):
        options = {"budget": 6, "calculator": EMT(), "reference": KNOWN, "sampler": sampler, "batch": 3, "shortlist": 6}
        options |= {"proposer": SMALL, "energy_references": references, "progress": False, **more}
        return cg.discover(out=out, **options)

    return run


@pytest.fixture(scope="module")
def found(look, tmp_path_factory):
    return look(tmp_path_factory.mktemp("discovery") / "run")


def test_every_row_stands_above_the_exact_hull(found):
    diagram = PhaseDiagram([PDEntry(Composition(f), e * Composition(f).num_atoms) for f, e in KNOWN.items()])
    own = found.ranked
    assert len(found.table) == 6 and len(own) == len(found) > 1
    for structure, row in zip(found.structures, own.to_dict("records"), strict=True):
        entry = PDEntry(structure.composition, row["formation_energy"] * len(structure))
        assert row["e_above_hull"] == pytest.approx(diagram.get_e_above_hull(entry, allow_negative=True), abs=1e-9)
        assert Composition(row["formula"]).reduced_formula == structure.composition.reduced_formula
        assert row["e_above_hull_std"] == pytest.approx(0.02 * np.sqrt(np.pi / 2), rel=1e-3)
        assert row["calculator"] == "EMT" and (row["status"] == "known") == (row["known_as"] != "new") == row["known"]
    assert own["rank"].tolist() == list(range(1, len(own) + 1))
    assert own["e_above_hull"].is_monotonic_increasing


def test_files_are_named_by_rank_and_read_back(found):
    table = pd.read_parquet(found.out / "table.parquet")
    for rank, structure in enumerate(found.structures, 1):
        path = found.out / table.loc[table["rank"] == rank, "file"].item()
        text = path.read_text()
        assert path.name.startswith(f"{rank:04d}_") and f"# rank: {rank}\n" in text and "# seed: 0\n" in text
        assert f"# sampler_hash: {found.summary['sampler_hash']}" in text and "# energy above hull (eV/atom): " in text
        back = Structure.from_str(text, fmt="cif")
        assert back.volume / len(back) == pytest.approx(structure.volume / len(structure), rel=1e-4)
    pattern = pd.read_csv(sorted((found.out / "patterns").iterdir())[0])
    assert pattern["intensity"].max() == pytest.approx(100) and pattern["two_theta"].between(5, 90).all()
    summary = json.loads((found.out / "summary.json").read_text())
    assert summary["relaxed"] == 6 and summary["known_stable"] == 2 and len(summary["rounds"]) == 2


def test_phase_diagram_and_report(found):
    diagram = found.phase_diagram()
    assert {one.symbol for one in diagram.elements} == {"Cu", "Au"}
    assert {one.attribute for one in diagram.all_entries if one.attribute} == set(range(1, len(found) + 1))
    with pytest.raises(DataError, match="a phase diagram of 1 elements"):
        found.phase_diagram(["Cu"])
    with pytest.raises(DataError, match="rank=99"):
        found.powder_pattern(99)
    pytest.importorskip("pymatviz")
    page = found.report().read_text(encoding="utf-8")
    assert page.index("Headline") < page.index("Ranked candidates") < page.index("How it was made")
    assert page.count('<div class="card ') == 5 and "Phase diagram" in page


def test_the_same_folder_gives_the_same_table_and_refuses_another_campaign(found, look, tmp_path):
    again = look(found.out)
    pd.testing.assert_frame_equal(again.table, found.table)
    with pytest.raises(CheckpointError, match="holds a discovery with seed=0, not 1"):
        look(found.out, seed=1)


def test_what_cannot_be_is_one_sentence(look, tmp_path):
    for error, words, options in (
        (ValueError, "budget=0: give a whole number of at least 1", {"budget": 0}),
        (DataError, "reference=<file", {"reference": None}),
        (DataError, "no phase with Au among", {"reference": {"Cu": 0.0}}),
        (ValueError, "invalid correction='magic'", {"correction": "magic"}),
    ):
        with pytest.raises(error, match=words):
            look(tmp_path / "none", **options)
    assert not (tmp_path / "none").exists()


class Broken(EMT):
    """Raises at gold alone, and has no number for what holds copper alone."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        if set(atoms.numbers) == {79}:
            raise RuntimeError("no gold today")
        super().calculate(atoms, properties, system_changes)
        if set(atoms.numbers) == {29}:
            self.results["energy"] = float("nan")


def test_a_calculator_that_raises_or_gives_nan_loses_those_candidates_alone(look, references, tmp_path):
    broken = cg.load_calculator(Broken())
    broken.name = "EMT"
    found = look(tmp_path / "broken", calculator=broken, budget=9, batch=9, shortlist=12, screening=None)
    failed = found.table[found.table["status"].eq("failed")]
    assert len(failed) and len(found) and failed["rank"].isna().all()
    reasons = set(failed["error"])
    assert all("no gold today" in one or "not finite" in one or "closer than" in one for one in reasons), reasons

    screened = look(tmp_path / "screened", calculator=broken, budget=6, batch=6, shortlist=12)
    assert not screened.table["status"].eq("failed").any()  # what has no energy is relaxed last
    assert sum(one["without_energy"] for one in screened.summary["rounds"]) > 0

    def never(self, structures):
        raise RuntimeError("out of order")

    broken.forces_and_stress = never.__get__(broken)
    with pytest.raises(CalculatorError, match="could be relaxed; the first: EMT fails at .* out of order"):
        look(tmp_path / "never", calculator=broken)
    assert not (tmp_path / "never" / "work").exists()


def test_draws_are_reweighted_as_the_docstring_says(sampler):
    """Of two kinds of crystal the share is that of exp(-beta shift), where few of many are kept."""
    making = Proposer(sampler, sampler.space, 0, ProposerConfig(draws=6000, pool=300, beta=10.0))

    def shift(crystals):
        return np.where((crystals.composition[:, 78] > 0).numpy(), 0.2, 0.0)

    plain, kept = (making.draw(0, one).composition[:, 78] > 0 for one in (None, shift))
    before, after = plain.double().mean(), kept.double().mean()
    expected = before * np.exp(-2) / (before * np.exp(-2) + 1 - before)
    assert float(after) == pytest.approx(float(expected), abs=0.08)
    assert 0 < making.ess < 1


def test_the_command_goes_on_and_says_what_it_found(sampler, references, tmp_path, capsys, monkeypatch):
    sampler.save(tmp_path / "sampler")
    frame = pd.DataFrame({"formula": list(KNOWN), "formation_energy_per_atom": list(KNOWN.values())})
    frame.to_csv(tmp_path / "known.csv", index=False)
    arguments = [
        "discover", f"sampler={tmp_path / 'sampler'}", f"reference={tmp_path / 'known.csv'}", f"out={tmp_path / 'out'}",
        "calculator=ase.calculators.emt:EMT", f"energy_references={references}", "refiner=null", "batch=2",
        "shortlist=4", "draws=60", "pool=20", "beta=20", "report=false", "progress=false", "space_groups=[221,225]",
    ]  # fmt: skip
    assert app.main([*arguments, "budget=2"]) == 0
    assert app.main([*arguments, "budget=4"]) == 0
    said = capsys.readouterr()
    assert "of 4 relaxed" in said.out and "rank" in said.out
    assert len(pd.read_csv(tmp_path / "out" / "table.csv")) == 4
    assert app.main([*arguments, "budget=0"]) == 2
    assert "budget" in capsys.readouterr().err
    assert app.main(arguments[:2]) == 2
    assert "reference=<file>" in capsys.readouterr().err


def test_another_calculator_is_asked(found, references):
    """The same potential relaxes what it has relaxed no further; a failure is a row with the reason."""
    own = found.second_opinion(EMT(), 2, energy_references=references)
    assert own["rank"].tolist() == [1, 2] and own["second_calculator"].eq("EMT").all()
    assert own["second_e_above_hull"].tolist() == pytest.approx(own["e_above_hull"].tolist(), abs=5e-3)
    assert own["second_e_above_hull"].le(own["e_above_hull"] + 1e-9).all()
    assert pd.read_csv(found.out / "second.csv")["formula"].tolist() == own["formula"].tolist()


def test_the_second_calculator_on_the_command_line(sampler, references, tmp_path, capsys):
    sampler.save(tmp_path / "sampler")
    pd.DataFrame({"formula": list(KNOWN), "formation_energy_per_atom": list(KNOWN.values())}).to_csv(
        tmp_path / "known.csv", index=False
    )
    emt = "ase.calculators.emt:EMT"
    given = [f"sampler={tmp_path / 'sampler'}", f"reference={tmp_path / 'known.csv'}", f"calculator={emt}"]
    given += [f"energy_references={references}", "refiner=null", "budget=3", "batch=3", "shortlist=3", "draws=40"]
    given += ["pool=20", "beta=20", "report=false", "progress=false", "check_hull=false", f"out={tmp_path / 'out'}"]
    assert app.main(["discover", *given, "second=no_such_calculator"]) == 2
    assert "no_such_calculator" in capsys.readouterr().err and not (tmp_path / "out" / "table.csv").exists()
