"""The notebooks of examples/ run from the first cell to the last, and say what they promise."""

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
