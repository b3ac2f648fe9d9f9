"""Structures with what is known of them, for other programs and notebooks: pymatgen, ASE, entries, OPTIMADE, tables."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeVar, overload

from crystalgfn.crystallography import space_groups
from crystalgfn.errors import DataError, NotAvailable
from crystalgfn.utils.plain import Plain, decoded
from crystalgfn.utils.tables import notebook_table

if TYPE_CHECKING:
    from ase import Atoms
    from matplotlib.axes import Axes
    from pymatgen.core import Structure
    from pymatgen.entries.computed_entries import ComputedStructureEntry

PICTURED = 3
"""Structures that a notebook shows as pictures."""
PREFIX = "_crystalgfn_"
"""How OPTIMADE names what its specification does not define."""
Item = TypeVar("Item", bound="Exchange")


@dataclass(frozen=True, kw_only=True)
class StructureRecord:
    """A structure and what is known of it.

    Attributes:
        structure: its cell.
        name: tells it from the others.
        space_group: ITA number.
        energy: eV/atom; None where none is known.
        energy_of: what kind of energy: "total" or "formation".
        by: what gave the energy.
        about: further values by name.
    """

    structure: Structure
    name: str
    space_group: int
    energy: float | None = None
    energy_of: str = "total"
    by: str | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def properties(self) -> dict[str, Any]:
        """All but the structure, by name."""
        energy = {} if self.energy is None else {f"{self.energy_of}_energy_per_atom": self.energy, "energy_by": self.by}
        return {"name": self.name, "space_group": self.space_group, **energy, **self.about}


class Exchange:
    """Results that hold structures."""

    def records(self) -> list[StructureRecord]:
        """The structures with what is known of them."""
        raise NotImplementedError

    def to_structures(self) -> list[Structure]:
        """pymatgen's structures; ``structure.properties`` holds name, space group, energy and what else is known."""
        found = []
        for one in self.records():
            structure = one.structure.copy()
            structure.properties = {**structure.properties, **one.properties}
            found.append(structure)
        return found

    def to_entries(self, skip: bool = False) -> list[ComputedStructureEntry]:
        """pymatgen's entries; ``entry.parameters`` says whether the energy (eV a cell) is a total or formation energy.

        Args:
            skip: leave structures without an energy out, instead of refusing them.

        Raises:
            DataError: a structure has no energy.
        """
        from pymatgen.entries.computed_entries import ComputedStructureEntry

        entries = []
        for one in self.records():
            if one.energy is None and skip:
                continue
            if one.energy is None:
                raise DataError(
                    f"{one.name} has no energy; build with energies=True or relax=True, or leave such structures out "
                    "by to_entries(skip=True)"
                )
            energy, parameters = one.energy * len(one.structure), {"energy": one.energy_of, "calculator": one.by}
            entries.append(
                ComputedStructureEntry(
                    one.structure, energy, parameters=parameters, data=one.properties, entry_id=one.name
                )
            )
        return entries

    def to_optimade(self) -> list[dict[str, Any]]:
        """Resource objects of type "structures" by OPTIMADE 1.2; own values have the prefix ``_crystalgfn_``."""
        return [optimade(one) for one in self.records()]

    def view(self, rank: int = 1) -> Any:
        """A figure of plotly with a structure (the first is 1) that can be turned, by pymatviz.

        Raises:
            DataError: there is no such structure.
            NotAvailable: pymatviz is not installed.
        """
        found = self.records()
        if not 1 <= rank <= len(found):
            raise DataError(f"rank={rank}: there are {len(found)} structures; give a number from 1")
        try:
            from pymatviz.structure.figures import structure_3d
        except ImportError as error:
            raise NotAvailable(
                f'the view needs pymatviz ({error}); install it with pip install -e ".[evaluate]"'
            ) from error
        return structure_3d(found[rank - 1].structure)

    def _repr_html_(self) -> str:
        """The table, and pictures of the first structures."""
        found = self.records()
        pictures = "".join(
            f'<figure style="display:inline-block;margin:4px;text-align:center">'
            f'<img alt="{escape(caption_of(one))}" src="{picture(one.structure)}" style="height:150px">'
            f"<figcaption>{escape(caption_of(one))}</figcaption></figure>"
            for one in found[:PICTURED]
        )
        return f"{self._caption()}{notebook_table(_frame(found))}<div>{pictures}</div>"

    def _caption(self) -> str:
        return f"<p>{escape(repr(self))}</p>"


