"""The examples in docstrings give what they say."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: A doctest's classes stand in no module, and this example is about what can be sent to another process.
LEFT_OUT = {"crystalgfn.evaluation.metrics.registry"}
NAMES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((ROOT / "crystalgfn").rglob("*.py"))
    if ">>>" in path.read_text(encoding="utf-8")
]


@pytest.mark.unchecked
@pytest.mark.parametrize("name", [name for name in NAMES if name not in LEFT_OUT])
def test_examples_of_docstrings(name: str) -> None:
    if name.startswith("crystalgfn.calculators"):
        pytest.importorskip("ase")
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert not found.failed
