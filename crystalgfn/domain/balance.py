"""Sets of charges that partial compositions have reached, as packed bits, batch first."""

from __future__ import annotations

import numpy as np
import torch

from crystalgfn.domain.compositions import WORD, CompositionTables, initial_charge


class ChargeSets:
    """Adds elements to packed sets of charges, int64 [rows, 2, words]: without and with a split element.

    The bit behind the last charge of the second set means "metals only so far" (rule ``alloys``).

    Args:
        table: the composition tables of a space.
        alloys: whether metals only count as neutral.
        device: where the sets live.
    """

    def __init__(self, table: CompositionTables, alloys: bool, device: torch.device) -> None:
        def put(array: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device)

        self.add_plain, self.add_split, self.family = put(table.add_plain), put(table.add_split), put(table.family)
        self.metal = put(table.metal)
        self.half_width = table.half_width
        self.initial = put(initial_charge(table.half_width, alloys))
        self.bit = torch.arange(WORD, device=device)

    def after(self, charge: torch.Tensor, column: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        """The sets after ``count`` [rows] atoms of the elements in ``column`` [rows]."""
        family = self.family[column]
        plain = self.add_plain[family, count]  # [rows, W, words]
        split = self.add_split[family, count]
        whole, mixed = charge[:, 0, None], charge[:, 1, None]
        # no row of plain or split has the bit behind the last charge
        new_whole = (whole & plain).ne(0).any(-1)
        new_mixed = (mixed & plain).ne(0).any(-1) | (whole & split).ne(0).any(-1)
        width = 2 * self.half_width + 1
        metals = ((charge[:, 1, width // WORD] >> (width % WORD)) & 1).bool() & self.metal[column]
        return torch.stack([self._pack(new_whole, torch.zeros_like(metals)), self._pack(new_mixed, metals)], 1)

    def unpack(self, charge: torch.Tensor) -> torch.Tensor:
        """Packed sets [..., words] as booleans [..., 2 half_width + 2]."""
        bits = (charge[..., None] >> self.bit) & 1
        return bits.flatten(-2)[..., : 2 * self.half_width + 2].bool()

    def _pack(self, bits: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        n_words = self.initial.shape[-1]
        padding = torch.zeros(len(bits), n_words * WORD - bits.shape[1] - 1, dtype=torch.bool, device=bits.device)
        padded = torch.cat([bits, last[:, None], padding], 1).view(len(bits), n_words, WORD)
        return (padded.long() << self.bit).sum(-1)
