"""The Snakemake example: its commands have options that exist, and its last step makes the table."""

import importlib.util
import re

import pandas as pd
import yaml
from docs_pages import ROOT
from docs_run import command

EXAMPLE = ROOT / "examples" / "snakemake"


def test_the_commands_have_options_that_exist():
    config = yaml.safe_load((EXAMPLE / "config.yaml").read_text())
    text = (EXAMPLE / "Snakefile").read_text().replace('"\n        "', "")
    found = re.findall(r"crystalgfn (\w+) ([^\"&]*)\"", text)
    assert [name for name, _ in found] == ["sample", "evaluate", "discover"]
    for name, options in found:
        words = options.replace("{wildcards.system}", config["systems"][0])
        words = re.sub(r"\{config\[(\w+)\]\}", lambda match: str(config[match[1]]), words)
        assert "{" not in words
        command([f"crystalgfn-{name}", *words.split()], None)


def test_candidates_of_all_systems_in_one_table(tmp_path):
    row = {"formula": "SrTiO3", "space_group": 221, "e_above_hull_std": 0.02, "decomposition": "SrO + TiO2"}
    rows = [row | {"status": status, "e_above_hull": above} for status, above in
            [("candidate", 0.04), ("known", 0.0), ("candidate", 0.06), ("failed", None)]]  # fmt: skip
    paths = []
    for name, shift in (("Sr-Ti-O", 0.0), ("Ba-Ti-O", -0.01)):
        paths.append(tmp_path / name / "table.csv")
        paths[-1].parent.mkdir()
        pd.DataFrame(rows).assign(e_above_hull=lambda t, by=shift: t["e_above_hull"] + by).to_csv(paths[-1])
    spec = importlib.util.spec_from_file_location("collect", EXAMPLE / "collect.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    table = module.collect(0.05, [str(path) for path in paths])
    assert list(zip(table["system"], table["e_above_hull"].round(3), strict=True)) == [
        ("Ba-Ti-O", 0.03), ("Sr-Ti-O", 0.04), ("Ba-Ti-O", 0.05)
    ]  # fmt: skip
