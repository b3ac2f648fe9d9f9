"""Fit a shipped property again, from its recipe.

python -m scripts.maintain.refit proxies/band_gap/recipe.yaml

The steps of the recipe run one after another in the folder in which this is called, where the recipe's data must be; a
step whose ``metrics.json`` is there is passed over.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import yaml

from crystalgfn.errors import DataError
from crystalgfn.utils.instantiate import instantiate
from crystalgfn.utils.provenance import METRICS
from scripts.maintain.program import run


def read_recipe(path: Path) -> list[dict[str, Any]]:
    """The steps of a recipe, each with ``_target_`` and its arguments, ``out`` among them.

    Raises:
        DataError: no such file, or not a recipe.
    """
    try:
        steps = yaml.safe_load(path.read_text(encoding="utf-8"))["steps"]
        if not all(step["_target_"] and step["out"] for step in steps):
            raise ValueError("a step has no _target_ or no out")
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is no recipe ({error}); see proxies/band_gap/recipe.yaml for one") from error
    return steps


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path, help="such as proxies/band_gap/recipe.yaml")
    for step in read_recipe(parser.parse_args().recipe):
        if not Path(step["out"], METRICS).exists():
            print(f"{step['_target_']} -> {step['out']}")
            instantiate(step, trust=None)


if __name__ == "__main__":
    run(main)
