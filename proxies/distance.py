"""How far a composition is from those that a proxy was fitted on."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torchtyping import TensorType

from crystalgfn.domain.crystals import Crystals
from crystalgfn.errors import CheckpointError
from crystalgfn.files import write_aside
from crystalgfn.typing import Floats

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

    def __init__(self, centres: TensorType["components", 118], within: TensorType["rows"]) -> None:
        self.centres, self.within = centres.float(), within.float()

    def distance(self, crystals: Crystals) -> Floats:
        """The distance of each crystal, 0 to 1, [B]."""
        fractions = (crystals.composition / crystals.n_atoms[:, None]).to(self.centres)
        return 0.5 * torch.cdist(fractions, self.centres, p=1).amin(1).to(crystals.lattice.dtype)

    def to(self, device: torch.device | str) -> NearestCentre:
        """The same centres on ``device``."""
        return NearestCentre(self.centres.to(device), self.within.to(device))

    @classmethod
    def fit(cls, composition: TensorType["batch", 118], n: int, seed: int = 0, least: int = 3) -> NearestCentre:
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
