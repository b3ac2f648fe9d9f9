"""The notebooks of examples/ run from the first cell to the last, and say what they promise."""

import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SOCKETS = (
    pytest.mark.filterwarnings("ignore:Set OLD_ERROR_HANDLING to false:DeprecationWarning"),  # spglib's, at every call
    pytest.mark.filterwarnings("default"),  # of the kernel's sockets
)


def quiet(function):
    for mark in SOCKETS:
        function = mark(function)
    return function


def run(name: str, folder: Path, timeout: int = 300):
    """The notebook, executed in a folder."""
    notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    return nbclient.NotebookClient(notebook, timeout=timeout, resources={"metadata": {"path": str(folder)}}).execute()


def texts(notebook) -> str:
    """All that its cells have printed or shown."""
    found = []
    for cell in notebook.cells:
        for one in cell.get("outputs", ()):
            found.append(one.get("text") or one.get("data", {}).get("text/plain", ""))
    return "\n".join(found)


@quiet
def test_the_worked_example_places_cubic_oxides(tmp_path):
    from pymatgen.core import Structure

    run("worked_example", tmp_path)
    paths = sorted((tmp_path / "runs" / "limno" / "cifs").glob("*.cif"))
    assert paths
    for path in paths:
        structure = Structure.from_file(path)
        assert set(structure.symbol_set) == {"Li", "Mn", "O"}
        assert structure.get_space_group_info(0.01)[1] >= 195


@quiet
def test_sr2tio4_is_the_ruddlesden_popper_phase(tmp_path):
    from pymatgen.core import Structure

    run("what_is_sr2tio4", tmp_path)
    best = Structure.from_file(tmp_path / "sr2tio4.cif")
    assert best.get_space_group_info(0.01)[1] == 139 and best.composition.reduced_formula == "Sr2TiO4"
    short, _, long = sorted(best.lattice.abc)
    assert short == pytest.approx(3.89, rel=0.03) and long == pytest.approx(12.6, rel=0.03)  # measured


@quiet
def test_an_own_reward_is_learned(tmp_path):
    said = texts(run("own_reward", tmp_path))
    before, after = re.search(r"median ln R: (\S+) untrained, (\S+) trained", said).groups()
    assert float(after) > float(before) + 4
    assert "BuildResult(" in said


@quiet
def test_an_own_constraint_holds_for_every_sample(tmp_path):
    said = texts(run("own_constraint", tmp_path))
    assert "with: 300 of 300 crystals satisfy it" in said and "of F, Cl, Br, I; at most 1" in said
    assert int(re.search(r"without: (\d+) of 300", said)[1]) < 250


@quiet
def test_objectives_are_compared(tmp_path):
    notebook = run("compare_objectives", tmp_path)
    rows = {line.split("  ")[0].strip(): line.split()[-5:] for line in texts(notebook).splitlines()}
    found = {name: [float(one) for one in rows[name]] for name in ("VarGrad", "trajectory balance")}
    assert all(0.05 < one[0] <= 1 for one in found.values())
    assert abs(found["VarGrad"][1] - found["trajectory balance"][1]) < 0.5  # ln Z is the space's and the reward's
    assert any("image/png" in one.get("data", {}) for cell in notebook.cells for one in cell.get("outputs", ()))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["halide_perovskite", "na_conductor"])
@quiet
def test_questions_that_relax(tmp_path, shared_data, name):
    """Minutes of CHGNet and SevenNet."""
    pytest.importorskip("chgnet")
    pytest.importorskip("sevenn")
    for one in ("mp20", "hull"):
        (tmp_path / one).symlink_to(shared_data / one)
    said = texts(run(name, tmp_path, timeout=1800))
    assert "e_above_hull" in said
    if name == "na_conductor":
        assert "all of its data have Li" in said


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_are_valid_and_small(path):
    nbformat.validate(nbformat.read(path, as_version=4))
    assert path.stat().st_size < 100_000
