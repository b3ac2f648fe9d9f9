"""Log-probabilities of trajectories, all visited states packed together, and the optimisers of what gives them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from crystalgfn.envs.base import Discrete, Environment
from crystalgfn.gfn.batches import Batch
from crystalgfn.gfn.config import TrainerConfig
from crystalgfn.gfn.rollout import Step, Trajectories
from crystalgfn.policy.distributions import MaskedCategorical
from crystalgfn.policy.network import PolicyNetwork

#: States scored at a time on a CPU: the activations of a few thousand stay in its caches.
CPU_ROWS = 4096


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Log-probabilities of trajectories, batch first.

    Attributes:
        log_forward: ln P_F, in the network's dtype, [B]; differentiable.
        log_backward: ln P_B given the end, [B].
        steps: ln P_F of each move, [B, T]; 0 where a trajectory had no choice.
        flows: ln F of the state before each move, less ln Z, [B, T].
        asked: where a trajectory had a choice, bool [B, T].
    """

    log_forward: torch.Tensor
    log_backward: torch.Tensor
    steps: torch.Tensor | None = None
    flows: torch.Tensor | None = None
    asked: torch.Tensor | None = None

    def log_ratio(self, log_reward: torch.Tensor) -> torch.Tensor:
        """ln P_F - ln P_B - ln R, float64 [B]."""
        return self.log_forward.double() - self.log_backward - log_reward.double()


class FlowHead(nn.Module):
    """ln F of a state relative to ln Z, from its hidden vector; a level of its own for each kind of move."""

    #: a step of the optimiser moves a level by so much more than another weight: levels reach from ln Z to ln R
    SCALE = 10.0

    def __init__(self, width: int, heads: tuple[str, ...]) -> None:
        super().__init__()
        self.index = {name: i for i, name in enumerate(heads)}
        self.linear = nn.Linear(width, 1)
        self.level = nn.Parameter(torch.zeros(len(heads)))
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, hidden: torch.Tensor, head: str) -> torch.Tensor:
        """[rows, width] -> [rows]."""
        return self.linear(hidden).squeeze(1) + self.SCALE * self.level[self.index[head]]


def score(
    env: Environment,
    network: PolicyNetwork,
    trajectories: Trajectories,
    strata: torch.Tensor | None = None,
    flow: FlowHead | None = None,
) -> Scored:
    """Score trajectories under the clean policy; differentiable.

    ``strata`` are ln weights of the first move, if it is not the network's; ``flow`` gives the flows of the states,
    where they are asked for.
    """
    dtype, device = network.embedding.weight.dtype, trajectories.valid.device
    total = torch.zeros(trajectories.n, dtype=dtype, device=device)
    turns = list(enumerate(trajectories.steps))
    if strata is not None:
        total = _add_strata(total, [turn for _, turn in turns if turn.head == "n_elements"], strata)
        turns = [t for t in turns if t[1].head != "n_elements"]
    moves = list(_moves(env, network, turns, flow, CPU_ROWS if device.type == "cpu" else None))
    if moves:
        total = total.index_add(0, torch.cat([m.rows for m in moves]), torch.cat([m.log_prob for m in moves]))
    total = torch.where(trajectories.valid, total, -torch.inf)
    lined = {} if flow is None or not moves else _lined_up(moves, total.new_zeros(len(total), len(trajectories.steps)))
    return Scored(log_forward=total, log_backward=trajectories.log_backward, **lined)


def _lined_up(moves: list[_Move], empty: torch.Tensor) -> dict[str, torch.Tensor]:
    """Scores of moves by trajectory and turn, in the shape of ``empty`` [B, T]."""
    where = (
        torch.cat([move.rows for move in moves]),
        torch.cat([torch.full_like(move.rows, move.column) for move in moves]),
    )
    levels = torch.cat([move.level for move in moves if move.level is not None])
    return {
        "steps": empty.index_put(where, torch.cat([move.log_prob for move in moves])),
        "flows": empty.index_put(where, levels.to(empty.dtype)),
        "asked": empty.index_put(where, torch.ones_like(levels, dtype=empty.dtype)).bool(),
    }


class _Move(NamedTuple):
    """Scores of one turn: its number, rows of the batch, log-probabilities and, where asked for, flows."""

    column: int
    rows: torch.Tensor
    log_prob: torch.Tensor
    level: torch.Tensor | None


def _moves(
    env: Environment,
    network: PolicyNetwork,
    turns: list[tuple[int, Step]],
    flow: FlowHead | None,
    limit: int | None,
) -> Iterator[_Move]:
    """The scores of numbered turns, of which at most ``limit`` states are packed together."""
    for pack in _packs(turns, limit):
        hidden = network.hidden(*_packed([t for _, t in pack]), _conditions([t for _, t in pack]))
        # split, not slices: the gradient of a slice is a whole tensor of zeros
        parts = hidden.split([len(t.observation.index) for _, t in pack])
        for (i, turn), part in zip(pack, parts, strict=True):
            level = None if flow is None else flow(part, turn.head)
            inverse = turn.observation.inverse
            if inverse is not None:
                part = part.index_select(0, inverse)
                level = None if level is None else level.index_select(0, inverse)
            distribution = network.distribution(env.heads[turn.head], part, turn.options)
            log_prob = distribution.log_prob(turn.action).to(network.embedding.weight.dtype)
            yield _Move(i, turn.rows, log_prob, level)


