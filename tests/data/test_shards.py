"""Runs in shards: exact, the same however often they are killed or shared out, in constant memory."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
import weakref
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from forks import COMMAND

import crystalgfn as cg
from crystalgfn.cli import app
from crystalgfn.data.shards import MANIFEST, Manifest, read_shards, read_table, shard_path
from crystalgfn.errors import CheckpointError, ShardError
from crystalgfn.sampling import table
from crystalgfn.sampling.sampler import ResamplingWarning, Sampler
from crystalgfn.sampling.sharded import ShardRun, ShardWarning, run_fingerprint
from crystalgfn.utils.random import derived_seed
from crystalgfn.utils.run_folder import RunFolder

SPACE = {"elements": ["Li", "O", "Na"], "space_groups": [2, 166, 221, 225], "n_atoms": (1, 6)}
SMALL = cg.PolicyConfig(width=16, blocks=1, components=2)
N, SIZE = 50, 12  # 5 shards, the last of 2
#: Of shard 0 and 1 of seed 0, and of shard 0 of seed 1: other ones would end every run that was begun.
SEEDS = (7896617691693857887, 2918264622725855778, 3717377837946358015)
#: A process for each moment that is named, which dies by SIGKILL right then; each goes on with the run of the last.
KILLED = """
import os, signal, sys
from crystalgfn.utils import files
from crystalgfn.sampling.sampler import Sampler
from crystalgfn.sampling.sharded import ShardRun
import pyarrow.parquet as pq

