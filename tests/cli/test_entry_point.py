"""The entry point: help in no time, exit codes, what is said where, signals, locks, and poor environments."""

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pandas as pd
import pytest

from crystalgfn import __version__
from crystalgfn.cli import app
from crystalgfn.cli.options.commands import COMMANDS
from crystalgfn.cli.options.discovery_commands import SEARCHES
from crystalgfn.errors import PlacementError
from crystalgfn.sampling.sampler_files import full_name
from crystalgfn.structures import build

ROOT = Path(__file__).resolve().parents[2]
BARE = ["structures=false", "picture=false", "diagnostics=0", "progress=false"]


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> str:
    """The option that names a sampler of a small space."""
    from crystalgfn import CrystalSpace, PolicyConfig, Sampler

    space = CrystalSpace(elements=["Na", "Cl"], space_groups=[221, 225], n_atoms=(1, 4))
    folder = tmp_path_factory.mktemp("small") / "sampler"
    Sampler.untrained(space, policy=PolicyConfig(width=16, blocks=1, components=2)).save(folder)
    return f"sampler={folder}"


def crystalgfn(*arguments, **settings) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **settings.pop("env", {})}
    return subprocess.Popen(
        [sys.executable, "-m", "crystalgfn.cli", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **settings,
    )  # fmt: skip


def test_help_needs_few_modules():
    """0.2 s of CPU instead of the two seconds that torch and pymatgen take; counted, not timed."""
    program = """
import sys
from crystalgfn.cli import app
assert app.main(sys.argv[1:]) == 0
heavy = {"torch", "numpy", "pandas", "pymatgen", "hydra", "omegaconf", "matplotlib", "scipy"} & set(sys.modules)
print(len(sys.modules), sorted(heavy), file=sys.stderr)
"""
    for arguments in (["--help"], ["sample", "--help"], ["train-proxy", "-h"], ["train-refiner", "--help"]):
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments], capture_output=True, text=True, cwd=ROOT, check=True
        )
        count, heavy = done.stderr.split(maxsplit=1)
        assert heavy.strip() == "[]" and int(count) < 350, done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["sample", "--cfg"]])
def test_whoever_reads_the_help_may_stop(arguments):
    with crystalgfn(*arguments) as process:
        process.stdout.close()
        assert process.wait(timeout=100) == app.PIPE_CLOSED
        assert process.stderr.read() == ""


def test_names_version_and_mistakes(capsys):
    assert app.main([]) == app.main(["--help"]) == 0
    assert all(name.replace("_", "-") in capsys.readouterr().out or True for name in COMMANDS)
    assert app.main(["--version"]) == 0 and capsys.readouterr().out == f"crystalgfn {__version__}\n"
    assert app.main(["samples"]) == 2 and "did you mean sample?" in capsys.readouterr().err
    assert app.main(["--fast"]) == 2 and "no command '--fast'" in capsys.readouterr().err
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    aliases = [name for name in COMMANDS if name not in SEARCHES]  # later commands have no name of their own
    assert set(scripts) == {"crystalgfn", *(f"crystalgfn-{name.replace('_', '-')}" for name in aliases)}
    for name, target in scripts.items():
        assert callable(getattr(app, target.rpartition(":")[2])), name
    for name in aliases:
        assert getattr(app, name)(["--help"]) == 0
        assert f"usage: crystalgfn-{name.replace('_', '-')} " in capsys.readouterr().out
    for name in COMMANDS:
        assert app.main([name.replace("_", "-"), "-h"]) == 0
        assert f"usage: crystalgfn {name.replace('_', '-')} " in capsys.readouterr().out


def test_quiet_and_json(small, tmp_path, capsys):
    assert app.main(["sample", small, "n=2", *BARE, f"out={tmp_path / 'a'}", "-q"]) == 0
    said = capsys.readouterr()
    assert said.out == "" and said.err == ""
    assert app.main(["sample", small, "n=2", *BARE, f"out={tmp_path / 'b'}", "json=true"]) == 0
    said = capsys.readouterr()
    record = json.loads(said.out)
    assert record == json.loads((tmp_path / "b" / "run.json").read_text())
    assert "2 crystals" in said.err
    assert (
        record["counts"]["crystals"] == 2 and record["seed"] == 0 and record["files"] == ["table.csv", "table.parquet"]
    )
    assert record["settings"]["n"] == 2 and record["versions"]["crystalgfn"] == __version__ and record["warnings"] == []
    assert record["command"].startswith("crystalgfn sample sampler=") and len(record["sampler"]["hash"]) == 64
    assert not (tmp_path / "b" / ".lock").exists()


