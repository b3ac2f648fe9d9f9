"""Structure types by name: the space group and the counts of atoms of AFLOW's prototypes.

A crystal here has no positions yet, so a prototype stands for its space group and its atoms of each element in the
primitive cell, whatever the elements: those of cubic perovskite are 221 and 3, 1, 1.
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import EmptySpace, InvalidSpace
from crystalgfn.space.constraint import Check
from crystalgfn.space.constraints.parse import Rule, sequence
from crystalgfn.space.rules import MaskRules
from crystalgfn.utils import files

TABLE = files.SHIPPED / "tables" / "prototypes.json"


@dataclass(frozen=True)
class Prototype:
    """What a crystal shares with a prototype.

    Attributes:
        label: by AFLOW, e.g. ``AB3C_cP5_221_a_c_b``.
        space_group: ITA number.
        counts: atoms of each element in the primitive cell, falling.
    """

    label: str
    space_group: int
    counts: tuple[int, ...]


def _plain(name: str) -> str:
    """A name without case, spaces and signs, so that "rock salt", "Rock-salt" and "rocksalt" are one."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


@lru_cache(maxsize=1)
def _table() -> dict[str, tuple[str, tuple[Prototype, ...]]]:
    """Plain name -> the name as it is written and its prototypes."""
    found: dict[str, tuple[str, tuple[Prototype, ...]]] = {}
    for row in json.loads(TABLE.read_text(encoding="utf-8"))["prototypes"]:
        one = Prototype(row["label"], row["space_group"], tuple(row["counts"]))
        for name in (*row["names"], row["label"]):
            written, before = found.get(_plain(name), (name, ()))
            found[_plain(name)] = (written, before if one in before else (*before, one))
    return found


def prototype_names() -> tuple[str, ...]:
    """All names that `CrystalSpace(prototypes=)` knows, sorted.

    Example:
        >>> "Spinel" in prototype_names()
        True
    """
    return tuple(sorted((name for name, _ in _table().values()), key=str.lower))


def prototypes_of(name: Any) -> tuple[Prototype, ...]:
    """The prototypes that a name stands for.

    Args:
        name: of a mineral or structure type ("spinel"; "perovskite" stands for all of its forms), a Strukturbericht
            symbol ("B1"), AFLOW's label or the formula of its compound ("NaCl"); case, spaces and signs do not count.

    Raises:
        InvalidSpace: an unknown name, with the closest known ones.

    Example:
        >>> [(one.space_group, one.counts) for one in prototypes_of("rock salt")]
        [(225, (1, 1))]
    """
    table = _table()
    key = _plain(name) if isinstance(name, str) else ""
    if key in table:
        return table[key][1]
    near = difflib.get_close_matches(key, table, n=4, cutoff=0.6)
    near += [other for other in table if len(key) > 3 and key in other and other not in near][: 4 - len(near)]
    words = ", ".join(table[one][0] for one in near) or "perovskite, spinel, rock salt, rutile, ..."
    raise InvalidSpace(
        f"prototypes: {name!r} is no prototype of AFLOW's list; near are {words}; or give space_groups and "
        "anonymous_formulas"
    )


class NamedPrototypes(Rule):
    """Space group and counts of atoms are those of a prototype with one of these names."""

    name = "prototypes"

    @classmethod
    def read(cls, value: Any) -> tuple[str, ...]:
        """Names, each once, as they were given."""
        names = {cls.key(name): name for name in reversed(sequence("prototypes", value))}
        if not names:
            raise EmptySpace("prototypes=[] leaves no crystal; give names such as perovskite, or leave it out")
        return tuple(reversed(names.values()))

    @staticmethod
    def key(one: Any) -> tuple[Prototype, ...]:
        """The prototypes of a name."""
        return prototypes_of(one)

    @property
    def cases(self) -> set[tuple[int, tuple[int, ...]]]:
        """Space groups with counts that crystals may have."""
        return {(one.space_group, one.counts) for name in self.value for one in prototypes_of(name)}

    def both(self, new: Any) -> tuple[str, ...]:
        """Names of the other whose prototypes the space has; of a name with several, the labels of those it has."""
        mine, kept = self.cases, []
        for name in new:
            own = prototypes_of(name)
            inside = [one.label for one in own if (one.space_group, one.counts) in mine]
            kept += [name] if len(inside) == len(own) else inside
        if not kept:
            raise EmptySpace(f"prototypes={list(new)} has none of the space's own {self}")
        return tuple(dict.fromkeys(kept))

    def limit(self, tables: MaskRules) -> None:
        """Their groups, and in each group its counts."""
        cases = self.cases
        tables.only_groups(np.isin(np.arange(1, 231), [group for group, _ in cases]))
        tables.only_patterns(lambda n_atoms: {counts for _, counts in cases if sum(counts) <= n_atoms})

        def fits(patterns: np.ndarray) -> np.ndarray:
            allowed = np.zeros((230, len(patterns)), dtype=bool)
            for p, row in enumerate(patterns):
                counts = tuple(row[row > 0].tolist())
                allowed[[group - 1 for group, own in cases if own == counts], p] = True
            return allowed

        tables.keep_patterns(fits)

    def check(self, crystals: Crystals) -> Check:
        """Group and counts are those of one of them."""
        cases = self.cases
        counts = -np.sort(-crystals.composition.cpu().numpy(), axis=1)
        groups = crystals.space_group.tolist()
        ok = [(group, tuple(row[row > 0].tolist())) in cases for group, row in zip(groups, counts, strict=True)]
        names = " or ".join(self.value)

        def reason(i: int) -> str:
            return f"{crystals[i].formulas()[0]} in space group {groups[i]} has not group and counts of {names}"

        return Check(torch.tensor(ok, dtype=torch.bool, device=crystals.device), reason)
