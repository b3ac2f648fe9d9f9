"""Calculators of every kind: those of ase, a user's own, and what breaks the contract."""

import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from pymatgen.core import Lattice, Structure

import crystalgfn as cg
from crystalgfn.calculators import registry
from crystalgfn.calculators.base import BATCH_ATOMS, ForcesAndStress, calculate_energies, calculate_forces
from crystalgfn.calculators.contract import check_calculator
from crystalgfn.calculators.registry import ASECalculator, load_calculator
from crystalgfn.calculators.relaxation import relax
from crystalgfn.errors import CalculatorError
from tests.contracts.calculator import CalculatorContract

COPPER = Structure.from_spacegroup("Fm-3m", Lattice.cubic(3.61), ["Cu"], [[0, 0, 0]])
ALLOY = Structure(Lattice.tetragonal(2.8, 3.7), ["Cu", "Au"], [[0, 0, 0], [0.5, 0.5, 0.5]])
ARGON = Structure(Lattice.tetragonal(3.8, 5.4), ["Ar"] * 2, [[0, 0, 0], [0.5, 0.5, 0.5]])


class TestEMT(CalculatorContract):
    """Effective medium theory of ase, which knows some metals and says so by itself."""

    structures = (ALLOY,)

    @pytest.fixture
    def calculator(self):
        return load_calculator(EMT())

    def test_without_structures_some_are_found(self, calculator):
        check_calculator(calculator)


class TestLennardJones(CalculatorContract):
    structures = (ARGON,)
    unknown = "Ne"

    @pytest.fixture
    def calculator(self):
        return ASECalculator(LennardJones(sigma=3.4, epsilon=0.0103, rc=9, smooth=True), "argon", elements=["Ar"])


class Harmonic:
    """A user's own: every crystal likes 20 Å³ an atom."""

    name = "Harmonic"

    def knows(self, numbers):
        return 1 not in numbers

    def energies(self, structures):
        return np.array([self._of(one)[0] for one in structures])

    def forces_and_stress(self, structures):
        answers = []
        for one in structures:
            energy, slope = self._of(one)
            stress = slope * np.eye(3)
            answers.append(ForcesAndStress(energy=energy, forces=np.zeros((len(one), 3)), stress=stress))
        return answers

    def _of(self, structure):
        gap = structure.volume / len(structure) - 20
        return gap**2 / 100, gap / 50


class TestHarmonic(CalculatorContract):
    structures = (COPPER, ARGON)
    unknown = "H"

    @pytest.fixture
    def calculator(self):
        return Harmonic()


def test_copper_relaxes_to_the_lattice_constant_that_ase_finds():
    """The same potential, relaxed by ase's own filter and optimiser."""
    from ase.build import bulk
    from ase.filters import FrechetCellFilter
    from ase.optimize import BFGS

    atoms = bulk("Cu", "fcc", 3.61, cubic=True)
    atoms.calc = EMT()
    BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-3)
    (done,) = relax([COPPER], EMT(), max_steps=60, fixed_cell=False, max_force=1e-3)
    assert done.converged and done.structure.lattice.abc == pytest.approx([atoms.cell[0, 0]] * 3, abs=1e-3)
    assert done.energy == pytest.approx(atoms.get_potential_energy() / 4, abs=1e-5)


def test_structures_are_built_relaxed_and_ordered_by_any_calculator(make_crystals):
    crystals = make_crystals((225, {"Cu": 1}, (3.4, 3.4, 3.4, 90.0, 90.0, 90.0)))
    (built,) = cg.build_structures(crystals, refiner=None, relax=True, calculator=EMT())
    assert built.calculator == "EMT" and built.energies[0] == pytest.approx(
        calculate_energies(load_calculator(EMT()), [built.structure])[0], abs=1e-6
    )
    (plain,) = cg.build_structures(crystals, refiner=None)
    assert plain.calculator is None and plain.energies == []


class TestBatches:
    def test_no_call_has_more_atoms_than_said(self):
        calls = []

        class Counting(Harmonic):
            def energies(self, structures):
                calls.append(sum(map(len, structures)))
                return super().energies(structures)

        large, small = COPPER * [5, 5, 5], COPPER
        values = calculate_energies(Counting(), [small] * 120 + [large] + [small])
        assert calls == [400, 80, 500, 4] and max(calls[:2]) <= BATCH_ATOMS < len(large)
        assert values == pytest.approx(calculate_energies(Harmonic(), [small])[0])


