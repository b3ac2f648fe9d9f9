"""Write ``crystalgfn/weights/index.json`` anew, after a file of weights or a table has changed.

python -m scripts.maintain.index_weights
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from crystalgfn.errors import DataError
from crystalgfn.utils.files import write_aside
from crystalgfn.utils.shipped_files import INDEX, roots, sha256, shipped_files, shipped_index
from scripts.maintain.program import run

MP = "Materials Project (CC-BY-4.0)"
#: Beginning of the name, licence of the file, the data that it was made from, and its card; the first that fits counts.
ENTRIES = (
    ("weights/samplers/", "Apache-2.0", f"{MP}, by way of the proxies that its reward uses", "{folder}/README.md"),
    ("weights/refiners/", "Apache-2.0", MP, "{folder}/README.md"),
    ("weights/rankers/", "Apache-2.0", MP, "weights/rankers/README.md"),
    ("weights/prototypes/", "Apache-2.0", "AFLOW prototypes as in pymatgen (MIT)", "weights/rankers/README.md"),
    (
        "weights/tables/energy_references/chgnet",
        "Apache-2.0",
        f"{MP}; CHGNet 0.3.0 (BSD-3)",
        "weights/tables/README.md",
    ),
    ("weights/tables/energy_references/", "Apache-2.0", f"{MP}; SevenNet-l3i5 (MIT)", "weights/tables/README.md"),
    ("weights/tables/atomic_volumes", "Apache-2.0", MP, "weights/tables/README.md"),
    (
        "weights/tables/mixed_valence",
        "Apache-2.0",
        "COD (CC0), AMCSD, pymatgen (MIT): numbers of formulas",
        "weights/tables/README.md",
    ),
    ("weights/tables/", "Apache-2.0", "pymatgen (MIT), spglib (BSD-3), pyxtal (MIT)", "weights/tables/README.md"),
    ("proxies/ionic_conductivity/", "Apache-2.0", "OBELiX (CC-BY-4.0)", "{folder}/README.md"),
    ("proxies/labels/", "Apache-2.0", f"{MP}; energies by CHGNet 0.3.0 (BSD-3)", "{folder}/README.md"),
    ("proxies/band_gap/", "Apache-2.0", f"{MP}, also by way of MatBench", "{folder}/README.md"),
    ("proxies/", "Apache-2.0", MP, "{folder}/README.md"),
)


def entries() -> list[dict[str, Any]]:
    """The index of what is there now.

    Raises:
        DataError: a file whose card is missing, or for which this program has no licence.
    """
    made = []
    for name, path in shipped_files().items():
        known = next((entry for entry in ENTRIES if name.startswith(entry[0])), None)
        if known is None:
            raise DataError(f"{name}: add its licence and card to ENTRIES of this program")
        _, licence, data, card = known
        card = card.format(folder=name.rpartition("/")[0])
        root, _, rest = card.partition("/")
        if not (roots()[root] / rest).is_file():
            raise DataError(f"{name} has no card {card}; write it")
        size = path.stat().st_size
        made.append(
            {"file": name, "size": size, "sha256": sha256(path), "licence": licence, "data": data, "card": card}
        )
    return with_versions(made, shipped_index() if INDEX.exists() else {})


def with_versions(made: list[dict[str, Any]], before: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries with a version for the files of each sampler: one more than ``before`` where one of them changed."""
    changed: dict[str, bool] = {}
    for entry in made:
        folder = entry["file"].rpartition("/")[0]
        if folder.startswith("weights/samplers/"):
            new = entry["sha256"] != before.get(entry["file"], {}).get("sha256")
            changed[folder] = changed.get(folder, False) or new
    for entry in made:
        folder = entry["file"].rpartition("/")[0]
        if folder in changed:
            last = max(
                (one.get("version", 0) for name, one in before.items() if name.startswith(f"{folder}/")), default=0
            )
            entry["version"] = last + 1 if changed[folder] or not last else last
    return made


def main() -> None:
    """The command."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    text = json.dumps(entries(), indent=1) + "\n"
    write_aside(INDEX, lambda aside: aside.write_text(text, encoding="utf-8"))
    print(f"{INDEX}: {len(shipped_index())} files")


if __name__ == "__main__":
    run(main)
