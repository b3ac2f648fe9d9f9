"""Relaxations that are counted, failed ones included; stable, metastable, unique and novel of known numbers."""

import numpy as np
import pandas as pd
import pytest
from pymatgen.core import Lattice, Structure

from crystalgfn.evaluation.metrics.stability import relaxation_row, stability
from crystalgfn.evaluation.relaxation_job import RelaxationJob, displacement, relax_job, relaxed_structure
from crystalgfn.properties.convex_hull import ExactHull

SALT = Structure(Lattice(2.82 * (1 - np.eye(3))), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
HULL = ExactHull.from_entries({"NaCl": -2.1})


def record(index, energy, **more):
    points = SALT.frac_coords.ravel().tolist()
    cell = {"relaxed_cell": list(SALT.lattice.parameters), "relaxed_Z": [11, 17], "relaxed_frac": points}
    said = {
        "calculator": "CHGNet",
        "start_energy": energy + 0.2,
        "converged": True,
        "steps": 3,
        "strain": 0.01,
        "volume_ratio": 1.02,
    }
    named = {"index": index, "error": None, "formation_energy": energy, "displacement": 0.1, "seconds": 2.0}
    return {**named, **said, **cell, **more}


def test_energies_above_the_hull():
    row = relaxation_row(record(4, -2.05), HULL)
    assert row["e_above_hull"] == pytest.approx(0.05) and row["relax_error"] is None and row["relax_seconds"] == 2.0
    assert relaxed_structure(record(4, -2.05)).matches(SALT)
    unknown = relaxation_row(record(4, -2.05, relaxed_Z=[11, 35]), HULL)
    assert "e_above_hull" not in unknown and "holds Br" in unknown["relax_error"]
    failed = relaxation_row({"index": 4, "error": "no room", "seconds": 0.0}, HULL)
    assert failed["relax_error"] == "no room" and failed["relaxed_a"] is None


def test_a_hull_holds_the_elements_of_its_unstable_compounds():
    """Copper and silver mix in no stable compound; the elements themselves are at 0, with entries or without."""
    pytest.importorskip("pymatgen.analysis.phase_diagram")
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
    from pymatgen.core import Composition

    row = relaxation_row(record(0, 0.02, relaxed_Z=[29, 29, 29, 47]), ExactHull.from_entries({"CuAg": 0.05}))
    diagram = PhaseDiagram([PDEntry(Composition(f), e) for f, e in (("Cu", 0.0), ("Ag", 0.0), ("CuAg", 0.1))])
    hull = diagram.get_hull_energy_per_atom(Composition("Cu3Ag"))
    assert row["e_above_hull"] == pytest.approx(0.02 - hull) == pytest.approx(0.02) and row["relax_error"] is None
    alone = relaxation_row(record(0, 0.03, relaxed_Z=[29, 47]), ExactHull.from_entries({"Cu": 0.0, "Ag2O": 0.1}))
    assert alone["e_above_hull"] == pytest.approx(0.03) and alone["relax_error"] is None
    many = relaxation_row(record(0, 0.0, relaxed_Z=list(range(3, 13))), ExactHull.from_entries({
        "LiBeBCNOFNe": 0.1, "NaMg": 0.2,
    }))  # fmt: skip
    assert "at most 9 elements" in many["relax_error"] and "e_above_hull" not in many


def test_every_crystal_chosen_counts():
    rows = [relaxation_row(record(i, e), HULL) for i, e in enumerate([-2.2, -2.1, -2.05, -1.0])]
    rows.append(relaxation_row({"index": 4, "error": "too close (0.31), sorry", "seconds": 0.0}, HULL))
    frame = pd.DataFrame(rows)
    frame["relaxed_unique"] = [True, False, True, True, None]
    frame["relaxed_novel"] = [True, True, True, True, None]
    found = stability(frame, HULL.n_entries)
    assert found.label == "CHGNet, not DFT" and found.hull_entries == 1
    assert [(s.k, s.n) for s in (found.relaxed, found.stable, found.metastable)] == [(4, 5), (2, 5), (3, 5)]
    assert (found.sun.k, found.msun.k) == (1, 2) and found.sun.low > 0
    assert found.failures == {"too close": 1} and found.relaxation_energy.mean == pytest.approx(0.2)
    assert found.volume_change.quantiles[2] == pytest.approx(0.02)


def test_displacements_without_drift():
    moved = SALT.copy()
    moved.translate_sites([0, 1], [0.3, 0.9, 0.1])
    assert displacement(SALT, moved) == pytest.approx(0)
    cube = Structure(Lattice.cubic(4), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    other = Structure(Lattice.cubic(4), ["Na", "Cl"], [[0.975, 0, 0], [0.525, 0.5, 0.5]])
    assert displacement(cube, other) == pytest.approx(0.1)  # across the boundary


def test_what_cannot_be_relaxed_says_why_at_once():
    close = Structure(Lattice.cubic(5), ["Na", "Cl"], [[0, 0, 0], [0.1, 0, 0]])
    half = Structure(Lattice.cubic(4), [{"Na": 0.5}, "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    assert "closer than 0.6" in relax_job(RelaxationJob(index=0, structure=close))["error"]
    assert "partially occupied" in relax_job(RelaxationJob(index=1, structure=half))["error"]


def test_rock_salt_relaxes():
    pytest.importorskip("chgnet", reason="needs the extra [relax]")
    start = SALT.copy()
    start.scale_lattice(start.volume * 1.2)
    found = relax_job(RelaxationJob(index=7, structure=start, steps=40))
    assert found["error"] is None and found["index"] == 7 and found["converged"]
    assert found["formation_energy"] == pytest.approx(-2.1, abs=0.1)
    assert found["start_energy"] > found["formation_energy"] and 0.8 < found["volume_ratio"] < 0.95
    assert found["displacement"] == pytest.approx(0, abs=1e-3)