sampler, out, n, size = Sampler.load(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:5])

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def half(table, path, **options):
    write(table, path, **options)
    os.truncate(path, os.path.getsize(path) // 2)
    die()

def nth(calls, before, after):
    def rename(*arguments):
        nonlocal calls
        calls -= 1
        calls or before()
        replace(*arguments)
        calls or after()
    return rename

replace, write = os.replace, pq.write_table
for moment in sys.argv[5:]:
    pid = os.fork()
    if not pid:
        calls, where = int(moment[0]), moment[1:]
        if where == "half":
            pq.write_table = half
        else:
            nothing = lambda: None
            files.os.replace = nth(calls, *((die, nothing) if where == "before" else (nothing, die)))
        try:
            ShardRun(sampler, out, n, size).write(progress=False)
        finally:
            os._exit(1)
    print(moment, os.WTERMSIG(os.waitpid(pid, 0)[1]), *sorted(os.listdir(out)), flush=True)
"""
#: Prints the peak of the resident memory, in kB, after a short run and after a long one.
PEAK = """
import resource, sys
from crystalgfn.sampling.sampler import Sampler
from crystalgfn.sampling.sharded import ShardRun

sampler = Sampler.load(sys.argv[1])
for shards in (4, 24):
    ShardRun(sampler, f"{sys.argv[2]}/{shards}", shards * 1000, 1000).write(progress=False)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.fixture(scope="module")
def sampler() -> Sampler:
    plain = Sampler.untrained(cg.CrystalSpace(**SPACE), policy=SMALL)
    return Sampler(plain.space, plain.network, cg.rewards.boltzmann(cg.rewards.Density(), beta=0.5))


@pytest.fixture(scope="module")
def saved(sampler, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "sampler"
    sampler.save(folder)
    return folder


@pytest.fixture(scope="module")
def whole(sampler, tmp_path_factory) -> Path:
    """A run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    ShardRun(sampler, out, N, SIZE).write(progress=False)
    return out


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "shards").iterdir())}


def python(code: str, *arguments: object) -> list[str]:
    found = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    return found.stdout.splitlines()


def command(saved: Path, out: Path, *more: str) -> list[str]:
    quiet = ["structures=false", "picture=false", "diagnostics=0", "progress=false"]
    return [f"sampler={saved}", f"n={N}", f"shard_size={SIZE}", *quiet, *more, f"out={out}"]


# ---- what is written ----------------------------------------------------------------------------------------------


def test_shards_hold_exactly_what_is_drawn(sampler, whole):
    batches = list(read_shards(whole))
    assert [len(batch) for batch in batches] == [12, 12, 12, 12, 2]
    for i, batch in enumerate(batches):
        drawn = sampler.sample(len(batch), seed=derived_seed(0, i))
        for name in ("space_group", "composition", "lattice"):
            assert torch.equal(getattr(batch, name), getattr(drawn, name))
            assert getattr(batch, name).dtype == getattr(drawn, name).dtype


def test_the_table_of_all_shards(sampler, whole):
    crystals, frame = cg.Crystals.cat(list(read_shards(whole))), read_table(whole)
    assert frame["id"].tolist() == list(range(N))
    expected = table.results_table(sampler, crystals)
    assert set(frame) == {"id", "atomic_numbers", "counts", *expected}
    for name in ("formula", "space_group", "a", "gamma", "n_elements", "density", "log_q", "log_r"):
        if frame[name].dtype == np.float64:
            np.testing.assert_allclose(frame[name], expected[name], rtol=1e-6)
        else:
            assert frame[name].tolist() == expected[name].tolist()
    for i in (0, N - 1):
        row = torch.zeros(118, dtype=torch.int64)
        row[torch.tensor(frame["atomic_numbers"][i].astype(int)) - 1] = torch.tensor(frame["counts"][i].astype(int))
        assert torch.equal(row, crystals.composition[i])
    assert list(read_table(whole, ["log_q", "id"])) == ["log_q", "id"]
    # Without this package too: nothing but shards is in the folder.
    pd.testing.assert_frame_equal(pd.read_parquet(whole / "shards"), frame)


def test_a_narrowed_and_resampled_run(sampler, tmp_path):
    space = {"elements": ["Li", "O"], "space_groups": [225]}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        ShardRun(sampler, tmp_path, 40, 10, space=space, resample=True, seed=7).write(progress=False)
    assert [one.category for one in said] in ([ResamplingWarning], []), "said once at most, not for every shard"
    crystals = cg.Crystals.cat(list(read_shards(tmp_path)))
    assert sampler.space.narrowed(**space).contains(crystals).all()
    drawn = Sampler(sampler.space, sampler.network, sampler.reward)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResamplingWarning)
        second = drawn.sample(10, space=space, resample=True, seed=derived_seed(7, 1))
    assert torch.equal(crystals[10:20].lattice, second.lattice)


def test_a_warning_is_not_repeated_for_every_shard(sampler, tmp_path, monkeypatch):
    def low(self, n, **given):
        warnings.warn("low", ResamplingWarning, stacklevel=2)
        return sampler.sample(n)

    poor = Sampler(sampler.space, sampler.network, sampler.reward)
    monkeypatch.setattr(poor, "sample", low.__get__(poor))
    with pytest.warns(ResamplingWarning) as said:
        ShardRun(poor, tmp_path, 40, 10, resample=True).write(progress=False)
    assert len(said) == 1


def test_seeds_of_shards_are_stable_and_differ():
    assert (derived_seed(0, 0), derived_seed(0, 1), derived_seed(1, 0)) == SEEDS
    assert len({derived_seed(seed, i) for seed in (-1, 0, 1, 2, 2**63) for i in range(1000)}) == 5000


# ---- killed and gone on with --------------------------------------------------------------------------------------


def test_killed_at_any_moment_it_comes_out_the_same(sampler, saved, whole, forks, tmp_path):
    """Renames: the manifest's first where there is none, then one a shard."""
    out = tmp_path / "run"
    moments = ["1before", "1after", "1half", "1before", "1after", "2before", "1after", "1half"]
    said = forks.run(KILLED, saved, out, N, SIZE, *moments).splitlines()
    assert [line.split()[:2] for line in said] == [[moment, str(int(signal.SIGKILL))] for moment in moments]
    assert sorted(path.name for path in (out / "shards").glob("part*")) == [f"part-0000{i}.parquet" for i in range(3)]
    assert list((out / "shards").glob(".part*")), "the last process left a half written file"
    before = {path: path.stat().st_mtime_ns for path in (out / "shards").glob("part*")}
    run = ShardRun(sampler, out, N, SIZE)
    assert run.done == {0, 1, 2}
    run.write(progress=False)
    assert contents(out) == contents(whole)
    assert sorted(os.listdir(out)) == [MANIFEST, "shards"]
    assert {path: path.stat().st_mtime_ns for path in before} == before, "complete shards are kept"


def test_the_command_killed_from_outside(saved, forks, tmp_path, capsys):
    """It is killed as soon as another shard is there, wherever it is by then."""
    many = [f"sampler={saved}", "n=300", "shard_size=10", *command(saved, tmp_path)[3:-1]]
    out, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    for shards in (1, 6):
        process, begun = forks.start(COMMAND, "sample", *many, f"out={out}"), time.monotonic()
        while len(list(out.glob("shards/part-*"))) < shards:
            assert process.poll() is None, process.err.read_text()
            assert time.monotonic() - begun < 120
            time.sleep(0.01)
        process.kill()
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
    assert app.sample([*many, f"out={out}"]) == 0
    assert "of the 30 shards: going on" in capsys.readouterr().out
    assert app.sample([*many, f"out={undisturbed}"]) == 0
    assert contents(out) == contents(undisturbed)
    assert app.sample([*many, f"out={out}"]) == 0
    assert "30 of the 30 shards: all" in capsys.readouterr().out


def test_two_processes_share_a_run(saved, whole, forks, tmp_path):
    out = tmp_path / "run"
    processes = [forks.start(COMMAND, "sample", *command(saved, out, f"shard=[{i},2]")) for i in (0, 1)]
    for process in processes:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    assert contents(out) == contents(whole)
    assert sorted(os.listdir(out)) == [MANIFEST, "run.json", "shards"]


def test_a_process_leaves_what_another_is_writing(sampler, tmp_path):
    run = ShardRun(sampler, tmp_path, N, SIZE, shard=(0, 2))
    assert list(run.own) == [0, 2, 4]
    mine, its = (shard_path(tmp_path, i).with_name(f".part-0000{i}.parquet.part12ab") for i in (2, 3))
    mine.parent.mkdir()
    mine.touch()
    its.touch()
    ShardRun(sampler, tmp_path, N, SIZE, shard=(0, 2))
    assert (mine.exists(), its.exists()) == (False, True)


def test_ctrl_c_says_how_to_go_on(saved, tmp_path, monkeypatch, capsys):
    write, out = ShardRun._write, tmp_path / "run"

    def interrupted(self, i):
        if i == 2:
            raise KeyboardInterrupt
        write(self, i)

    monkeypatch.setattr(ShardRun, "_write", interrupted)
    assert app.sample(command(saved, out)) == 130
    said = capsys.readouterr().err
    assert "2 of the 5 shards are complete" in said
    assert f"same command and out={out}" in said
    assert len(list((out / "shards").iterdir())) == 2


@pytest.mark.parametrize("size", [0, 5, 0.5, -1])
def test_a_shard_that_was_cut_is_drawn_again(size, sampler, whole, tmp_path):
    ShardRun(sampler, tmp_path, N, SIZE).write(progress=False)
    cut = shard_path(tmp_path, 1)
    length = cut.stat().st_size
    os.truncate(cut, int(size * length) if size == 0.5 else size % length)
    with pytest.raises(ShardError, match=r"part-00001.parquet cannot be read \(.*delete it"):
        list(read_shards(tmp_path))
    with pytest.warns(ShardWarning, match="part-00001.parquet is damaged .* sampled again"):
        run = ShardRun(sampler, tmp_path, N, SIZE)
    assert run.done == {0, 2, 3, 4}
    run.write(progress=False)
    assert contents(tmp_path) == contents(whole)


def test_a_shard_with_wrong_bytes_is_not_read(sampler, tmp_path):
    ShardRun(sampler, tmp_path, 400, 200).write(progress=False)
    path = shard_path(tmp_path, 1)
    damaged = bytearray(path.read_bytes())
    column = next(c for c in range(30) if columns(path, c).path_in_schema == "a")
    where = columns(path, column).data_page_offset + columns(path, column).total_compressed_size // 2
    damaged[where] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(ShardError, match="part-00001"):
        list(read_shards(tmp_path))


def columns(path: Path, i: int):
    import pyarrow.parquet as pq

    return pq.read_metadata(path).row_group(0).column(i)


# ---- what does not go together ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n": 60}, "settings.n=50, not 60"),
        ({"shard_size": 13}, "settings.shard_size=12, not 13"),
        ({"seed": 1}, "settings.seed=0, not 1"),
        ({"resample": True}, "settings.resample=False, not True"),
        ({"space": {"elements": ["Li", "O"]}}, r"settings.space.elements=\['Li', 'O', 'Na'\], not \['Li', 'O'\]"),
    ],
)
def test_other_settings_are_refused(change, words, sampler, whole):
    before = contents(whole)
    with pytest.raises(CheckpointError, match=words):
        ShardRun(sampler, whole, **{"n": N, "shard_size": SIZE, **change})
    assert contents(whole) == before


