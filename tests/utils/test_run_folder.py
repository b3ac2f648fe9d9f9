"""A run that never began leaves nothing in the way of the next; one that did, everything."""

import pytest

from crystalgfn.errors import DataError
from crystalgfn.utils.run_folder import CONFIG, begun


def attempt(out, error, made=(), kept=False, parts=()):
    with pytest.raises(type(error)), begun(out, lambda: kept, parts):
        out.mkdir(exist_ok=True)
        for name in (CONFIG, *made):
            (out / name).write_text(name)
        raise error


@pytest.mark.parametrize("error", [DataError("no"), OSError("full"), KeyboardInterrupt()])
def test_what_never_began_is_gone(error, tmp_path):
    attempt(tmp_path / "new", error)
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    attempt(tmp_path / "old", error)
    assert list((tmp_path / "old").iterdir()) == []
    attempt(tmp_path / "more", error, made=["notes.txt"])
    assert [path.name for path in (tmp_path / "more").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("error", [DataError("no"), KeyboardInterrupt()])
def test_what_can_go_on_stays(error, tmp_path):
    attempt(tmp_path / "run", error, made=["checkpoint"], kept=True)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["checkpoint", CONFIG]


def test_a_description_that_was_there_stays(tmp_path):
    (tmp_path / CONFIG).write_text("of another call")
    attempt(tmp_path, DataError("no"))
    assert (tmp_path / CONFIG).exists()


def test_parts_stay_for_a_run_that_was_stopped_and_go_with_one_that_was_refused(tmp_path):
    attempt(tmp_path / "stopped", KeyboardInterrupt(), made=["train.npz"], parts=["train.npz"])
    assert sorted(path.name for path in (tmp_path / "stopped").iterdir()) == [CONFIG, "train.npz"]
    attempt(tmp_path / "refused", DataError("no"), made=["train.npz"], parts=["train.npz"])
    assert not (tmp_path / "refused").exists()


def test_a_programming_error_hides_nothing(tmp_path):
    attempt(tmp_path / "run", ZeroDivisionError())
    assert (tmp_path / "run" / CONFIG).exists()
