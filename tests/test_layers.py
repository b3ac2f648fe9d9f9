"""Imports go one way: downwards through the layers of the package."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {"crystalgfn": "crystalgfn", "config": "crystalgfn.config", "proxies": "crystalgfn.proxies"}

#: From the bottom up; a module belongs to the longest name here that it starts with, and imports that layer or lower.
LAYERS = (
    ("crystalgfn.errors", "crystalgfn.typing", "crystalgfn.config", "crystalgfn.files"),
    ("crystalgfn.tables",),
    ("crystalgfn.domain",),
    ("crystalgfn.envs",),
    ("crystalgfn.policy",),
    (
        "crystalgfn.rewards",
        "crystalgfn.proxies.distance",
        "crystalgfn.proxies.entries",
        "crystalgfn.proxies.exact_hull",
        "crystalgfn.proxies.features",
        "crystalgfn.proxies.hull_model",
        "crystalgfn.proxies.model",
        "crystalgfn.proxies.weights",
        "crystalgfn.proxies.references",  # one scale of energies: numbers a file holds, which evaluation needs too
    ),
    ("crystalgfn.structures", "crystalgfn.gfn"),
    ("crystalgfn.sampler", "crystalgfn.learn"),
    (
        "crystalgfn.evaluation",
        "crystalgfn.results",
        "crystalgfn.shards",
        "crystalgfn.shard_run",
        "crystalgfn.visualise",
    ),
    ("crystalgfn.proxies",),
    (
        "crystalgfn",
        "crystalgfn.options",
        "crystalgfn.processes",
        "crystalgfn.begun",
        "crystalgfn.benchmark",
        "crystalgfn.check_claims",
        "crystalgfn.evaluate_samples",
        "crystalgfn.train_proxy",
        "crystalgfn.train_refiner",
        "crystalgfn.cli",
    ),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def modules() -> dict[str, Path]:
    """Every module of the package by its name."""
    found = {}
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join((package, *(part for part in parts if part != "__init__")))] = path
    return found


MODULES = modules()


def layer(name: str) -> int:
    parts = name.split(".")
    return next(RANK[key] for end in range(len(parts), 0, -1) if (key := ".".join(parts[:end])) in RANK)


def imports(name: str, path: Path, source: str | None = None) -> set[str]:
    """The package's own modules that a module imports, anywhere in it, ``from package import module`` included."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8") if source is None else source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            base = ".".join(filter(None, (base, node.module)))
            below = {f"{base}.{alias.name}" for alias in node.names if f"{base}.{alias.name}" in MODULES}
            # The package itself is named in ``from package import module``, but nothing of its own is used.
            found |= below if len(below) == len(node.names) else below | {base}
    return {one for one in found if one == "crystalgfn" or one.startswith("crystalgfn.")}


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_downwards(name):
    upwards = [one for one in sorted(imports(name, MODULES[name])) if layer(one) > layer(name)]
    assert not upwards, f"{name} imports {upwards} from above"


@pytest.mark.parametrize("name", MODULES)
def test_every_module_belongs_to_a_layer(name):
    known = [key for key in RANK if key != "crystalgfn" and (name == key or name.startswith(f"{key}."))]
    assert known or name == "crystalgfn", f"{name} has no place in LAYERS"


def test_upward_imports_are_seen():
    path = Path("charge.py")
    for source in (
        "import crystalgfn.sampler",
        "from crystalgfn import sampler",
        "from crystalgfn.sampler import Sampler",
        "from ..sampler import Sampler",
        "def f():\n    from crystalgfn.gfn.training import Trainer",
        "import crystalgfn as cg",
    ):
        found = imports("crystalgfn.domain.charge", path, source)
        assert any(layer(one) > layer("crystalgfn.domain.charge") for one in found), source
    assert imports("crystalgfn.domain.charge", path, "from crystalgfn import errors\nimport torch") == {
        "crystalgfn.errors"
    }