def test_another_sampler_is_refused(sampler, whole):
    others = [
        Sampler.untrained(sampler.space, seed=1, policy=SMALL),
        Sampler(sampler.space, sampler.network, cg.rewards.boltzmann(cg.rewards.Density(), beta=0.6)),
        Sampler(sampler.space, sampler.network, sampler.reward, omega=(0.5, 0.3, 0.2, 0, 0)),
    ]
    assert len({run_fingerprint(one) for one in [sampler, *others]}) == 4
    for other in others:
        with pytest.raises(CheckpointError, match="settings.sampler=.*, not .*; give what it was begun with"):
            ShardRun(other, whole, N, SIZE)


def test_a_saved_sampler_has_the_same_content(sampler, saved):
    assert run_fingerprint(Sampler.load(saved)) == run_fingerprint(sampler)


def test_other_versions_are_refused(sampler, whole, tmp_path):
    manifest = Manifest.read(whole)
    manifest.settings["versions"]["torch"] = "1.0"
    (tmp_path / MANIFEST).write_text(json.dumps(manifest.content))
    with pytest.raises(CheckpointError, match="settings.versions.torch=1.0, not"):
        ShardRun(sampler, tmp_path, N, SIZE)


def test_shards_of_another_run_are_not_mixed_in(sampler, whole, tmp_path):
    ShardRun(sampler, tmp_path, N, SIZE, seed=1)
    shard_path(tmp_path, 0).parent.mkdir()
    shard_path(tmp_path, 0).write_bytes(shard_path(whole, 0).read_bytes())
    with pytest.raises(ShardError, match="part-00000.parquet belongs to another run"):
        ShardRun(sampler, tmp_path, N, SIZE, seed=1)
    with pytest.raises(ShardError, match="part-00000.parquet belongs to another run"):
        list(read_shards(tmp_path, partial=True))


