"""Imports go one way through the rooms of the package, and no room or file outgrows its limit."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "crystalgfn"

#: From the bottom up; a module of a room imports its own room and those before it.
ROOMS = (
    "utils", "crystallography", "space", "envs", "policy", "gfn", "properties", "rewards", "calculators", "data",
    "structures", "sampling", "evaluation", "discovery", "benchmarks", "fitting", "app", "cli",
)  # fmt: skip
#: Imported by every room.
GROUND = ("errors", "typing")
MODULES = {
    ".".join(
        ("crystalgfn", *(part for part in path.relative_to(PACKAGE).with_suffix("").parts if part != "__init__"))
    ): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def rank(name: str) -> int:
    """How high the room of a module stands; the package itself is for the command line alone."""
    parts = name.split(".")
    if len(parts) == 1:
        return ROOMS.index("cli")
    return -1 if parts[1] in GROUND else ROOMS.index(parts[1])


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
    upwards = [one for one in sorted(imports(name, MODULES[name])) if rank(one) > rank(name)]
    assert not upwards, f"{name} imports {upwards} from above"


def test_upward_imports_are_seen():
    path = Path("charge.py")
    for source in (
        "import crystalgfn.sampling.sampler",
        "from crystalgfn import sampling",
        "from crystalgfn.sampling.sampler import Sampler",
        "from ..sampling.sampler import Sampler",
        "def f():\n    from crystalgfn.gfn.training import TrainerConfig",
        "import crystalgfn as cg",
    ):
        found = imports("crystalgfn.space.charge", path, source)
        assert any(rank(one) > rank("crystalgfn.space.charge") for one in found), source
    assert imports("crystalgfn.space.charge", path, "from crystalgfn import errors\nimport torch") == {
        "crystalgfn.errors"
    }
