"""Records that were written stay; a line that a kill cut off is done again; what is damaged is named."""

import numpy as np
import pytest

from crystalgfn.errors import CheckpointError, NotAvailable
from crystalgfn.utils.parallel import parallel_map
from crystalgfn.utils.run_folder import Journal


def test_records_are_there_again(tmp_path):
    first = Journal(tmp_path / "work" / "some.jsonl", "index")
    first.add({"index": 0, "value": np.float64(1.5)}, {"index": 1, "value": None, "flag": np.bool_(True)})
    first.add({"index": 1, "value": "another"}, {"index": 2})
    again = Journal(tmp_path / "work" / "some.jsonl", "index")
    assert again.records == {
        0: {"index": 0, "value": 1.5},
        1: {"index": 1, "value": None, "flag": True},
        2: {"index": 2},
    }
    assert 2 in again and 3 not in again and len(again.path.read_text().splitlines()) == 3


@pytest.mark.parametrize("cut", [1, 5, 12])
def test_a_line_cut_off_by_a_kill_is_done_again(tmp_path, cut):
    journal = Journal(tmp_path / "some.jsonl", "index")
    journal.add(*({"index": i, "text": "abc"} for i in range(3)))
    journal.path.write_bytes(journal.path.read_bytes()[:-cut])
    again = Journal(journal.path, "index")
    assert sorted(again.records) == [0, 1]
    again.add({"index": 2, "text": "anew"})
    assert Journal(journal.path, "index").records[2]["text"] == "anew"


def test_a_damaged_line_is_named(tmp_path):
    (tmp_path / "some.jsonl").write_text('{"index": 0}\nnonsense\n{"index": 2}\n')
    with pytest.raises(CheckpointError, match="line 2"):
        Journal(tmp_path / "some.jsonl", "index")


def test_work_in_one_process_and_without_dask(monkeypatch):
    assert list(parallel_map(abs, [-1, 2, -3])) == [1, 2, 3]
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(NotAvailable, match="pip install"):
        list(parallel_map(abs, [1, 2], scheduler="local"))


@pytest.mark.slow
def test_work_in_two_processes():
    assert sorted(parallel_map(abs, [-1, 2, -3], n_jobs=2)) == [1, 2, 3]