def test_a_shard_in_the_place_of_another_is_noticed(sampler, whole, tmp_path):
    ShardRun(sampler, tmp_path, N, SIZE)
    shard_path(tmp_path, 1).parent.mkdir()
    shard_path(tmp_path, 1).write_bytes(shard_path(whole, 0).read_bytes())
    with pytest.raises(ShardError, match="part-00001.parquet"):
        read_table(tmp_path, partial=True)


def test_a_run_that_is_not_finished_is_not_read_as_whole(sampler, tmp_path):
    ShardRun(sampler, tmp_path, N, SIZE, shard=(1, 2)).write(progress=False)
    with pytest.raises(ShardError, match="lacks 3 of 5 shards"):
        read_shards(tmp_path)
    assert read_table(tmp_path, ["id"], partial=True)["id"].tolist() == [*range(12, 24), *range(36, 48)]
    with pytest.raises(ShardError, match="no column 'energy'"):
        read_table(tmp_path, ["energy"], partial=True)


@pytest.mark.parametrize("text", [None, "{", "[]", '{"kind": "something else", "version": 1}'])
def test_a_folder_without_a_manifest_is_not_read(text, tmp_path):
    if text is not None:
        (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(ShardError, match=MANIFEST):
        read_shards(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["structures=true"], ["structures=false", "build_structures"]),
        (["shard_size=0"], ["shard_size=0", "at least 1"]),
        (["shard_size=some"], ["shard_size", "whole number"]),
        (["shard=[2,2]"], ["shard=[2, 2]", "0 <= i < k"]),
        (["shard=[-1,2]"], ["shard=[-1,2]"]),
        (["shard=[0]"], ["shard=[0]"]),
        (["shard=1"], ["shard=1", "[i,k]"]),
        (["shard_size=null", "shard=[0,2]"], ["shard_size=<crystals>"]),
    ],
)
def test_mistakes(arguments, words, saved, tmp_path, capsys):
    capsys.readouterr()
    assert app.sample([*command(saved, tmp_path / "out"), *arguments]) == 2
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1
    assert all(word in said for word in words), said
    assert not (tmp_path / "out" / MANIFEST).exists()


