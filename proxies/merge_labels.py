"""Puts shards of labels together, with a card: ``python -m crystalgfn.proxies.merge_labels TRAIN VAL SHARDS``."""

from __future__ import annotations

import argparse
import importlib.metadata
from pathlib import Path

import torch

from crystalgfn.files import write_aside
from crystalgfn.proxies.labels import BOUND, FIT, HELD, HIGH, SHIPPED, SOURCES, VAL, VALUE, Labels, merge_labels
from crystalgfn.proxies.make_labels import spent_on

TEMPLATE = (Path(__file__).parent / "labels" / "card.txt").read_text


def counts(labels: Labels) -> str:
    """How many labels there are of each source, kind and split, as a Markdown table."""
    lines = ["| source | values | bounds | high | to fit | held out | val |", "| --- " * 7 + "|"]
    for name, mine in [*((name, labels.source == i) for i, name in enumerate(SOURCES)), ("all", labels.source >= 0)]:
        kinds = [int((mine & (labels.kind == kind)).sum()) for kind in (VALUE, BOUND, HIGH)]
        parts = [int((mine & (labels.split == part) & (labels.kind != HIGH)).sum()) for part in (FIT, HELD, VAL)]
        lines.append(f"| {name} | " + " | ".join(map(str, kinds + parts)) + " |")
    return "\n".join(lines)


def card(labels: Labels, seconds: dict[str, float], seed: int) -> str:
    """The text beside the labels: recipe, counts, cost."""
    values = labels.value[labels.kind != HIGH]
    spread = torch.quantile(values, torch.tensor([0.05, 0.5, 0.95])).tolist()
    versions = {name: importlib.metadata.version(name) for name in ("chgnet", "torch", "pymatgen", "spglib")}
    return TEMPLATE().format(
        counts=counts(labels),
        cost=", ".join(f"{name} {spent / 60:.0f}" for name, spent in seconds.items()),
        total=f"{sum(seconds.values()) / 60:.0f}",
        seed=seed,
        versions=", ".join(f"{name} {version}" for name, version in versions.items()),
        low=f"{spread[0]:.2f}",
        middle=f"{spread[1]:.2f}",
        top=f"{spread[2]:.2f}",
    )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train", type=Path)
    parser.add_argument("val", type=Path)
    parser.add_argument("shards", type=Path, help="folder of crystalgfn.proxies.make_labels")
    parser.add_argument("--output", type=Path, default=SHIPPED)
    parser.add_argument("--seed", type=int, default=0, help="that the shards were made with, for the card")
    options = parser.parse_args()
    labels = merge_labels(options.shards, options.train, options.val)
    labels.save(options.output)
    text = card(labels, spent_on(options.shards), options.seed)
    write_aside(options.output.parent / "README.md", lambda aside: aside.write_text(text))
    print(counts(labels))


if __name__ == "__main__":
    main()
