"""The sets of a real number on which conditions hold, as unions of intervals, for a batch at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch

SMALLEST = 1e-12  # width that a draw keeps when rounding closes its interval
BISECTIONS = 60
Function = Callable[[torch.Tensor], torch.Tensor]


def interval(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """[rows, 2]; an interval that rounding closed keeps a smallest width."""
    return torch.stack([low, torch.maximum(high, low + SMALLEST)], 1)


def open_set(
    edges: list[torch.Tensor],
    smallest: Function,
    ceiling: torch.Tensor,
    largest: Function,
    floor: torch.Tensor,
) -> torch.Tensor:
    """Where smallest(x) <= ceiling and largest(x) >= floor; both functions monotone between the edges.

    Args:
        edges: first and last end and the break points between them (in any order, outside values are cut), each [rows].
        smallest: function of a [rows] tensor.
        ceiling: [rows].
        largest: function of a [rows] tensor.
        floor: [rows].

    Returns:
        One interval for each pair of neighbouring edges, [rows, len(edges) - 1, 2]; empty ones have first > second.
    """
    start, end = edges[0], edges[-1]
    inner = torch.stack([*edges[1:-1]], 1) if len(edges) > 2 else start[:, None][:, :0]
    inner = torch.minimum(torch.maximum(inner, start[:, None]), torch.maximum(end, start)[:, None]).sort(1).values
    points = torch.cat([start[:, None], inner, end[:, None]], 1)
    pieces = []
    for i in range(points.shape[1] - 1):
        low, high = points[:, i], points[:, i + 1]
        low_a, high_a = _cut(lambda x: smallest(x) <= ceiling, low, high)
        low_b, high_b = _cut(lambda x: largest(x) >= floor, low, high)
        pieces.append(torch.stack([torch.maximum(low_a, low_b), torch.minimum(high_a, high_b)], 1))
    return torch.stack(pieces, 1)


def keep_open(pieces: torch.Tensor) -> torch.Tensor:
    """Give rows whose set rounding closed (the masks know it to be open) a smallest interval where it was widest."""
    widths = pieces[..., 1] - pieces[..., 0]
    closed = (widths.clamp_min(0).sum(1) == 0).nonzero().flatten()
    if len(closed):
        best = widths[closed].argmax(1)
        middle = pieces[closed, best].mean(1)
        pieces[closed, best] = torch.stack([middle, middle + SMALLEST], 1)
    return pieces


def _cut(holds: Callable[[torch.Tensor], torch.Tensor], low: torch.Tensor, high: torch.Tensor) -> tuple:
    """The part of [low, high] where a condition holds that changes at most once in between."""
    at_low, at_high = holds(low), holds(high)
    inside, outside = torch.where(at_low, low, high), torch.where(at_low, high, low)
    mixed = at_low ^ at_high
    if bool(mixed.any()):
        for _ in range(BISECTIONS):
            middle = (inside + outside) / 2
            ok = holds(middle)
            inside, outside = torch.where(ok, middle, inside), torch.where(ok, outside, middle)
    first = torch.where(at_low, low, torch.where(at_high, inside, 1.0))
    last = torch.where(at_high, high, torch.where(at_low, inside, 0.0))
    empty = ~at_low & ~at_high
    return torch.where(empty, high + 1, first), torch.where(empty, low, last)