def test_kinds_of_runs_do_not_share_a_folder(saved, whole, tmp_path, capsys):
    assert app.sample([*command(saved, whole)[:-1], "shard_size=null", f"out={whole}"]) == 2
    assert "give its shard_size" in capsys.readouterr().err
    assert app.sample([*command(saved, tmp_path), "shard_size=null"]) == 0
    assert app.sample(command(saved, tmp_path)) == 2
    assert "already holds crystals" in capsys.readouterr().err


def test_the_picture_shows_the_first_shard(saved, tmp_path, capsys):
    assert app.sample([*command(saved, tmp_path), "picture=true", "diagnostics=20"]) == 0
    said = capsys.readouterr().out
    assert "ESS" in said
    assert f"{N} crystals in 5 shards" in said
    assert (tmp_path / "picture.png").stat().st_size > 10_000


# ---- memory -------------------------------------------------------------------------------------------------------


def test_nothing_of_a_shard_outlives_it(sampler, tmp_path, monkeypatch):
    drawn: list[weakref.ref] = []
    alive: list[int] = []

    def watched(self, n, **given):
        alive.append(sum(one() is not None for one in drawn))
        crystals = Sampler.sample(self, n, **given)
        drawn.extend(weakref.ref(tensor) for tensor in (crystals, crystals.composition, crystals.lattice))
        return crystals

    poor = Sampler(sampler.space, sampler.network, sampler.reward)
    monkeypatch.setattr(poor, "sample", watched.__get__(poor))
    ShardRun(poor, tmp_path, N, SIZE).write(progress=False)
    assert alive == [0, 0, 0, 0, 0]


def test_memory_does_not_grow_with_the_number_of_shards(saved, tmp_path):
    """Twenty shards more, of 1 MB of compositions each."""
    short, long = map(int, python(PEAK, saved, tmp_path))
    assert long - short < 8_000, f"{short} kB after 4 shards, {long} kB after 24"


def test_reading_takes_a_shard_at_a_time(whole):
    batches = read_shards(whole)
    first = weakref.ref(next(batches))
    assert first() is None
    assert len(next(batches)) == SIZE


def test_the_manifest_says_what_run_it_is(sampler, whole):
    content = json.loads((whole / MANIFEST).read_text())
    settings = content["settings"]
    assert content["kind"] == "crystalgfn shards"
    assert settings["sampler"] == run_fingerprint(sampler)
    assert cg.CrystalSpace(**settings["space"]) == sampler.space
    assert (settings["n"], settings["shard_size"], settings["seed"]) == (N, SIZE, 0)
    assert settings["versions"]["torch"] == torch.__version__


def test_two_processes_do_not_write_the_same_shards(sampler, tmp_path):
    with RunFolder(tmp_path, lock=".lock-0-of-2"):
        with pytest.raises(CheckpointError, match="is in use by process"):
            ShardRun(sampler, tmp_path, N, SIZE, shard=(0, 2)).write(progress=False)
        ShardRun(sampler, tmp_path, N, SIZE, shard=(1, 2)).write(progress=False)
    assert sorted(os.listdir(tmp_path)) == [MANIFEST, "shards"]
