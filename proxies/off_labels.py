"""Labels off equilibrium as a fit takes them: known energies, upper bounds, and where labels end."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torchtyping import TensorType

from crystalgfn.domain.crystals import Crystals
from crystalgfn.proxies.data import Rows, bags
from crystalgfn.proxies.labels import BOUND, FIT, HIGH, SOURCES, Labels
from crystalgfn.proxies.model import EnsembleProxy
from crystalgfn.proxies.strain import jittered
from crystalgfn.typing import Booleans, Floats

#: Labels in a step.
BATCH = 64
#: How far E* lies below an upper bound, on average, eV/atom, where chance placed the atoms, against the deviation of an
#: energy that is known: lowest of eight placements against real crystals (docs/labels.md), taken as exponentially
#: distributed. Where the refiner placed them half of the bounds are E* itself, and an absolute error, which fits
#: medians, may mind both sides alike.
EXCESS, EXCESS_REFINED, KNOWN = 0.35, 0.05, 0.05
#: Weight of a prediction below what is probably too high by more than labels go.
TOO_LOW = 1.0


@dataclass(frozen=True)
class OffLabels:
    """Labels that a fit may see.

    Attributes:
        crystals: [B].
        features: of these, [B, n].
        target: standardised energies [B].
        bound: which are upper bounds [B].
        excess: how far these lie too high on average, eV/atom [B].
        high: which say where labels end, so that the energy lies above [B].
        seen: which member may see which [members, B].
        odds: how often each is drawn [B].
        jitter: how far cells are moved each time that they are drawn, see `jittered`; an energy known near its lowest
            hardly changes, and what is learned holds for more than the very cell.
    """

    crystals: Crystals
    features: TensorType["batch", "features"]
    target: Floats
    bound: Booleans
    excess: Floats
    high: Booleans
    seen: TensorType["members", "batch"]
    odds: Floats
    jitter: float = 0.0

    @classmethod
    def of(
        cls, proxy: EnsembleProxy, labels: Labels, balance: float, left_out: float, seed: int, jitter: float = 0.0
    ) -> OffLabels:
        """The labels to fit for a proxy that has been standardised.

        Args:
            proxy: to fit.
            labels: of all splits.
            balance: share of the draws that are no strained real crystals, where there are both.
            left_out: share of the formulas that each member does not see.
            seed: of the choice of these.
            jitter: how far cells are moved each time.
        """
        own = labels[labels.split == FIT]
        with torch.no_grad():
            features = proxy.features(own.crystals)
        target = ((own.value - proxy.label_mean) / proxy.label_std).float()
        seen = bags(Rows(own.crystals, own.value, own.keys()), proxy.shape["members"], left_out, seed)
        strained = own.source == SOURCES.index("strained")
        odds = torch.ones(len(own))
        if strained.any() and not strained.all():
            odds = torch.where(strained, (1 - balance) / strained.sum(), balance / (~strained).sum())
        excess = torch.where(own.refined, EXCESS_REFINED, EXCESS)
        bound, high = own.kind == BOUND, own.kind == HIGH
        return cls(own.crystals, features, target, bound, excess, high, seen, odds, jitter)

    def loss(self, proxy: EnsembleProxy, generator: torch.Generator) -> torch.Tensor:
        """Mean absolute error on known energies; above a bound the same, below it as much less as bounds lie too high.

        What lies higher than labels go is wrong below their end only.
        """
        chosen = torch.multinomial(self.odds, BATCH, replacement=True, generator=generator)
        features = self.features[chosen]
        if self.jitter:
            with torch.no_grad():
                features = proxy.features(jittered(self.crystals[chosen], self.jitter, generator))
        error = proxy.network(features, self.crystals.space_group[chosen]) - self.target[chosen]
        size = absolute(error)
        size = torch.where(self.bound[chosen] & (error < 0), KNOWN / self.excess[chosen] * size, size)
        size = torch.where(self.high[chosen], torch.where(error < 0, TOO_LOW * size, 0.0), size)
        weight = self.seen[:, chosen].float()
        return (weight * size).sum() / weight.sum().clamp_min(1) * len(weight)


def absolute(error: TensorType["members", "batch"]) -> TensorType["members", "batch"]:
    """Absolute errors, rounded off near 0."""
    return torch.nn.functional.smooth_l1_loss(error, torch.zeros_like(error), beta=0.02, reduction="none")
