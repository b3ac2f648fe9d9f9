"""A run's folder: one process at a time, the settings it was begun with, and nothing left of a run that never began."""

import json
import os
import subprocess
import sys

import pytest

from crystalgfn.errors import CheckpointError, DataError
from crystalgfn.utils.run_folder import CONFIG, RunFolder, read_settings, write_settings


def attempt(out, error, made=(), parts=()):
    with pytest.raises(type(error)), RunFolder(out, parts=parts) as folder:
        folder.agree({"seed": 0})
        for name in made:
            (out / name).write_text(name)
        raise error


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("error", [DataError("no"), OSError("full"), KeyboardInterrupt()])
def test_what_never_began_is_gone(error, tmp_path):
    attempt(tmp_path / "new" / "inner", error)
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    attempt(tmp_path / "old", error)
    assert names(tmp_path / "old") == []
    (tmp_path / "old" / "notes.txt").write_text("mine")
    attempt(tmp_path / "old", error)
    assert names(tmp_path / "old") == ["notes.txt"]


@pytest.mark.parametrize("error", [DataError("no"), KeyboardInterrupt()])
def test_what_can_go_on_stays(error, tmp_path):
    attempt(tmp_path / "run", error, made=["checkpoint"])
    assert names(tmp_path / "run") == ["checkpoint", CONFIG]


def test_a_description_that_was_there_stays(tmp_path):
    write_settings(tmp_path / CONFIG, {"seed": 0})
    attempt(tmp_path, DataError("no"))
    assert (tmp_path / CONFIG).exists()


def test_parts_stay_for_a_run_that_was_stopped_and_go_with_one_that_was_refused(tmp_path):
    attempt(tmp_path / "stopped", KeyboardInterrupt(), made=["train.npz"], parts=["train.npz"])
    assert names(tmp_path / "stopped") == [CONFIG, "train.npz"]
    attempt(tmp_path / "refused", DataError("no"), made=["train.npz"], parts=["train.npz"])
    assert not (tmp_path / "refused").exists()


def test_a_programming_error_hides_nothing(tmp_path):
    attempt(tmp_path / "run", ZeroDivisionError())
    assert names(tmp_path / "run") == [CONFIG]


def test_the_setting_that_differs_is_named(tmp_path):
    folder = RunFolder(tmp_path, "a fit")
    folder.agree({"seed": 0, "space": {"elements": ["Li", "N"], "formula": None}, "out": "a"})
    folder.agree({"seed": 0, "space": {"elements": ["Li", "N"], "formula": None}, "out": "b"}, free=["out"])
    with pytest.raises(CheckpointError, match="holds a fit with seed=0, not 1; give what it was begun with"):
        folder.agree({"seed": 1, "space": {}, "out": "a"})
    with pytest.raises(CheckpointError, match="space.formula=null, not LiF"):
        folder.agree({"seed": 0, "space": {"elements": ["Li", "N"], "formula": "LiF"}, "out": "a"})


def test_stages_have_settings_of_their_own(tmp_path):
    folder = RunFolder(tmp_path)
    folder.agree({"n": 1}, file="work/settings.json", section="judging")
    folder.agree({"steps": 5}, file="work/settings.json", section="relaxing")
    folder.agree({"n": 1}, file="work/settings.json", section="judging")
    with pytest.raises(CheckpointError, match="steps=5, not 6"):
        folder.agree({"steps": 6}, file="work/settings.json", section="relaxing")


@pytest.mark.parametrize("value", ["NaN", "1e3", "007", "No", "null", "a=b", "Å ü [x]", "~", "1.5", "true", "${x}", ""])
def test_texts_that_look_like_something_else_come_back(value, tmp_path):
    from omegaconf import OmegaConf

    write_settings(tmp_path / CONFIG, {"value": value, "list": [value]})
    assert read_settings(tmp_path / CONFIG) == {"value": value, "list": [value]}
    loaded = OmegaConf.to_container(OmegaConf.load(tmp_path / CONFIG))
    assert loaded == {"value": value, "list": [value]}


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"[1, 2", b"seed: [", b"- a"])
def test_damaged_settings_are_a_sentence(content, tmp_path):
    (tmp_path / CONFIG).write_bytes(content)
    with pytest.raises(CheckpointError, match="config.yaml is damaged"):
        RunFolder(tmp_path).agree({"seed": 0})


HOLDS = """
import sys, time
from crystalgfn.utils.run_folder import RunFolder
with RunFolder(sys.argv[1]) as folder:
    print("held", flush=True)
    time.sleep(60)
"""


def test_another_process_is_refused_until_the_first_ends_even_by_a_kill(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(CheckpointError, match=f"in use by process {holder.pid} on .*choose another out"):
            RunFolder(tmp_path).__enter__()
        with RunFolder(tmp_path, lock=".lock-0-of-2"):  # shares it by agreement
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    with RunFolder(tmp_path):
        assert str(os.getpid()) in (tmp_path / ".lock").read_text()
    assert names(tmp_path) == []


def test_leftovers_of_killed_processes_are_removed(tmp_path):
    (tmp_path / "sampler").mkdir()
    for name in (".table.csv.part0123abcd", "sampler/.weights.partffff0000"):
        (tmp_path / name).write_text("half")
    with RunFolder(tmp_path):
        assert not [path for path in tmp_path.rglob(".*part*")]


def test_a_record_is_json_in_any_language(tmp_path):
    with RunFolder(tmp_path / "ü") as folder:
        folder.record({"command": "crystalgfn sample out=ü", "path": tmp_path})
    assert json.loads((tmp_path / "ü" / "run.json").read_text(encoding="utf-8"))["command"].endswith("ü")


def test_small_numbers_are_the_same_when_read_again(tmp_path):
    for name in ("settings.json", CONFIG):
        RunFolder(tmp_path).agree({"symprecs": [1e-05, 0.01], "beta": 1e22}, file=name)
        RunFolder(tmp_path).agree({"symprecs": [1e-05, 0.01], "beta": 1e22}, file=name)


def test_a_process_that_shares_a_folder_leaves_the_settings_to_the_others(tmp_path):
    with pytest.raises(KeyboardInterrupt), RunFolder(tmp_path, lock=".lock-0-of-2") as folder:
        folder.agree({"seed": 0})
        raise KeyboardInterrupt
    assert names(tmp_path) == [CONFIG]


def test_a_run_has_ended_where_its_record_is(tmp_path):
    with RunFolder(tmp_path) as folder:
        assert not folder.ended
        folder.record({})
        assert folder.ended
