"""The wheel holds everything that an installation needs, and works without the checkout."""

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SOURCES = ("crystalgfn", "config", "proxies")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The unpacked wheel, built from a copy so that the checkout stays clean."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "source"
    for name in SOURCES:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    # The source distribution first, and the wheel from it: both hold everything.
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, copy]
    subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def installed(path: Path) -> Path:
    """Where a file of the checkout lies in an installation."""
    top, *rest = path.relative_to(ROOT).parts
    return Path("crystalgfn", *([] if top == "crystalgfn" else [top]), *rest)


def test_the_wheel_holds_every_module_and_data_file(wheel):
    suffixes = {".py", ".yaml", ".safetensors", ".json", ".npz", ".md", ".txt"}
    files = [p for name in SOURCES for p in (ROOT / name).rglob("*") if p.suffix in suffixes and p.is_file()]
    assert len(files) > 60
    missing = [str(p) for p in files if not (wheel / installed(p)).is_file()]
    assert not missing


def test_the_wheel_holds_nothing_else(wheel):
    tops = {p.name for p in wheel.iterdir()}
    assert {name for name in tops if not name.endswith(".dist-info")} == {"crystalgfn"}


def test_the_wheel_works_without_the_checkout(wheel, tmp_path):
    """In an interpreter that sees the wheel first: crystals are sampled, placed and evaluated."""
    program = """
import json, sys, crystalgfn as cg
from crystalgfn.cli.app import main
from crystalgfn.utils.files import data_folder
quiet = ["progress=false", "diagnostics=0", "picture=false"]
code = main(["sample", "sampler=formation-energy", "n=3", "out=drawn", *quiet])
code += main(["evaluate", "samples=drawn", "report=false", "progress=false", "out=judged"])
print(json.dumps({
    "code": code,
    "places": [cg.__file__, str(data_folder("config")), str(data_folder("proxies"))],
    "values": cg.load_proxy("formation_energy")(cg.Sampler.load("stable").sample(2)).tolist(),
}))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(wheel), "PATH": "", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["code"] == 0, done.stderr
    assert all(Path(place).is_relative_to(wheel) for place in said["places"])
    assert len(said["values"]) == 2
    assert json.loads((tmp_path / "judged" / "summary.json").read_text())["given"] == 3


def test_the_checkout_is_installed_editable():
    import crystalgfn
    from crystalgfn.utils.files import data_folder

    assert Path(crystalgfn.__file__) == ROOT / "crystalgfn" / "__init__.py"
    assert [data_folder(name) for name in ("config", "proxies")] == [ROOT / "config", ROOT / "proxies"]


def test_versions_agree():
    import crystalgfn

    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    versions = {PROJECT["project"]["version"], crystalgfn.__version__, importlib.metadata.version("crystalgfn")}
    assert versions == {cited[1]}


def test_every_dependency_is_pinned():
    pins = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            name, version = line.split("==")
            pins[name] = version
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = [*PROJECT["project"]["dependencies"], *(one for extra in extras.values() for one in extra)]
    names = {re.match(r"[a-z0-9_-]+", requirement)[0] for requirement in wanted}
    assert names <= set(pins)
    assert pins["torch"] == "2.13.0"
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert f"rev: v{pins['ruff']}\n" in hooks


def test_commands_exist():
    scripts = PROJECT["project"]["scripts"]
    installed_scripts = {e.name: e.load() for e in importlib.metadata.distribution("crystalgfn").entry_points}
    assert set(installed_scripts) == set(scripts)
    assert all(callable(command) for command in installed_scripts.values())
    for name in ("train", "sample"):
        assert (ROOT / "scripts" / f"{name}.py").is_file()
