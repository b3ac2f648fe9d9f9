"""The optimisers of a training, and their common schedule."""

from __future__ import annotations

import math

import torch

from crystalgfn.gfn.config import TrainerConfig
from crystalgfn.gfn.scoring import FlowHead
from crystalgfn.policy.network import PolicyNetwork


class Optimizers:
    """Adam for everything; or Muon for the matrices of the trunk (its updates are orthogonal) and Adam for the rest.

    Args:
        trainer: learning rates and which optimiser.
        network: the policy.
        log_z: ln Z of the strata.
        flow: gives the flows of states, if the objective asks for it.
    """

    def __init__(
        self, trainer: TrainerConfig, network: PolicyNetwork, log_z: torch.nn.Parameter, flow: FlowHead | None = None
    ) -> None:
        named = dict(network.named_parameters())
        matrices = [
            p for n, p in named.items() if trainer.optimizer == "muon" and n.startswith("blocks") and p.ndim == 2
        ]
        chosen = {id(p) for p in matrices}
        rest = [p for p in named.values() if id(p) not in chosen]
        self.parameters = [*matrices, *rest, *(flow.parameters() if flow is not None else ())]
        adam = torch.optim.Adam(
            [
                {"params": [*rest, *(flow.parameters() if flow is not None else ())], "lr": trainer.learning_rate},
                {"params": [log_z], "lr": trainer.log_z_learning_rate},
            ],
            betas=(0.9, 0.99),
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
