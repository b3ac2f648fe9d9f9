"""A proxy: an ensemble of small networks that predicts one property, with how far its members disagree."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import CheckpointError, RewardError
from crystalgfn.properties.base import check_space_groups
from crystalgfn.properties.features import Features, scales
from crystalgfn.typing import FeatureRows, Floats, MemberValues, Values
from crystalgfn.utils.files import path_of
from crystalgfn.utils.weight_files import WeightFiles

FILES = WeightFiles(
    what="proxy",
    format="crystalgfn-proxy",
    version=2,
    remedy="fit it again with crystalgfn.fitting.proxy.fit, or copy it again",
    unset=("quantiles", "low", "high"),
)
WEIGHTS = "weights.safetensors"
CHUNK = 1024  # crystals at a time: what lies between the layers then stays in the cache

#: An element with fewer rows adds up to the labels' deviation to the standard error, in proportion to its share.
FAMILIAR = 20
#: Shares of the errors at which intervals are calibrated.
LEVELS = tuple(round(0.05 * i, 2) for i in range(1, 20))
#: Scale of the first weights, against He et al. 2015: what residual layers add up to stays of order one.
GAIN = 0.4


def std_factor(error: Floats, std: Floats) -> float:
    """The factor with which 68 % of the errors lie within the standard error."""
    return float((error / std.clamp_min(1e-6)).quantile(0.68))


def _he(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape) * GAIN * (2 / shape[-2]) ** 0.5)


class EnsembleProxy(nn.Module):
    """A fitted property, as :class:`crystalgfn.rewards.Property`.

    The members are multilayer perceptrons on :class:`Features` plus an embedding of the space group. Each is held to
    ``[low, high]``, the range of the labels that it was fitted on. The standard error is the members' deviation times a
    factor, fitted so that 68 % of the errors on held-out crystals lie within, plus ``unfamiliar`` times the
    share of each element: members agree about an element that none has seen, so disagreement alone would not tell.

    Args:
        name: the property.
        unit: its unit.
        members: networks in the ensemble.
        width: units in each of the hidden layers.
        depth: hidden layers.
        rank: of the term that is bilinear in the elements' fractions, for what pairs of elements do; 0 for none.
        residual: whether hidden layers after the first add to what they are given.
        translations: whether they see the shortest translations of the lattice (:class:`Features`).
        wyckoff: whether they see what each element may do on the group's Wyckoff positions.
    """

    shift: torch.Tensor
    scale: torch.Tensor
    label_mean: torch.Tensor
    label_std: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    spread_factor: torch.Tensor
    unfamiliar: torch.Tensor
    floor: torch.Tensor
    quantiles: torch.Tensor

    def __init__(
        self,
        name: str,
        unit: str,
        members: int = 5,
        width: int = 192,
        depth: int = 2,
        rank: int = 0,
        residual: bool = False,
        translations: bool = False,
        wyckoff: bool = False,
    ) -> None:
        super().__init__()
        self.name, self.unit, self.source = name, unit, None
        self.shape = {"members": members, "width": width, "depth": depth, "rank": rank}
        self.shape |= {"residual": residual, "translations": translations, "wyckoff": wyckoff}
        self.features = Features(translations, wyckoff)
        size = self.features.size
        # The first layer of all members is one matrix [size, members * width], and so is what a space group adds to it.
        self.first = _he(size, members * width)
        self.groups = nn.Parameter(torch.randn(230, members * width) * 0.1)
        self.offset = nn.Parameter(torch.zeros(members * width))
        if rank:
            self.left, self.right = (nn.Parameter(torch.randn(118, members * rank)) for _ in range(2))
            self.pairs = nn.Parameter(torch.randn(members, rank, width) * GAIN * rank**-0.5)
        sizes = [*[width] * depth, 1]
        self.weights = nn.ParameterList(_he(members, i, o) for i, o in zip(sizes, sizes[1:], strict=False))
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(members, o)) for o in sizes[1:])
        self.register_buffer("shift", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))
        self.register_buffer("label_mean", torch.zeros(()))
        self.register_buffer("label_std", torch.ones(()))
        self.register_buffer("low", torch.tensor(float("-inf")))
        self.register_buffer("high", torch.tensor(float("inf")))
        self.register_buffer("spread_factor", torch.ones(()))
        self.register_buffer("unfamiliar", torch.zeros(118))
        self.register_buffer("floor", torch.zeros(()))
        self.register_buffer("quantiles", torch.full((len(LEVELS),), torch.nan))

    def network(self, features: FeatureRows, space_group: Values) -> MemberValues:
        """What each member says, in standardised labels, from features and group numbers: what fitting trains."""
        answers = [
            hidden @ self.weights[-1][m, :, 0] + self.biases[-1][m]
            for m, hidden in enumerate(self._hidden(features, space_group))
        ]
        return torch.stack(answers)

    def last_layer(self, crystals: Crystals) -> FeatureRows:
        """The activations of each member's last hidden layer, side by side, [B, members * width]."""
        with torch.no_grad():
            return torch.cat(list(self._hidden(self.features(crystals), crystals.space_group)), 1)

    def _hidden(self, features: FeatureRows, space_group: Values) -> Iterator[torch.Tensor]:
        """The last hidden layer of each member, [B, width]."""
        x = (features - self.shift) * self.scale
        first = torch.addmm((self.groups + self.offset)[space_group - 1], x, self.first)
        starts = first.split(self.shape["width"], dim=1)
        if self.shape["rank"]:
            fractions = features[:, :118]
            products = ((fractions @ self.left) * (fractions @ self.right)).split(self.shape["rank"], dim=1)
            starts = [torch.addmm(*parts) for parts in zip(starts, products, self.pairs, strict=True)]
        for m, start in enumerate(starts):
            hidden = start.relu()
            for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
                more = torch.addmm(bias[m], hidden, weight[m]).relu_()
                hidden = hidden + more if self.shape["residual"] else more
            yield hidden

    def members(self, crystals: Crystals) -> MemberValues:
        """What each member says, in the property's unit.

        Raises:
            RewardError: the crystals are on another device than the proxy, or a space group outside 1-230.
        """
        if crystals.device != self.shift.device:
            raise RewardError(
                f"the proxy {self.name} is on {self.shift.device} and the crystals on {crystals.device}; "
                f"move one with .to({str(crystals.device)!r})"
            )
        check_space_groups(f"the proxy {self.name}", crystals)
        with torch.no_grad():
            parts = [
                self.network(self.features(part), part.space_group)
                for part in (crystals[i : i + CHUNK] for i in range(0, max(len(crystals), 1), CHUNK))
            ]
        return torch.cat(parts, 1) * self.label_std + self.label_mean

    def standardise(self, features: FeatureRows, crystals: Crystals, labels: Floats) -> None:
        """Take shifts, scales, the range of the means and the familiar elements from what is to be fitted on."""
        shift, scale = scales(features)
        self.shift.copy_(shift)
        self.scale.copy_(scale)
        self.label_mean.fill_(float(labels.mean()))
        self.label_std.fill_(float(labels.std()))
        self.low.fill_(float(labels.min()))
        self.high.fill_(float(labels.max()))
        seen = (crystals.composition > 0).sum(0)
        self.unfamiliar.copy_(labels.std() * (1 - seen / FAMILIAR).clamp_min(0))

    def calibrate(self, error: Floats, std: Floats) -> None:
        """Take the factor of the standard error and the widths of intervals from errors on crystals that were held out.

        Intervals are normalised conformal ones (Papadopoulos et al. 2008): the error over std + floor, the floor a
        tenth of the mean error, since members that agree may all be wrong.
        """
        self.spread_factor.fill_(std_factor(error, std))
        self.floor.fill_(float(error.mean()) / 10)
        score = error / (std * self.spread_factor + self.floor).clamp_min(1e-6)
        self.quantiles.copy_(score.quantile(torch.tensor(LEVELS, dtype=score.dtype)))

    def interval(self, crystals: Crystals, share: float = 0.9) -> tuple[Floats, Floats]:
        """Lower and upper ends between which ``share`` of held-out values lay.

        Raises:
            RewardError: a share outside 0.05-0.95, or a proxy whose intervals were not calibrated.
        """
        if not LEVELS[0] <= share <= LEVELS[-1]:
            raise RewardError(f"share={share}: intervals are calibrated from {LEVELS[0]} to {LEVELS[-1]}")
        factor = float(np.interp(share, LEVELS, self.quantiles.double().cpu().numpy()))
        if np.isnan(factor):
            raise RewardError(
                f"the intervals of the proxy {self.name} are not calibrated: too few crystals were held out when it "
                "was fitted (fit it on more data), or none yet (proxy.calibrate takes errors on some)"
            )
        mean, std = self.moments(crystals)
        half = factor * (std + self.floor.to(std))
        low, high = self.low.to(mean), self.high.to(mean)
        return (mean - half).clamp(low, high), (mean + half).clamp(low, high)

    def moments(self, crystals: Crystals) -> tuple[Floats, Floats]:
        """Mean and standard error of each crystal, from one pass."""
        members = self.members(crystals).to(crystals.lattice.dtype)
        members = members.clamp(self.low.to(members), self.high.to(members))
        mean = members.mean(0)
        std = ((members - mean).square().sum(0) / (len(members) - 1)).sqrt() * self.spread_factor
        shares = crystals.composition.to(mean.dtype) / crystals.n_atoms[:, None]
        std = std + shares @ self.unfamiliar.to(mean.dtype)
        return mean, std

    def forward(self, crystals: Crystals) -> Floats:
        """The mean prediction of each crystal."""
        return self.moments(crystals)[0]

    def std(self, crystals: Crystals) -> Floats:
        """How unsure each prediction is, in the property's unit."""
        return self.moments(crystals)[1]

    def confidence_bound(self, crystals: Crystals, n_sigma: float) -> Floats:
        """``mean + n_sigma * std``."""
        mean, std = self.moments(crystals)
        return mean + n_sigma * std

    def config(self) -> dict[str, Any]:
        """The configuration that builds it.

        Raises:
            RewardError: it has not been loaded from a folder, so nothing on disk says what it is.
        """
        if self.source is None:
            raise RewardError(f"the proxy {self.name} has not been saved; save it to a folder and load it from there")
        return {"_target_": "crystalgfn.rewards.load_proxy", "name": self.source}

    def save(self, folder: str | Path) -> Path:
        """Write ``weights.safetensors`` into a folder, aside and then renamed; returns the file."""
        shape = json.dumps(self.shape)
        path = FILES.write(
            path_of(folder) / WEIGHTS, self.state_dict(), property=self.name, unit=self.unit, shape=shape
        )
        self.source = str(path_of(folder).resolve())
        return path

    @classmethod
    def load(cls, folder: str | Path, source: str | None = None, property: str | None = None) -> EnsembleProxy:
        """Read a proxy from a folder with ``weights.safetensors``.

        Raises:
            CheckpointError: no such file, truncated, of another format, version, property or shape.
        """
        path = path_of(folder) / WEIGHTS

        def make(header: dict[str, str]) -> EnsembleProxy:
            if property is not None and header.get("property") != property:
                raise CheckpointError(f"{path} predicts {header.get('property')!r}, not {property!r}")
            return cls(header["property"], header["unit"], **json.loads(header["shape"]))

        proxy = FILES.load(path, make)
        proxy.source = source if source is not None else str(path_of(folder).resolve())
        return proxy
