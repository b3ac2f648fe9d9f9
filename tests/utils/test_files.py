"""Files that are whole or not there."""

import os
import stat

import numpy as np
import pytest

from crystalgfn.errors import CheckpointError
from crystalgfn.utils.files import remove_leftovers, save_arrays, write_aside


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_files_have_the_mode_of_any_new_file(tmp_path, mask, mode):
    """Whatever the writer gave them: some make files that only their owner may read."""
    before = os.umask(mask)
    try:

        def private(path):
            path.write_text("text")
            path.chmod(0o600)

        write_aside(tmp_path / "private", private)
        save_arrays(tmp_path / "arrays.npz", {"a": np.zeros(2)})
        assert os.umask(mask) == mask  # left as it was
    finally:
        os.umask(before)
    for name in ("private", "arrays.npz"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "file").write_text("old")

    def full(path):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(CheckpointError, match="No space left on device"):
        write_aside(tmp_path / "file", full)
    assert [p.name for p in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "old"


def test_leftovers_of_killed_writers_go(tmp_path):
    for name in (".weights.part0123abcd", ".weights.part", "weights.part0123abcd", "weights"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".weights.part", "weights", "weights.part0123abcd"]
