"""How far crystals lie from the crystals that a proxy was fitted on."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.elements import SYMBOLS
from crystalgfn.errors import CheckpointError
from crystalgfn.properties.ensemble import EnsembleProxy
from crystalgfn.properties.registry import PROXIES
from crystalgfn.typing import Centres, Floats, Fractions, RowValues
from crystalgfn.utils.files import data_folder, write_aside

FORMAT = "crystalgfn-centres"
FILE = "centres.safetensors"


class NearestCentre:
    """Distance of a composition to the nearest of some cluster centres of a data set.

    The distance is half the sum of the differences of the element fractions: the share of the atoms that would have to
    be of another element, from 0 to 1. Centres are means of several compositions, not rows of the data.

    Args:
        centres: element fractions of each centre, [C, 118].
        within: for each of the shares 0.5, 0.9 and 0.99 the distance within which that share of the data lies.
    """

    def __init__(self, centres: Centres, within: RowValues) -> None:
        self.centres, self.within = centres.float(), within.float()

    def distance(self, crystals: Crystals) -> Floats:
        """The distance of each crystal, 0 to 1, [B]."""
        fractions = (crystals.composition / crystals.n_atoms[:, None]).to(self.centres)
        return 0.5 * torch.cdist(fractions, self.centres, p=1).amin(1).to(crystals.lattice.dtype)

    def to(self, device: torch.device | str) -> NearestCentre:
        """The same centres on ``device``."""
        return NearestCentre(self.centres.to(device), self.within.to(device))

    @classmethod
    def fit(cls, composition: Fractions, n: int, seed: int = 0, least: int = 3) -> NearestCentre:
        """Centres by k-means from ``n`` randomly chosen compositions; clusters of fewer than ``least`` are left out."""
        fractions = (composition / composition.sum(1, keepdim=True)).double()
        generator = torch.Generator().manual_seed(seed)
        centres = fractions[torch.randperm(len(fractions), generator=generator)[:n]]
        for _ in range(50):
            nearest = torch.cdist(fractions, centres, p=1).argmin(1)
            counts = torch.bincount(nearest, minlength=len(centres))
            sums = torch.zeros_like(centres).index_add_(0, nearest, fractions)
            centres = (sums / counts.clamp_min(1)[:, None])[counts > 0]
        nearest = torch.cdist(fractions, centres, p=1).argmin(1)
        centres = centres[torch.bincount(nearest, minlength=len(centres)) >= least]
        distance = 0.5 * torch.cdist(fractions, centres, p=1).amin(1)
        return cls(centres, distance.quantile(torch.tensor([0.5, 0.9, 0.99], dtype=torch.float64)))

    def save(self, folder: str | Path) -> Path:
        """Write ``centres.safetensors`` into a folder, aside and then renamed; returns the file."""
        path = Path(folder) / FILE
        content = save({"centres": self.centres.contiguous(), "within": self.within}, {"format": FORMAT})
        write_aside(path, lambda aside: aside.write_bytes(content))
        return path

    @classmethod
    def load(cls, folder: str | Path) -> NearestCentre:
        """Read the centres in a folder.

        Raises:
            CheckpointError: no such file, damaged or of another kind.
        """
        path = Path(folder) / FILE
        if not path.is_file():
            raise CheckpointError(f"{folder} has no {FILE}: its proxy does not say how far its data are")
        try:
            with safe_open(path, framework="pt") as file:
                if (file.metadata() or {}).get("format") != FORMAT:
                    raise CheckpointError(f"{path} holds no cluster centres; fit the proxy again")
                return cls(file.get_tensor("centres"), file.get_tensor("within"))
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} is damaged ({error}); fit the proxy again, or copy it again") from error


@dataclass(frozen=True, kw_only=True)
class Domain:
    """Which crystals a proxy was fitted on, by their elements; spaces that have none like them are refused.

    Attributes:
        name: of the proxy.
        seen: atomic numbers that its data have.
        centres: of its data, or None.
    """

    name: str
    seen: frozenset[int]
    centres: NearestCentre | None = None

    @property
    def shared(self) -> frozenset[int]:
        """Atomic numbers that all centres of the data have: lithium, for measured Li conductors."""
        if self.centres is None:
            return frozenset()
        return frozenset(((self.centres.centres > 0).all(0).nonzero().flatten() + 1).tolist())

    def refusal(self, zs: Collection[int], required: Collection[int]) -> str | None:
        """Why no crystal of a space can be like those of the data, in a sentence; None where some may be.

        Args:
            zs: atomic numbers that the space allows.
            required: those that each of its crystals has.
        """
        space = f"a space of {_symbols(zs)}" if len(zs) <= MANY else f"a space of {len(zs)} elements"
        knows = f"the proxy {self.name} knows nothing of {space}"
        if missing := self.shared - set(zs):
            names = _symbols(missing)
            return f"{knows}: all of its data have {names}; add {names} to the elements, or {OTHER}"
        if new := set(required) - self.seen:
            names = _symbols(new)
            return f"{knows}: every crystal has {names}, which none of its data has; require no {names}, or {OTHER}"
        if not set(zs) & self.seen - self.shared:
            beside = f" beside {_symbols(self.shared)}" if self.shared else ""
            return f"{knows}: none of its data has any of these{beside}; add elements of its data, or {OTHER}"
        return None if self.centres is None else self._far(zs, knows)

    def _far(self, zs: Collection[int], knows: str) -> str | None:
        assert self.centres is not None
        columns = [z - 1 for z in set(zs) & self.seen]
        outside = 1 - self.centres.centres[:, columns].sum(1)  # atoms of other elements, of the closest composition
        least, limit = float(outside.min()), float(self.centres.within[-1])
        if least <= limit:
            return None
        nearest = self.centres.centres[outside.argmin()].clone()
        nearest[columns] = 0
        other = _symbols([int(nearest.argmax()) + 1])
        return (
            f"{knows}: its crystals are at least {least:.2f} from all data (share of atoms of other elements), 99 % of "
            f"which lie within {limit:.2f}; add elements such as {other}, or {OTHER}"
        )


OTHER = "take another reward"
MANY = 8
"""Elements up to which a message lists them."""


def _symbols(zs: Collection[int]) -> str:
    return ", ".join(SYMBOLS[z - 1] for z in sorted(zs))


def domain_of(prop: Any) -> Domain | None:
    """The domain that a property states by an attribute ``domain``, or that of a proxy of this package.

    A proxy has seen the elements of the crystals that it was fitted on; the centres of these lie beside its weights
    where ``NearestCentre.fit(composition, n).save(folder)`` put them. None: nothing is known.
    """
    if (stated := getattr(prop, "domain", None)) is not None:
        return stated
    if not isinstance(prop, EnsembleProxy):
        return None
    seen = frozenset(((prop.unfamiliar < 0.99 * prop.label_std).nonzero().flatten() + 1).tolist())
    if prop.source is None:
        return Domain(name=prop.name, seen=seen)
    folder = data_folder("proxies") / prop.source if prop.source in PROXIES else Path(prop.source)
    centres = NearestCentre.load(folder) if (folder / FILE).is_file() else None
    return Domain(name=prop.name, seen=seen, centres=centres)