def _add_strata(total: torch.Tensor, first: list[Step], strata: torch.Tensor) -> torch.Tensor:
    """The log-probabilities of the first moves under given weights added to those of their trajectories."""
    for turn in first:
        if not isinstance(turn.options, Discrete):
            raise ValueError("weights of the first move are for a choice, not for a continuous sample")
        mask = turn.options.mask
        logits = strata[: mask.shape[1]].expand(len(turn.rows), -1)
        log_prob = MaskedCategorical.of(logits, mask).log_prob(turn.action)
        total = total.index_add(0, turn.rows, log_prob.to(total.dtype))
    return total


def log_forward(
    env: Environment, network: PolicyNetwork, trajectories: Trajectories, strata: torch.Tensor | None = None
) -> torch.Tensor:
    """ln P_F of each trajectory under the clean policy, [B] in the network's dtype; differentiable."""
    return score(env, network, trajectories, strata).log_forward


def _packs(turns: list[tuple[int, Step]], rows: int | None) -> list[list[tuple[int, Step]]]:
    """The turns in packs of at most ``rows`` states (a turn is never split); all in one where ``rows`` is None."""
    packs: list[list[tuple[int, Step]]] = []
    filled = 0
    for turn in turns:
        size = len(turn[1].observation.index)
        if not packs or (rows is not None and filled + size > rows):
            packs.append([])
            filled = 0
        packs[-1].append(turn)
        filled += size
    return packs


def _packed(turns: list[Step]) -> tuple[torch.Tensor, torch.Tensor]:
    """The sparse vectors of all turns, padded to the same number of fields (index 0 with weight 0)."""
    fields = max(t.observation.index.shape[1] for t in turns)

    def pad(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(x, (0, fields - x.shape[1]))

    return torch.cat([pad(t.observation.index) for t in turns]), torch.cat([pad(t.observation.weight) for t in turns])


def _conditions(turns: list[Step]) -> torch.Tensor | None:
    """The conditions of all turns, [states], or None where the policy has none."""
    conditions = [t.observation.condition for t in turns if t.observation.condition is not None]
    return torch.cat(conditions) if conditions else None


class Scorer(nn.Module):
    """All that is learned, behind one forward pass, as DistributedDataParallel wants it."""

    def __init__(
        self, env: Environment, network: PolicyNetwork, log_omega: torch.Tensor | None, flow: FlowHead | None
    ) -> None:
        super().__init__()
        self.env, self.log_omega = env, log_omega
        self.network, self.flow = network, flow
        n_strata = 1 if log_omega is None else len(log_omega)
        self.log_z = nn.Parameter(torch.zeros(n_strata, dtype=torch.float64, device=env.device))

    def forward(self, batches: list[Batch]) -> tuple[list[Scored], torch.Tensor]:
        """Scores of the batches, and ln Z."""
        scored = [score(self.env, self.network, b.trajectories, self.log_omega, self.flow) for b in batches]
        return scored, self.log_z.clone()


def joined(scored: list[Scored]) -> Scored:
    """Several batches as one; their moves are lined up by padding."""
    if len(scored) == 1:
        return scored[0]
    forward, backward = (torch.cat([getattr(s, name) for s in scored]) for name in ("log_forward", "log_backward"))
    widths = [s.steps.shape[1] for s in scored if s.steps is not None]
    if not widths:
        return Scored(log_forward=forward, log_backward=backward)
    width = max(widths)

    def lined(name: str) -> torch.Tensor:
        parts = [getattr(s, name) for s in scored]
        return torch.cat([nn.functional.pad(x, (0, width - x.shape[1])) for x in parts])

    return Scored(
        log_forward=forward,
        log_backward=backward,
        steps=lined("steps"),
        flows=lined("flows"),
        asked=lined("asked"),
    )


class Optimizers:
    """Adam for everything; or Muon for the matrices of the trunk (its updates are orthogonal) and Adam for the rest."""

    def __init__(
        self, trainer: TrainerConfig, network: PolicyNetwork, log_z: torch.nn.Parameter, flow: FlowHead | None = None
    ) -> None:
        named = network.named_parameters()
        muon = trainer.optimizer == "muon"
        matrices, rest = [], []
        for name, weights in named:
            (matrices if muon and name.startswith("blocks") and weights.ndim == 2 else rest).append(weights)
        rest += [] if flow is None else list(flow.parameters())
        self.parameters = [*matrices, *rest]
        adam = torch.optim.Adam(
            [
                {"params": rest, "lr": trainer.learning_rate},
                {"params": [log_z], "lr": trainer.log_z_learning_rate},
            ],
            betas=(0.9, trainer.second_moment),
            foreach=True,
        )
        self.all: list[torch.optim.Optimizer] = [adam]
        if matrices:
            self.all.append(torch.optim.Muon(matrices, lr=trainer.muon_learning_rate, weight_decay=0.0))
        self._rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.all]
        self.clip = trainer.gradient_clip

    def schedule(self, progress: float) -> None:
        """Cosine decay to 0 over the training (Loshchilov & Hutter 2017)."""
        decay = max(0.5 * (1 + math.cos(math.pi * progress)), 1e-6)
        for optimizer, rates in zip(self.all, self._rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * decay

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for optimizer in self.all:
            optimizer.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Clip the gradient of the network and move."""
        torch.nn.utils.clip_grad_norm_(self.parameters, self.clip)
        for optimizer in self.all:
            optimizer.step()

    def state_dict(self) -> list[dict]:
        """Their states, in order."""
        return [optimizer.state_dict() for optimizer in self.all]

    def load_state_dict(self, states: list[dict]) -> None:
        """The states of `state_dict`."""
        for optimizer, state in zip(self.all, states, strict=True):
            optimizer.load_state_dict(state)
