"""Partial crystals: the state of the environment of crystals."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(kw_only=True)
class CrystalState:
    """Partial crystals, batch first; -1, 0 or NaN where not yet decided.

    Attributes:
        n_elements: [B]; the place of the lattice system, point symmetry and space group: system, symmetry, group.
        node: of the trie of count patterns, at last the pattern; counts: its counts, [B, K].
        left: the multiset of counts that no element has taken yet.
        charge: packed sets of charges that are reached, [B, 2, words].
        element, amount: columns of the elements and their atoms, [B, K].
        volume_sums: sums over the atoms so far that limit the volume (`MaskRules.volumes`), [B, L].
        typical_volume: what the atoms so far take up in known crystals, Å3.
        angles: in degrees, [B, 3]; u, v: ln(a/b), ln(b/c); log_volume: ln of the volume per atom, Å3.
    """

    n_elements: torch.Tensor
    system: torch.Tensor
    symmetry: torch.Tensor
    group: torch.Tensor
    node: torch.Tensor
    counts: torch.Tensor
    left: torch.Tensor
    charge: torch.Tensor
    element: torch.Tensor
    amount: torch.Tensor
    volume_sums: torch.Tensor
    typical_volume: torch.Tensor
    angles: torch.Tensor
    u: torch.Tensor
    v: torch.Tensor
    log_volume: torch.Tensor
