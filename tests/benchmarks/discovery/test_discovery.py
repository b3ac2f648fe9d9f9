"""The benchmark of discovery: which systems, what substitution gives, what counts as found, and that it goes on."""

import json
import math

import pytest
from pymatgen.core import Lattice, Structure

from crystalgfn.benchmarks.discovery import methods, run
from crystalgfn.benchmarks.discovery.methods import DiscoverySettings, Relaxations, ions, substituted
from crystalgfn.benchmarks.discovery.systems import choose_systems
from crystalgfn.crystallography.atoms import Record, all_atoms_of
from crystalgfn.crystallography.elements import NUMBER
from crystalgfn.discovery.phases import KnownPhase
from crystalgfn.errors import DataError
from crystalgfn.evaluation.reference import entry_of


def perovskite(a, b, x, edge=4.0):
    return Structure.from_spacegroup("Pm-3m", Lattice.cubic(edge), [a, b, x], [[0.5] * 3, [0, 0, 0], [0.5, 0, 0]])


def phase(identifier, structure, energy):
    entry = entry_of(Record(identifier, all_atoms_of(identifier, structure, 221)))
    return KnownPhase(identifier=identifier, amounts=entry.amounts, energy=energy, entry=entry)


def bare(symbols, energy):
    pairs = tuple((NUMBER[one], float(n)) for one, n in symbols)
    return KnownPhase(identifier="-".join(one for one, _ in symbols), amounts=pairs, energy=energy)


BINARIES = [bare([(one, 1), ("O", 1)], -2.0) for one in ("Ca", "Sr", "Ba", "Ti", "Zr", "Hf", "Mn")]
KNOWN = [*BINARIES, phase("known", perovskite("Ca", "Ti", "O"), -2.5)]
HELD = [
    phase("found", perovskite("Sr", "Ti", "O"), -2.6),
    phase("other", perovskite("Ba", "Zr", "O"), -2.6),
    phase("unstable", perovskite("Ba", "Hf", "O"), -0.5),
    phase("there", perovskite("Ca", "Ti", "O", 4.1), -2.7),
]
ALLOWED = sorted({z for one in (*KNOWN, *HELD) for z, _ in one.amounts})


def test_systems_hold_stable_phases_that_nothing_known_has():
    found = choose_systems(HELD, KNOWN, ALLOWED, n=2, phases=2, seed=3)
    assert {one.name for one in found} == {"O-Ti-Sr", "O-Zr-Ba"}  # not Ca-Ti-O, which is known; not the unstable one
    for system in found:
        assert [one.identifier for one in system.targets] in (["found"], ["other"])
        assert all(set(system.numbers) != {z for z, _ in one.amounts} for one in system.known.phases)
        assert {z for one in system.known.phases for z, _ in one.amounts} == set(system.numbers)
    again = choose_systems(HELD, KNOWN, ALLOWED, n=2, phases=2, seed=3)
    assert [one.name for one in again] == [one.name for one in found]
    with pytest.raises(DataError, match="2 chemical systems can be chosen, and no 3 of them"):
        choose_systems(HELD, KNOWN, ALLOWED, n=3)
    assert choose_systems(HELD, KNOWN, [z for z in ALLOWED if z != 40], n=1, phases=1)[0].name == "O-Ti-Sr"


@pytest.fixture
def system():
    return next(one for one in choose_systems(HELD, KNOWN, ALLOWED, n=2, phases=2) if one.name == "O-Ti-Sr")


def settings(**more):
    return DiscoverySettings(**{"budget": 3, "calculator": None, "sampler": None, "templates": KNOWN, **more})


def made(structures, energies, spent, evaluations, correlation=None):
    return Relaxations(
        structures=structures, energies=energies, spent=spent, evaluations=evaluations, rank_correlation=correlation
    )


