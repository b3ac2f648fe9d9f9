"""The hypergrid (Bengio et al. 2021): paths merge, every cell can stop; a check of the objectives on a known target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from crystalgfn.envs.base import Discrete, Environment, Head, Observation, Options
from crystalgfn.typing import RowIndex


@dataclass
class GridState:
    """Positions [B, d], whether a trajectory has stopped [B], and ln P_B summed along it [B]."""

    position: torch.Tensor
    stopped: torch.Tensor
    log_backward: torch.Tensor


class HyperGrid(Environment[GridState, torch.Tensor]):
    """Start at 0, increase one coordinate at a time, stop anywhere; P_B is uniform over parents.

    Args:
        dimensions: d.
        height: cells along each dimension.
    """

    def __init__(self, dimensions: int, height: int) -> None:
        if dimensions < 1 or height < 2:
            raise ValueError(f"dimensions={dimensions}, height={height}: give at least 1 dimension of height 2")
        self.dimensions, self.height = dimensions, height
        self.device = torch.device("cpu")
        self.vocabulary = dimensions * height
        self.heads = {"move": Head(name="move", size=dimensions + 1)}

    def log_reward(self, position: torch.Tensor) -> torch.Tensor:
        """ln R of positions [B, d] (Bengio et al. 2021, section 4.1), float64 [B]."""
        x = (position.double() / (self.height - 1) - 0.5).abs()
        reward = 0.1 + 0.5 * (x > 0.25).all(1) + 2.0 * ((x > 0.3) & (x < 0.4)).all(1)  # floor, corners, modes
        return reward.log()

    def cells(self) -> torch.Tensor:
        """All positions, [height ** d, d], in lexicographic order."""
        axis = torch.arange(self.height, device=self.device)
        return torch.cartesian_prod(*[axis] * self.dimensions).view(-1, self.dimensions)

    def initial(self, n: int) -> GridState:
        """``n`` trajectories at 0."""
        return GridState(
            torch.zeros(n, self.dimensions, dtype=torch.int64, device=self.device),
            torch.zeros(n, dtype=torch.bool, device=self.device),
            torch.zeros(n, dtype=torch.float64, device=self.device),
        )

    def turns(self, state: GridState) -> Iterator[tuple[str, RowIndex]]:
        """One move of every trajectory that has not stopped, until all have."""
        while not bool(state.stopped.all()):
            yield "move", (~state.stopped).nonzero().flatten()

    def options(self, state: GridState, head: str, rows: RowIndex) -> Options:
        """Coordinates below the end, and stopping (the last action)."""
        grow = state.position[rows] < self.height - 1
        return Discrete(torch.cat([grow, torch.ones_like(grow[:, :1])], 1))

    def observe(self, state: GridState, head: str, rows: RowIndex) -> Observation:
        """One-hot coordinates."""
        return self.observation_of(state.position[rows])

    def observation_of(self, position: torch.Tensor) -> Observation:
        """The observation of positions [rows, d]."""
        index = position + self.height * torch.arange(self.dimensions, device=self.device)
        return Observation(index, torch.ones_like(index, dtype=torch.float32))

    def apply(self, state: GridState, head: str, rows: RowIndex, action: torch.Tensor) -> None:
        """Grow or stop."""
        stop = action == self.dimensions
        state.stopped[rows[stop]] = True
        moved = rows[~stop]
        state.position[moved, action[~stop]] += 1
        parents = (state.position[moved] > 0).sum(1)
        state.log_backward[moved] -= parents.double().log()

    def objects(self, state: GridState) -> torch.Tensor:
        """Final positions [B, d]."""
        return state.position

    def replay(self, objects: torch.Tensor) -> torch.Tensor:
        """Targets [B, d]; `forced` orders the steps at random, which is a draw from the uniform P_B's paths."""
        return objects

    def forced(self, plan: torch.Tensor, state: GridState, head: str, rows: RowIndex) -> torch.Tensor:
        """A coordinate still to grow, with probability proportional to its steps left; stop at the target.

        Uniform over the orders of steps: not P_B's own distribution over paths, but any path to the object is a valid
        training trajectory.
        """
        left = (plan[rows] - state.position[rows]).clamp_min(0)
        done = left.sum(1) == 0
        grow = torch.multinomial(torch.where(done[:, None], 1, left).double(), 1).squeeze(1)
        return torch.where(done, self.dimensions, grow)

    def log_backward(self, state: GridState) -> torch.Tensor:
        """ln P_B of the walked paths."""
        return state.log_backward

    def stop_probabilities(self, network: Any) -> torch.Tensor:
        """Exact distribution over final cells by pushing the flow through the grid, float64 [height ** d]."""
        cells = self.cells()
        state = self.initial(len(cells))
        state.position = cells
        rows = torch.arange(len(cells), device=self.device)
        with torch.no_grad():
            hidden = network.trunk(self.observation_of(cells))
            options = self.options(state, "move", rows)
            moves = network.distribution(self.heads["move"], hidden, options).logits.double().softmax(1)
        flow = torch.zeros(len(cells), dtype=torch.float64, device=self.device)
        flow[0] = 1.0
        strides = [self.height ** (self.dimensions - 1 - i) for i in range(self.dimensions)]
        total = cells.sum(1)
        for level in range(int(total.max()) + 1):
            here = (total == level).nonzero().flatten()
            for i, stride in enumerate(strides):
                grow = here[cells[here, i] < self.height - 1]
                flow.index_add_(0, grow + stride, flow[grow] * moves[grow, i])
        return flow * moves[:, -1]
