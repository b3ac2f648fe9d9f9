"""Log-probabilities of walked trajectories: all visited states in one packed pass."""

from __future__ import annotations

import torch

from crystalgfn.envs.base import Environment, Observation
from crystalgfn.gfn.rollout import Turn, Walk
from crystalgfn.policy.distributions import MaskedCategorical
from crystalgfn.policy.network import PolicyNetwork


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
    if turns:
        hidden = network.trunk(_packed(turns))
        parts = []
        # split, not slices: the gradient of a slice is a whole tensor of zeros
        for turn, part in zip(turns, hidden.split([len(t.rows) for t in turns]), strict=True):
            distribution = network.distribution(env.heads[turn.head], part, turn.options)
            parts.append(distribution.log_prob(turn.action).to(dtype))
        total = total.index_add(0, torch.cat([t.rows for t in turns]), torch.cat(parts))
    return torch.where(walked.valid, total, -torch.inf)


def _packed(turns: list[Turn]) -> Observation:
    """The observations of all turns, padded to the same number of fields (index 0 with weight 0)."""
    fields = max(t.observation.index.shape[1] for t in turns)

    def pad(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(x, (0, fields - x.shape[1]))

    return Observation(
        torch.cat([pad(t.observation.index) for t in turns]), torch.cat([pad(t.observation.weight) for t in turns])
    )