class StructureList(list[Item], Exchange):
    """Results in a list, such as those of `crystalgfn.build_structures`; of each its first structure counts."""

    def records(self) -> list[StructureRecord]:
        """The first structure of each result; results without one have none."""
        found = []
        for i, own in enumerate(one.records() for one in self):
            if own:
                about = {name: value for name, value in own[0].about.items() if name != "rank"}
                found.append(replace(own[0], name=f"{i:04d}-{own[0].name}", about=about))
        return found

    def to_ase(self) -> list[Atoms]:
        """ASE's atoms of each structure; ``atoms.info`` holds what is known of it."""
        return [ase_atoms(one.structure, one.properties) for one in self.records()]

    def as_dict(self) -> dict[str, Any]:
        """For JSON, by monty."""
        kind = {"@module": type(self).__module__, "@class": type(self).__name__}
        return {**kind, "results": [one.as_dict() for one in self if isinstance(one, Plain)]}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> StructureList[Item]:
        """The list of `as_dict`."""
        return cls(decoded(list(content["results"])))

    @overload
    def __getitem__(self, index: SupportsIndex) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> StructureList[Item]: ...
    def __getitem__(self, index: Any) -> Any:
        """A result, or some of them as such a list."""
        found = super().__getitem__(index)
        return StructureList(found) if isinstance(index, slice) else found

    def _caption(self) -> str:
        missing = [one for one in self if not one.records()]
        reasons = "".join(f"<br>{escape(repr(one))}" for one in missing[:PICTURED])
        return f"<p>{len(self)} results, {len(self) - len(missing)} with a structure{reasons}</p>"


def caption_of(one: StructureRecord) -> str:
    """A structure in a few words, such as "NaCl, Fm-3m (225)"."""
    return f"{one.structure.composition.reduced_formula}, {_group(one.space_group)}"


def _group(number: int) -> str:
    return f"{space_groups.SYMBOL[number - 1]} ({number})"


def ase_atoms(structure: Structure, info: Mapping[str, Any] | None = None) -> Atoms:
    """A structure as ASE's atoms."""
    from ase import Atoms

    cell, numbers = structure.lattice.matrix, structure.atomic_numbers
    return Atoms(numbers=numbers, scaled_positions=structure.frac_coords, cell=cell, pbc=True, info=dict(info or {}))


def optimade(one: StructureRecord) -> dict[str, Any]:
    """A structure as a resource object of OPTIMADE 1.2 (https://specification.optimade.org, section on structures)."""
    structure, counts = one.structure, one.structure.composition.reduced_composition.get_el_amt_dict()
    symbols = sorted(counts)
    total = sum(counts.values())
    letters = [chr(ord("A") + i) for i in range(len(symbols))]
    falling = sorted((round(n) for n in counts.values()), reverse=True)
    attributes = {
        "last_modified": None,
        "elements": symbols,
        "nelements": len(symbols),
        "elements_ratios": [counts[symbol] / total for symbol in symbols],
        "chemical_formula_descriptive": structure.composition.reduced_formula,
        "chemical_formula_reduced": "".join(f"{s}{_count(counts[s])}" for s in symbols),
        "chemical_formula_anonymous": "".join(f"{a}{_count(n)}" for a, n in zip(letters, falling, strict=True)),
        "dimension_types": [1, 1, 1],
        "nperiodic_dimensions": 3,
        "lattice_vectors": structure.lattice.matrix.tolist(),
        "cartesian_site_positions": structure.cart_coords.tolist(),
        "nsites": len(structure),
        "species": [{"name": s, "chemical_symbols": [s], "concentration": [1.0]} for s in symbols],
        "species_at_sites": [site.specie.symbol for site in structure],
        "structure_features": [],
        "space_group_it_number": one.space_group,
        **{f"{PREFIX}{name}": value for name, value in one.properties.items() if name not in ("name", "space_group")},
    }
    return {"id": one.name, "type": "structures", "attributes": attributes}


def _count(n: float) -> str:
    return "" if round(n) == 1 else str(round(n))


def draw(structure: Structure, ax: Axes) -> None:
    """A structure as balls in its cell, by ASE; of a mixed site the element that is most of it."""
    from ase import Atoms
    from ase.visualize.plot import plot_atoms

    numbers = [max(site.species.items(), key=lambda pair: pair[1])[0].Z for site in structure]
    cell = structure.lattice.matrix
    plot_atoms(
        Atoms(numbers=numbers, scaled_positions=structure.frac_coords, cell=cell),
        ax,
        radii=0.45,
        rotation="-80x,-15y,-5z",
    )
    ax.set_axis_off()


def picture(structure: Structure) -> str:
    """A small picture of a structure, as the address of an image that holds its data."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2, 2))
    FigureCanvasAgg(figure)
    draw(structure, figure.add_axes((0, 0, 1, 1)))
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=80, transparent=True)
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"


def _frame(found: Sequence[StructureRecord]) -> Any:
    import pandas as pd

    rows = []
    for one in found:
        own = {"formula": one.structure.composition.reduced_formula}
        own |= {"space group": _group(one.space_group), "atoms in the cell": len(one.structure)}
        own |= {} if one.energy is None else {f"{one.energy_of} energy, eV/atom": one.energy}
        rows.append({**own, **{key: value for key, value in one.about.items() if not isinstance(value, (dict, list))}})
    return pd.DataFrame(rows)
