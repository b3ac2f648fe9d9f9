"""A public class or function is defined once in the package: a name says what it is wherever it stands."""

import ast
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "crystalgfn"

#: Names that modules of a kind share: what calls them names the module first.
PROTOCOLS = {
    "run": "what a command does (crystalgfn/cli/*.py), and errors.run, which runs a module as one",
    "main": "the command of a module that can be called by python -m",
    "parse": "reads one file format (crystalgfn/data/formats/*.py)",
    "Density": "a property, and the constraint of the same quantity",
    "VolumePerAtom": "a property, and the constraint of the same quantity",
    "installed": "what installed packages offer: rewards, calculators",
}


def definitions() -> dict[str, list[str]]:
    """Public classes and functions at the top of modules, with the modules that define them."""
    found = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(str(path.relative_to(PACKAGE)))
    return found


def test_a_public_name_is_defined_once():
    twice = {name: places for name, places in definitions().items() if len(places) > 1 and name not in PROTOCOLS}
    assert not twice, f"give each a name of its own, or unite them: {twice}"


def test_the_package_lists_its_public_names_and_nothing_else():
    import crystalgfn as cg

    shown = [name for name in dir(cg) if not name.startswith("_")]
    assert shown == sorted(cg.__all__) and all(getattr(cg, name) is not None for name in shown)
