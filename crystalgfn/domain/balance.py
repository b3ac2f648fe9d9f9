"""Sets of charges that partial compositions have reached, as packed bits, batch first."""

from __future__ import annotations

import numpy as np
import torch

from crystalgfn.domain.compositions import WORD, CompositionTables, initial_charge, pack


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

        self.plain, self.split, self.family = put(table.plain), put(table.split), put(table.family)
        self.metal = put(table.metal)
        self.half_width = table.half_width
        self.initial = put(initial_charge(table.half_width, alloys))
        self.charges = put(pack(np.arange(2 * table.half_width + 2) <= 2 * table.half_width))  # the bits of charges
        self.bit = torch.arange(WORD, device=device)
        self.metal_word, self.metal_bit = divmod(2 * table.half_width + 1, WORD)

    def after(self, charge: torch.Tensor, column: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        """The sets after ``count`` [rows] atoms of the elements in ``column`` [rows]."""
        family = self.family[column]
        before = charge & self.charges
        out = _add(before, self.plain[family, count])
        out[:, 1] |= _add(before[:, :1], self.split[family, count])[:, 0]
        out &= self.charges
        out[:, 1, self.metal_word] |= (self.metals_only(charge) & self.metal[column]) << self.metal_bit
        return out

    def metals_only(self, charge: torch.Tensor) -> torch.Tensor:
        """1 where all elements so far are metals (rule ``alloys``), else 0, int64 [rows]."""
        return (charge[:, 1, self.metal_word] >> self.metal_bit) & 1

    def unpack(self, charge: torch.Tensor) -> torch.Tensor:
        """Packed sets [..., words] as booleans [..., 2 half_width + 2]."""
        bits = (charge[..., None] >> self.bit) & 1
        return bits.flatten(-2)[..., : 2 * self.half_width + 2].bool()


def _add(sets: torch.Tensor, charges: torch.Tensor) -> torch.Tensor:
    """Packed sets [rows, sets, words] with each of a row's charges [rows, 1 + S] (how many, then which) added."""
    n_rows, n_sets, n_words = sets.shape
    order = charges[:, 0].argsort(descending=True, stable=True)
    lists = charges[order]
    at_least = (lists[:, :1] > torch.arange(lists.shape[1] - 1, device=sets.device)).sum(0).tolist()
    # between words of zeros, so that what is shifted out of a set goes nowhere
    padded = torch.nn.functional.pad(sets[order], (n_words, n_words))
    position = torch.arange(n_words, 2 * n_words, device=sets.device)
    added = torch.zeros_like(sets)
    for i, rows in enumerate(at_least):
        if rows == 0:
            break
        shift = lists[:rows, 1 + i, None, None].clamp(-WORD * n_words, WORD * n_words)
        words = shift.div(WORD, rounding_mode="floor")
        bits = shift - WORD * words
        low = (position - words).clamp(1, 3 * n_words - 1).expand(rows, n_sets, n_words)
        source = padded[:rows]
        here, below = source.gather(2, low), source.gather(2, low - 1)
        # the upper bits stay within the 63 that are used
        added[:rows] |= ((here & ((1 << (WORD - bits)) - 1)) << bits) | (below >> (WORD - bits))
    out = torch.empty_like(sets)
    out[order] = added
    return out
