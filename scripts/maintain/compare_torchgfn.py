"""The hypergrid by torchgfn and by this package, in one run: exact L1 after as many trajectories, and CPU seconds.

``python -m scripts.maintain.compare_torchgfn`` with torchgfn installed (2.4 asks for an older numpy, but runs with that
of constraints.txt: install it by ``pip install --no-deps``, and what it imports).

torchgfn learns by its own recipe: trajectory balance, two hidden layers of 256, Adam with 1e-3 (0.1 for ln Z), here
with a cosine to 0, which helps it. Both policies are judged by pushing the flow exactly through all cells.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch

from crystalgfn.benchmarks.exactness import GRIDS, hypergrid
from crystalgfn.envs.hypergrid import HyperGrid
from crystalgfn.gfn.objectives import TrajectoryBalance
from scripts.maintain.program import run

HEIGHT, WIDTH = 8, 256


class Policy:
    """torchgfn's forward policy as `HyperGrid.stop_probabilities` asks for it."""

    def __init__(self, env: Any, estimator: Any) -> None:
        self.env, self.estimator = env, estimator

    def trunk(self, observation: Any) -> torch.Tensor:
        """The positions of one-hot features [cells, d]."""
        return observation.index - HEIGHT * torch.arange(observation.index.shape[1])

    def distribution(self, head: Any, position: torch.Tensor, options: Any) -> Any:
        """Logits of the moves, where they are allowed."""
        logits = self.estimator(self.env.states_from_tensor(position))
        return type("Moves", (), {"logits": torch.where(options.mask, logits, -torch.inf)})


def by_torchgfn(dimensions: int, batch_size: int, steps: int, seed: int) -> float:
    """L1 of torchgfn's sampler."""
    from gfn.estimators import DiscretePolicyEstimator
    from gfn.gflownet import TBGFlowNet
    from gfn.gym import HyperGrid as TheirGrid
    from gfn.preprocessors import KHotPreprocessor
    from gfn.samplers import Sampler
    from gfn.utils.modules import MLP, DiscreteUniform

    torch.manual_seed(seed)
    env = TheirGrid(ndim=dimensions, height=HEIGHT, validate_modes=False)
    khot = KHotPreprocessor(height=HEIGHT, ndim=dimensions)
    forward = DiscretePolicyEstimator(
        MLP(khot.output_dim, env.n_actions, hidden_dim=WIDTH, n_hidden_layers=2), env.n_actions, preprocessor=khot
    )
    backward = DiscretePolicyEstimator(
        DiscreteUniform(env.n_actions - 1), env.n_actions, preprocessor=khot, is_backward=True
    )
    model = TBGFlowNet(forward, backward, init_logZ=0.0)
    rates = [{"params": model.pf_pb_parameters(), "lr": 1e-3}, {"params": model.logz_parameters(), "lr": 0.1}]
    optimizer = torch.optim.Adam(rates)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    sampler = Sampler(forward)
    for _ in range(steps):
        trajectories = sampler.sample_trajectories(env, n=batch_size, save_logprobs=True)
        optimizer.zero_grad()
        model.loss(env, trajectories, recalculate_all_logprobs=False).backward()
        optimizer.step()
        schedule.step()
    own = HyperGrid(dimensions, HEIGHT)
    target = own.log_reward(own.cells()).exp()
    return float((own.stop_probabilities(Policy(env, forward)) - target / target.sum()).abs().sum())


def main() -> None:
    """The command: a line for each grid and package."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for dimensions, batch_size, steps in GRIDS:
        for name in ("crystalgfn", "torchgfn"):
            start = time.process_time()
            if name == "torchgfn":
                error = by_torchgfn(dimensions, batch_size, steps, options.seed)
            else:
                grid = HyperGrid(dimensions, HEIGHT)
                error = hypergrid(grid, TrajectoryBalance(), steps, batch_size, width=WIDTH).error
            seconds = time.process_time() - start
            print(
                f"{HEIGHT}^{dimensions}, {steps * batch_size} trajectories, {name}: L1 {error:.2g}, {seconds:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    run(main)
