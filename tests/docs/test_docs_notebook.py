"""The notebook of examples/ runs from its first cell to its last, and what it writes is a cubic Li-Mn-O oxide."""

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "worked_example.ipynb"


@pytest.mark.filterwarnings("ignore:Set OLD_ERROR_HANDLING to false:DeprecationWarning")  # spglib's, at every call
@pytest.mark.filterwarnings("default")  # of the kernel's sockets
def test_the_notebook_runs(tmp_path):
    from pymatgen.core import Structure

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    paths = sorted((tmp_path / "runs" / "limno" / "cifs").glob("*.cif"))
    assert paths
    for path in paths:
        structure = Structure.from_file(path)
        assert set(structure.symbol_set) == {"Li", "Mn", "O"}
        assert structure.get_space_group_info(0.01)[1] >= 195


def test_the_notebook_is_valid_and_small():
    nbformat.validate(nbformat.read(NOTEBOOK, as_version=4))
    assert NOTEBOOK.stat().st_size < 100_000