def test_substitution_puts_strontium_where_calcium_was(system):
    best = substituted(system, settings())[0]
    assert best.composition.reduced_formula == "SrTiO3" and best.get_space_group_info()[1] == 221
    titanium = next(i for i, site in enumerate(best) if site.specie.symbol == "Ti")
    assert sum(site.specie.symbol == "O" for site in best.get_neighbors(best[titanium], 0.55 * best.lattice.a)) == 6
    assert {symbol: ion.oxi_state for symbol, ion in ions("SrTiO3").items()} == {"Sr": 2, "Ti": 4, "O": -2}
    assert ions("Fe3O4") == {}


def test_an_ion_that_the_table_of_probabilities_lacks_comes_last():
    from pymatgen.analysis.structure_prediction.substitution_probability import SubstitutionProbability
    from pymatgen.core import Species

    model = SubstitutionProbability()
    strange = methods._probability(model, [Species("Rh", 6)], [Species("Ti", 4)])
    assert 0 <= strange < methods._probability(model, [Species("Sr", 2)], [Species("Ca", 2)])


def test_found_is_the_same_structure_or_the_formula_at_its_energy(system):
    other = Structure.from_spacegroup("P4/mmm", Lattice.tetragonal(4, 6), ["Sr", "Ti", "O"],
                                      [[0, 0, 0], [0.5, 0.5, 0.3], [0, 0, 0.5]])  # fmt: skip
    assert run.score_discovery(system, made([perovskite("Sr", "Ti", "O", 4.2)], [-2.3], 1, 7))["found"] == ["found"]
    assert run.score_discovery(system, made([other], [-2.6], 1, 7))["found"] == []
    rearranged = perovskite("Ti", "Sr", "O", 4.4)
    at_its_energy = run.score_discovery(system, made([rearranged], [-2.585], 5, 7))
    assert at_its_energy["found"] == ["found"] and at_its_energy["near"] == 1 and at_its_energy["relaxations"] == 5
    assert at_its_energy["best"]["found"] == pytest.approx(0.015)
    assert (
        run.score_discovery(system, made([rearranged, rearranged.copy()], [-2.57, -2.56], 2, 7))["near"] == 1
    )  # each once
    assert run.score_discovery(system, made([rearranged], [-2.5], 1, 7)) == {
        "targets": 1, "found": [], "best": {"found": pytest.approx(0.1)}, "relaxations": 1, "evaluations": 7,
        "near": 0, "rank_correlation": None,
    }  # fmt: skip


def test_what_is_done_is_not_done_again_and_figures_are_of_all(system, tmp_path, monkeypatch):
    calls, stops = [], [KeyboardInterrupt]

    def exact(one, own, out):
        calls.append(("exact", one.name))
        structures = [target.entry.structure() for target in one.targets]
        return made(structures, [target.energy for target in one.targets], 3, 12, 0.5)

    def nothing(one, own, out):
        if stops:
            raise stops.pop()
        calls.append(("nothing", one.name))
        return made([], [], 3, 9)

    monkeypatch.setattr(run, "METHODS", {"exact": exact, "nothing": nothing})
    systems = choose_systems(HELD, KNOWN, ALLOWED, n=2, phases=2)
    with pytest.raises(KeyboardInterrupt):
        run.run_discovery(systems, settings(), ["exact", "nothing"], tmp_path, False)
    records = run.run_discovery(systems, settings(), ["exact", "nothing"], tmp_path, False)
    assert len(calls) == 4
    figures = run.discovery_figures(records)
    own = figures["methods"]
    assert own["exact"]["share_found"] == 1 and own["nothing"]["share_found"] == 0
    assert own["exact"]["near_per_relaxation"]["value"] == pytest.approx(1 / 3)
    assert own["exact"]["median_rank_correlation"] == 0.5 and own["nothing"]["median_rank_correlation"] is None
    assert own["exact"]["evaluations"] == 24
    assert own["nothing"]["median_gap_of_met_formulas"] is None and math.isfinite(own["exact"]["seconds"])
    assert json.loads(json.dumps(figures)) == figures
    assert "| exact | 2 of 2 |" in run.discovery_tables(figures)
    assert set(methods.METHODS) == {"discover", "uncorrected", "substitution", "random"}