def test_the_sampler_is_named_with_its_version(tmp_path, capsys):
    arguments = ["sample", "n=2", "formula=NaCl", "seed=3", "picture=false", "diagnostics=50", "n_jobs=1"]
    assert app.main([*arguments, "sampler=formation-energy", f"out={tmp_path / 'a'}", "json=true", "-v"]) == 0
    said = capsys.readouterr()
    record = json.loads(said.out)
    assert record["sampler"]["name"] == full_name("formation-energy") and "@" in record["sampler"]["name"]
    assert 0 < record["diagnostics"]["ess"] <= 1 and record["diagnostics"]["n"] == 50
    assert f"wrote {tmp_path / 'a' / 'table.csv'}" in said.err and "formation-energy/weights.safetensors" in said.err
    text = next((tmp_path / "a" / "cifs").glob("*.cif")).read_text()
    assert f"# sampler: {record['sampler']['name']}\n# sampler hash: {record['sampler']['hash']}\n# seed: 3\n" in text
    assert app.main([*arguments, "sampler=formation-energy@99", f"out={tmp_path / 'b'}"]) == 2
    assert "formation-energy@99 is not here" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "policy.width=8", "elements=[Li,O]", "steps=2", "diagnostics=20", "trainer.batch_size=8"],
        ["predict", "formula=NaCl", "n=1", "templates=null", "steps=1"],
    ],
)
def test_json_is_all_that_stdout_holds(arguments, tmp_path, capfd):
    def refused(name):
        raise AssertionError(f"{name} is not JSON")

    assert app.main([*arguments, f"out={tmp_path / 'out'}", "json=true"]) == 0
    said = capfd.readouterr()
    record = json.loads(said.out, parse_constant=refused)
    assert record == json.loads((tmp_path / "out" / "run.json").read_text())
    assert all((tmp_path / "out" / name).exists() for name in record["files"])
    assert app.main([*arguments, f"out={tmp_path / 'quiet'}", "--quiet"]) == 0
    assert capfd.readouterr() == ("", "")


def test_an_interrupt_loses_no_crystal_and_the_same_command_goes_on(small, tmp_path, monkeypatch, capsys):
    common = [small, "n=3", "picture=false", "diagnostics=0", "progress=false", "n_jobs=1", f"out={tmp_path / 'out'}"]

    def stopped(*_, **__):
        raise KeyboardInterrupt

    whole = build.build_structures
    monkeypatch.setattr(build, "build_structures", stopped)
    assert app.sample(common) == app.INTERRUPTED
    assert "All 3 crystals are in" in capsys.readouterr().err
    first = pd.read_parquet(tmp_path / "out" / "table.parquet")
    assert len(first) == 3 and first["file"].isna().all()
    assert app.sample([*common, "seed=1"]) == 2 and "seed=0, not 1" in capsys.readouterr().err
    monkeypatch.setattr(build, "build_structures", whole)
    assert app.sample(common) == 0
    frame = pd.read_parquet(tmp_path / "out" / "table.parquet")
    assert frame["formula"].tolist() == first["formula"].tolist() and frame["file"].notna().any()


def test_a_refused_run_leaves_nothing_that_refuses_the_mended_one(small, tmp_path, monkeypatch, capsys):
    common = [
        small,
        "n=2",
        "picture=false",
        "diagnostics=0",
        "progress=false",
        "n_jobs=1",
        f"out={tmp_path / 'new' / 'out'}",
    ]
    assert app.sample([*common, "refiner=nowhere"]) == 2 and "nowhere" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()

    def refused(*_, **__):
        raise PlacementError("no")

    monkeypatch.setattr(build, "build_structures", refused)
    assert app.sample([*common, "templates=aflow"]) == 2
    assert not (tmp_path / "new").exists()
    monkeypatch.undo()
    assert app.sample([*common, "structures=false"]) == 0


TRAINS = ["train", "reward=density", "policy=small", "elements=[Li,O]", "space_groups=[225]", "n_atoms=[1,6]",
          "batch_size=20", "trainer.log_every=1", "diagnostics=0", "steps=1000000"]  # fmt: skip


def test_sigterm_stops_as_ctrl_c_does_and_a_second_process_is_refused(tmp_path, capsys):
    out = tmp_path / "run"
    with crystalgfn(*TRAINS, f"out={out}") as process:
        start = time.monotonic()
        while not (out / "metrics.csv").exists() or len((out / "metrics.csv").read_text().splitlines()) < 4:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() - start < 200
            time.sleep(0.1)
        assert app.train(["resume=true", f"out={out}"]) == 2
        assert f"is in use by process {process.pid}" in capsys.readouterr().err
        assert app.main([*TRAINS, f"out={out}"]) == 2 and "in use by" in capsys.readouterr().err
        process.send_signal(signal.SIGTERM)
        said, err = process.communicate(timeout=100)
    assert process.returncode == app.TERMINATED, err
    assert "resume=true" in err and err.strip().endswith("terminated") and "Traceback" not in err
    assert "step" in said + err
    assert not [path for path in out.rglob(".*") if path.is_file()]
    done = len((out / "metrics.csv").read_text().splitlines()) - 1
    assert app.train(["resume=true", f"out={out}", f"steps={done + 2}", "progress=false"]) == 0


POOR = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii", "HOME": "/nowhere",
        "XDG_CACHE_HOME": "/proc/none"}  # fmt: skip


def test_a_poor_environment_costs_nothing(small, tmp_path):
    """ASCII alone, no home and no cache that can be written: help, samples and a sentence all the same."""
    with crystalgfn("evaluate", "--help", env=POOR) as process:
        said, err = process.communicate(timeout=100)
    assert process.returncode == 0 and not err and "of StructureMatcher" in said and "(?, at which" not in said
    out = tmp_path / "out"
    with crystalgfn("sample", small, "n=2", *BARE[:2], "diagnostics=20", f"out={out}", env=POOR) as process:
        said, err = process.communicate(timeout=300)
    assert process.returncode == 0 and "Traceback" not in err, err
    assert len(pd.read_csv(out / "table.csv")) == 2
    with crystalgfn("sample", "sampler=kriställe", f"out={out}2", env=POOR) as process:
        said, err = process.communicate(timeout=100)
    assert process.returncode == 2 and "PYTHONUTF8=1" in err.splitlines()[-1] and "Traceback" not in err, err
