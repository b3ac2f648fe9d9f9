"""Log-probabilities of walked trajectories: all visited states packed together."""

from __future__ import annotations

import torch

from crystalgfn.envs.base import Environment
from crystalgfn.gfn.rollout import Turn, Walk
from crystalgfn.policy.distributions import MaskedCategorical
from crystalgfn.policy.network import PolicyNetwork

#: States scored at a time on a CPU: the activations of a few thousand stay in its caches.
CPU_ROWS = 4096


def log_forward(
    env: Environment, network: PolicyNetwork, walked: Walk, strata: torch.Tensor | None = None
) -> torch.Tensor:
    """ln P_F of each trajectory under the clean policy, [B] in the network's dtype; differentiable.

    Args:
        env: the environment in which the trajectories were walked.
        network: the policy.
        walked: trajectories with their turns.
        strata: ln weights of the first move, if it is not the network's.
    """
    dtype = network.embedding.weight.dtype
    total = torch.zeros(walked.n, dtype=dtype, device=walked.valid.device)
    fixed = [t for t in walked.turns if strata is not None and t.head == "n_elements"]
    for turn in fixed:
        logits = strata[: turn.options.mask.shape[1]].expand(len(turn.rows), -1)
        log_prob = MaskedCategorical.of(logits, turn.options.mask).log_prob(turn.action)
        total = total.index_add(0, turn.rows, log_prob.to(dtype))
    turns = [t for t in walked.turns if strata is None or t.head != "n_elements"]
    for pack in _packs(turns, CPU_ROWS if total.device.type == "cpu" else None):
        hidden = network.hidden(*_packed(pack))
        parts = []
        # split, not slices: the gradient of a slice is a whole tensor of zeros
        for turn, part in zip(pack, hidden.split([len(t.observation.index) for t in pack]), strict=True):
            part = part if turn.observation.inverse is None else part.index_select(0, turn.observation.inverse)
            distribution = network.distribution(env.heads[turn.head], part, turn.options)
            parts.append(distribution.log_prob(turn.action).to(dtype))
        total = total.index_add(0, torch.cat([t.rows for t in pack]), torch.cat(parts))
    return torch.where(walked.valid, total, -torch.inf)


def _packs(turns: list[Turn], rows: int | None) -> list[list[Turn]]:
    """The turns in packs of at most ``rows`` states (a turn is never split); all in one where ``rows`` is None."""
    packs: list[list[Turn]] = []
    filled = 0
    for turn in turns:
        size = len(turn.observation.index)
        if not packs or (rows is not None and filled + size > rows):
            packs.append([])
            filled = 0
        packs[-1].append(turn)
        filled += size
    return packs


def _packed(turns: list[Turn]) -> tuple[torch.Tensor, torch.Tensor]:
    """The sparse vectors of all turns, padded to the same number of fields (index 0 with weight 0)."""
    fields = max(t.observation.index.shape[1] for t in turns)

    def pad(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(x, (0, fields - x.shape[1]))

    return torch.cat([pad(t.observation.index) for t in turns]), torch.cat([pad(t.observation.weight) for t in turns])
