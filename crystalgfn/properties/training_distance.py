"""How far crystals lie from the crystals that a proxy was fitted on."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.elements import SYMBOLS
from crystalgfn.errors import CheckpointError, NotAvailable, RewardError
from crystalgfn.properties.base import check_space_groups
from crystalgfn.properties.ensemble import EnsembleProxy
from crystalgfn.properties.exact import _Exact
from crystalgfn.properties.registry import PROXIES
from crystalgfn.typing import Centres, Floats, Fractions, PointsOfElements, RowPointsOfElements, RowValues
from crystalgfn.utils.files import data_folder, path_of, write_aside
from crystalgfn.utils.weight_files import read_tensors

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
        path = path_of(folder) / FILE
        content = save({"centres": self.centres.contiguous(), "within": self.within}, {"format": FORMAT})
        write_aside(path, lambda aside: aside.write_bytes(content))
        return path

    @classmethod
    def load(cls, folder: str | Path) -> NearestCentre:
        """Read the centres in a folder.

        Raises:
            CheckpointError: no such file, damaged or of another kind.
        """
        path = path_of(folder) / FILE
        if not path.is_file():
            raise CheckpointError(f"{folder} has no {FILE}: its proxy does not say how far its data are")
        tensors, header = read_tensors(path, "cluster centres", "fit the proxy again, or copy it again")
        if header.get("format") != FORMAT or not {"centres", "within"} <= set(tensors):
            raise CheckpointError(f"{path} holds no cluster centres; fit the proxy again")
        return cls(tensors["centres"], tensors["within"])


DISTANCE_FILE = "distance.safetensors"

#: A volume per atom that differs by this factor's logarithm counts as much as half the atoms being of other elements.
VOLUME_WIDTH = 0.3

#: The share of the data within distance 0.
WITHIN = 0.9


@dataclass(frozen=True, eq=False, kw_only=True)
class DistanceToData(_Exact):
    """Distance to the nearest of the data's centres, beyond the radius that holds 90 % of the data, in such radii.

    0 for crystals as near as the data themselves are. Distances are Euclidean between the square roots of the element
    fractions (Hellinger's, which is at most √2) and ln(volume per atom) / 0.3. Centres are means of many crystals
    (k-means), so that a file of them holds none of the data.

    Attributes:
        centres: [centres, 119].
        radius: that holds 90 % of the data.
        source: the folder or name that it was loaded from; empty where it was not.
    """

    centres: torch.Tensor
    radius: float
    source: str = ""
    name: str = "distance_to_data"
    unit: str = "radii"

    @classmethod
    def fit(cls, crystals: Crystals, n_centres: int = 32, seed: int = 0) -> DistanceToData:
        """From the crystals of the data.

        Raises:
            RewardError: fewer than four crystals a centre, of which a centre could not be a mean.
        """
        if n_centres < 1 or len(crystals) < 4 * n_centres:
            raise RewardError(
                f"distance to data: {n_centres} centres need at least {4 * max(1, n_centres)} crystals, not "
                f"{len(crystals)}; give a smaller n_centres."
            )
        points = _points(crystals.to("cpu")).double()
        centres = _k_means(points, n_centres, torch.Generator().manual_seed(seed))
        radius = float(_apart(points, centres).amin(1).quantile(WITHIN))
        return cls(centres=centres, radius=max(radius, 1e-3))

    def __call__(self, crystals: Crystals) -> Floats:
        """The distance of each crystal, in radii; 0 within one."""
        check_space_groups(self.name, crystals)
        points = _points(crystals)
        nearest = _apart(points, self.centres.to(points)).amin(1)
        return (nearest / self.radius - 1).clamp_min(0)

    def to(self, device: torch.device | str) -> DistanceToData:
        """The same on ``device``."""
        return replace(self, centres=self.centres.to(device))

    def save(self, folder: str | Path) -> None:
        """Write ``distance.safetensors`` into a folder, whole or not at all."""
        from safetensors.torch import save_file

        tensors = {"centres": self.centres.cpu().contiguous(), "radius": torch.tensor(self.radius).double()}
        write_aside(
            path_of(folder) / DISTANCE_FILE,
            lambda aside: save_file(tensors, aside, metadata={"kind": "distance_to_data"}),
        )

    def config(self) -> dict[str, Any]:
        """The configuration that builds it.

        Raises:
            RewardError: it was not loaded from a file.
        """
        if not self.source:
            raise RewardError("this distance to data lies in no file; save(folder) it and take load_distance(folder).")
        return {"_target_": "crystalgfn.rewards.load_distance", "name": self.source}


def load_distance(name: str | Path) -> DistanceToData:
    """A distance to data: that of a shipped proxy by its name, or a user's own by its folder.

    Raises:
        NotAvailable: a shipped proxy without one.
        CheckpointError: a file that is missing, truncated or of another kind.
    """
    shipped = str(name) in PROXIES
    folder = data_folder("proxies") / str(name) if shipped else Path(name)
    path = folder / DISTANCE_FILE
    if shipped and not path.is_file():
        raise NotAvailable(f"The proxy {str(name)!r} has no distance to its data; fit one by DistanceToData.fit.")
    tensors, header = read_tensors(path, "distance to data", "fit it again by DistanceToData.fit")
    if header.get("kind") != "distance_to_data" or not {"centres", "radius"} <= set(tensors):
        raise CheckpointError(f"{path} does not hold a distance to data; choose another folder")
    return DistanceToData(centres=tensors["centres"], radius=float(tensors["radius"]), source=str(name))


def _points(crystals: Crystals) -> PointsOfElements:
    shares = crystals.composition.to(crystals.lattice.dtype) / crystals.n_atoms[:, None]
    return torch.cat([shares.sqrt(), crystals.volume_per_atom.log()[:, None] / VOLUME_WIDTH], 1)


def _apart(points: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    # The way by products would lose the small distances, and the same crystal's would depend on its batch.
    return torch.cdist(points, centres, compute_mode="donot_use_mm_for_euclid_dist")


def _k_means(points: PointsOfElements, n: int, generator: torch.Generator, rounds: int = 50) -> RowPointsOfElements:
    """Centres of n groups: spread-out starts (k-means++), then each the mean of the points nearest to it."""
    centres = points[torch.randint(len(points), (1,), generator=generator)]
    for _ in range(n - 1):
        nearest = _apart(points, centres).amin(1).square() + 1e-12
        centres = torch.cat([centres, points[torch.multinomial(nearest, 1, generator=generator)]])
    for _ in range(rounds):
        group = _apart(points, centres).argmin(1)
        sums = torch.zeros_like(centres).index_add_(0, group, points)
        sizes = torch.bincount(group, minlength=n)[:, None]
        centres = torch.where(sizes > 0, sums / sizes.clamp_min(1), centres)
    return centres


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
