"""RelaxedEnergy: where above the convex hull a crystal of this space group and composition lies once it has relaxed.

Bayesian linear regression (Bishop 2006, section 3.3) on what the plausibility sees of composition and space group, of
draws that were placed and relaxed by a calculator:

    y = m + w·x + e,  w ~ N(0, σ² / λ),  e ~ N(0, σ²):   Σ = σ² (XᵀX + λ 1)⁻¹,  w = Σ Xᵀ (y - m) / σ².

It knows nothing of known crystals and does not see the lattice. What it adds to a proxy of the energy is the proxy's
error where a sampler draws: those crystals are chosen for low predictions, so they lie higher, by how much depends on
the chemistry.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.properties.plausibility import CompositionAndGroup
from crystalgfn.typing import FeatureRows, Floats
from crystalgfn.utils.weight_files import WeightFiles

FILES = WeightFiles(
    what="regression of relaxed energies", format="crystalgfn-relaxed-energy", version=1, remedy="fit it again"
)
WEIGHTS = "weights.safetensors"
CHUNK = 8192
LARGEST = 5.0
"""Features beyond this, in standard deviations of those that the plausibility was fitted on, are cut off."""


class RelaxedEnergy(CompositionAndGroup):
    """Energy above the hull after relaxation, eV/atom; a `Property`.

    ``std`` is that of w·x alone, so it grows where nothing like a crystal was relaxed; a single relaxation scatters by
    ``noise`` besides.

    Args:
        kinds: known stoichiometries in the features.
        name: what it is called in tables.
        source: by which name ``config`` refers to it.

    Attributes:
        mean: m, eV/atom.
        weights: w, [F].
        factor: a square root of Σ, Σ = factor factorᵀ, [F, F].
        noise: σ, eV/atom.
    """

    files = FILES
    unit = "eV/atom"
    mean: torch.Tensor
    weights: torch.Tensor
    factor: torch.Tensor
    noise: torch.Tensor

    def __init__(self, kinds: int = 0, name: str = "relaxed_energy", source: str | None = None) -> None:
        super().__init__(kinds, name, source)
        self.shape = {"kinds": kinds, "name": name}
        size = len(self.shift)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("weights", torch.zeros(size))
        self.register_buffer("factor", torch.zeros(size, size))
        self.register_buffer("noise", torch.zeros(()))

    def standardised(self, crystals: Crystals) -> FeatureRows:
        """x of each crystal, [B, F]."""
        return self._standardise(self.features(crystals))

    def _standardise(self, features: FeatureRows) -> FeatureRows:
        return ((features - self.shift) * self.scale).clamp(-LARGEST, LARGEST)

    def forward(self, crystals: Crystals) -> Floats:
        """m + w·x of each crystal, eV/atom, [B]."""
        return self._each(crystals, lambda x: self.mean + x @ self.weights)

    def std(self, crystals: Crystals) -> Floats:
        """The standard error of w·x, eV/atom, [B]."""
        return self._each(crystals, lambda x: (x @ self.factor).square().sum(1).sqrt())

    def confidence_bound(self, crystals: Crystals, n_sigma: float) -> Floats:
        """``mean + n_sigma * std``, eV/atom, [B]."""

        def bound(x: FeatureRows) -> Floats:
            return self.mean + x @ self.weights + n_sigma * (x @ self.factor).square().sum(1).sqrt()

        return self._each(crystals, bound)

    def _each(self, crystals: Crystals, value: Callable[[FeatureRows], Floats]) -> Floats:
        parts = self.in_parts(crystals, lambda features: value(self._standardise(features)))
        return torch.cat(parts).to(crystals.lattice)