class TestFaults:
    """One bad structure is one error in its place; a calculator that breaks its contract is one sentence."""

    def test_structures_that_can_have_no_energy(self):
        half = Structure(Lattice.cubic(4), [{"Cu": 0.5, "Au": 0.5}], [[0, 0, 0]])
        nowhere = Structure(Lattice.cubic(4), ["Cu"], [[np.nan, 0, 0]])
        crushed, huge = COPPER.copy().scale_lattice(0.5), Structure(Lattice.cubic(5123), ["Cu"], [[0, 0, 0]])
        hydride = Structure(Lattice.cubic(3), ["H"], [[0, 0, 0]])
        found = calculate_forces(Harmonic(), [half, nowhere, COPPER, crushed, huge, hydride])
        words = ("partially occupied", "not finite", None, "Å³ an atom", "Å³ an atom", "does not know H (Z = 1)")
        for one, word in zip(found, words, strict=True):
            assert (one.error is None) if word is None else (word in one.error and np.isnan(one.energy))
        assert np.isfinite(calculate_energies(Harmonic(), [half, COPPER])).tolist() == [False, True]

    def test_one_that_raises_leaves_the_others_theirs(self):
        argon_fails = load_calculator(EMT())
        with pytest.warns(UserWarning, match="EMT fails at Ar: .*Ar"):
            energies = calculate_energies(argon_fails, [COPPER, ARGON, ALLOY])
        assert np.isfinite(energies).tolist() == [True, False, True]
        found = relax([COPPER, ARGON], argon_fails)
        assert found[0].converged and found[1].structure is None and "EMT fails at Ar" in found[1].error

    @pytest.mark.parametrize(
        ("method", "answer", "words"),
        [
            ("energies", lambda s: np.zeros((len(s), 1)), "an array of 2 energies"),
            ("energies", lambda s: [None] * len(s), "an array of 2 energies"),
            ("energies", lambda s: np.full(len(s), np.nan), "gives nan for Cu"),
            ("forces_and_stress", lambda s: None, "a list of 2 ForcesAndStress for 2 structures, not a NoneType"),
            ("forces_and_stress", lambda s: [1.0] * len(s), "holds a float"),
            (
                "forces_and_stress",
                lambda s: [ForcesAndStress(energy=0.0, forces=np.zeros(3), stress=np.zeros((3, 3)))] * len(s),
                r"forces of shape \(3,\)",
            ),
            (
                "forces_and_stress",
                lambda s: [
                    ForcesAndStress(energy=e, forces=np.full((len(o), 3), np.nan), stress=np.zeros((3, 3)))
                    for o, e in zip(s, Harmonic().energies(s), strict=True)
                ],
                "not finite",
            ),
            ("forces_and_stress", lambda s: 1 / 0, "fails at Cu: ZeroDivisionError: division by zero"),
        ],
    )
    def test_wrong_answers_are_one_sentence(self, monkeypatch, method, answer, words):
        monkeypatch.setattr(Harmonic, method, lambda _, structures: answer(structures))
        with pytest.raises(CalculatorError, match=words) as raised:
            check_calculator(Harmonic())
        assert "\n" not in str(raised.value)

    def test_slopes_that_are_none(self, monkeypatch):
        stress = Harmonic.forces_and_stress

        def wrong(self, structures):
            return [
                ForcesAndStress(energy=one.energy, forces=one.forces + 0.5, stress=one.stress)
                for one in stress(self, structures)
            ]

        monkeypatch.setattr(Harmonic, "forces_and_stress", wrong)
        with pytest.raises(CalculatorError, match="forces of Harmonic are not the slope"):
            check_calculator(Harmonic())
        pressure = [lambda self, structures, sign=sign: [
            ForcesAndStress(energy=one.energy, forces=one.forces, stress=sign * one.stress)
            for one in stress(self, structures)
        ] for sign in (-1, 160.2)]  # fmt: skip
        for other in pressure:
            monkeypatch.setattr(Harmonic, "forces_and_stress", other)
            with pytest.raises(CalculatorError, match="stress of Harmonic are not the slope"):
                check_calculator(Harmonic())

    def test_batches_that_differ_and_changed_structures(self, monkeypatch):
        energies = Harmonic.energies
        monkeypatch.setattr(Harmonic, "energies", lambda self, s: energies(self, s) * len(s))
        with pytest.raises(CalculatorError, match=r"forces_and_stress|alone"):
            check_calculator(Harmonic())

        def moving(self, structures):
            for one in structures:
                one.translate_sites([0], [0.1, 0, 0])
            return energies(self, structures)

        monkeypatch.setattr(Harmonic, "energies", moving)
        with pytest.raises(CalculatorError, match="changes the structures"):
            check_calculator(Harmonic())

    def test_a_cell_cannot_relax_without_a_stress(self):
        class NoStress(Harmonic):
            def forces_and_stress(self, structures):
                return [
                    ForcesAndStress(energy=one.energy, forces=one.forces, stress=np.full((3, 3), np.nan))
                    for one in super().forces_and_stress(structures)
                ]

        fixed, free = relax([COPPER], NoStress())[0], relax([COPPER], NoStress(), fixed_cell=False)[0]
        assert fixed.converged and "no stress" in free.error and free.structure is None


class TestRegistry:
    def test_a_calculator_stays_what_it_is(self):
        own = Harmonic()
        assert load_calculator(own) is own

    def test_a_module_of_the_users_own(self, tmp_path, monkeypatch):
        (tmp_path / "my_calculators.py").write_text(
            "from ase.calculators.emt import EMT\n"
            "def metals():\n    return EMT()\n"
            "ready = EMT()\nnothing = 3\n"
            "def broken():\n    raise RuntimeError('no licence')\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        for spec in ("my_calculators:metals", "my_calculators:ready", "ase.calculators.emt:EMT"):
            assert load_calculator(spec).name == "EMT"
        for spec, words in (
            ("my_calculators:nothing", "is a int, no calculator: it lacks name, knows"),
            ("my_calculators:broken", "RuntimeError: no licence"),
            ("my_calculators:none", "has no attribute 'none'"),
            ("no_such_module:x", "No module named 'no_such_module'"),
            ("chgnett", "there is no calculator 'chgnett'; give one of chgnet, sevennet"),
            (":x", "there is no calculator"),
        ):
            with pytest.raises(CalculatorError, match=words):
                load_calculator(spec)
        with pytest.raises(CalculatorError, match="calculator=float is a float, no calculator"):
            load_calculator(1.0)

    def test_calculators_of_installed_packages(self, monkeypatch):
        from importlib.metadata import EntryPoint

        point = EntryPoint("metals", "ase.calculators.emt:EMT", registry.GROUP)
        monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == registry.GROUP else [])
        assert load_calculator("metals").name == "EMT"
        with pytest.raises(CalculatorError, match="chgnet, sevennet, metals"):
            load_calculator("metal")
