"""How near a trained sampler comes to distributions that are known: a small space, the hypergrid, lattice densities."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from math import log

import torch
from torch import nn

from crystalgfn.crystallography import elements, space_groups
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.lattice import in_domain
from crystalgfn.envs.hypergrid import HyperGrid
from crystalgfn.gfn.config import TrainerConfig
from crystalgfn.gfn.loggers import NoLogger
from crystalgfn.gfn.objectives import Objective, TrajectoryBalance
from crystalgfn.gfn.training import TrainingRun
from crystalgfn.policy.network import PolicyConfig, PolicyNetwork
from crystalgfn.sampling.sampler import Sampler
from crystalgfn.sampling.train import train
from crystalgfn.space.space import CrystalSpace
from crystalgfn.typing import Booleans, FeatureIndex, FeatureWeight, Floats, Hidden, Keys, Lattices, Points, RowValues
from crystalgfn.utils.provenance import markdown_table

#: Share of each (group, atoms of the space's elements ...).
Marginal = dict[tuple[int, ...], float]
CHUNK = 100_000
#: The small space, of 59 (group, composition) pairs.
SPACE = {"elements": ["Na", "Cl", "O"], "space_groups": [2, 166, 225], "n_atoms": (1, 6)}
#: Dimensions, trajectories a step, steps of the hypergrid's two figures; 8 cells along each dimension.
GRIDS = ((2, 16, 2000), (4, 50, 4000))


class SoftVolume:
    """ln R: a Gaussian in ln(volume per atom), and fewer atoms are better."""

    def __call__(self, crystals: Crystals) -> Floats:
        """ln R of each crystal."""
        return -0.5 * ((crystals.volume_per_atom.log() - 2.9) / 0.3) ** 2 - 0.2 * crystals.n_atoms


@dataclass(frozen=True, kw_only=True)
class SmallSpace:
    """A sampler against its target, marginals over (group, composition) with the lattice integrated out.

    Attributes:
        pairs: (group, composition) of the target.
        missing: of them, those that the sampler did not draw.
        variation: total variation between what was drawn and the target, by the sampler's exact weights.
        noise: total variation between that target and the one by an untrained sampler's weights.
        ess: effective sample size over n.
        log_z, log_z_error: from the sampler's weights, and its difference from the untrained sampler's.
        trained, seconds: crystals trained on, and how long that took.
    """

    pairs: int
    missing: int
    variation: float
    noise: float
    ess: float
    log_z: float
    log_z_error: float
    trained: int
    seconds: float


def small_space(
    seconds: float = 120,
    n: int = 400_000,
    seed: int = 0,
    policy: PolicyConfig | None = None,
    objective: Objective | None = None,
    trainer: TrainerConfig | None = None,
) -> SmallSpace:
    """Train in `SPACE` for ``seconds`` and compare ``n`` crystals with the target, and as many of an untrained sampler.

    The trainer's length and batch size are set here.
    """
    space = CrystalSpace(**SPACE)
    reward = SoftVolume()
    trainer = replace(
        trainer or TrainerConfig(), steps=None, seconds=seconds, batch_size=512, log_every=1, progress=False
    )
    start, counter = time.monotonic(), _Counted()
    sampler = train(space, reward, policy=policy, objective=objective, trainer=trainer, seed=seed, logger=counter)
    seconds = time.monotonic() - start
    drawn, own, log_z = marginals(sampler, reward, n)
    untrained = Sampler.untrained(space).to(sampler.device)
    _, independent, log_z_again = marginals(untrained, reward, n)
    return SmallSpace(
        pairs=len(independent),
        missing=len(set(independent) - set(drawn)),
        variation=variation(drawn, own),
        noise=variation(own, independent),
        ess=sampler.diagnostics(5000).ess,
        log_z=log_z,
        log_z_error=abs(log_z - log_z_again),
        trained=counter.steps * trainer.batch_size,
        seconds=seconds,
    )


class _Counted(NoLogger):
    """A logger that keeps the number of the last step only."""

    steps = 0

    def log(self, step: int, metrics: dict[str, float]) -> None:  # noqa: D102
        self.steps = step


def marginals(sampler: Sampler, reward: SoftVolume, n: int) -> tuple[Marginal, Marginal, float]:
    """Shares of the (group, composition) pairs among ``n`` draws, in the target by importance weights, and its ln Z."""
    columns = [z - 1 for z in sampler.space.element_numbers]
    keys, log_weights = [], []
    for seed, start in enumerate(range(0, n, CHUNK)):
        crystals = sampler.sample(min(CHUNK, n - start), seed=seed)
        keys.append(torch.cat([crystals.space_group[:, None], crystals.composition[:, columns]], 1))
        log_weights.append(reward(crystals) - sampler.log_prob(crystals))
    key, log_weight = torch.cat(keys), torch.cat(log_weights)
    weight = torch.softmax(log_weight, 0)
    log_z = float(log_weight.logsumexp(0)) - float(torch.tensor(float(n)).log())
    return marginal(key, torch.ones_like(weight)), marginal(key, weight), log_z


def marginal(keys: Keys, weights: Floats) -> Marginal:
    """Normalised weight of each key."""
    unique, inverse = torch.unique(keys, dim=0, return_inverse=True)
    total = torch.zeros(len(unique), dtype=weights.dtype, device=weights.device).index_add(0, inverse, weights)
    return {tuple(k): w for k, w in zip(unique.tolist(), (total / total.sum()).tolist(), strict=True)}


def variation(one: Marginal, other: Marginal) -> float:
    """Total variation of two distributions."""
    return sum(abs(one.get(k, 0.0) - other.get(k, 0.0)) for k in set(one) | set(other)) / 2


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The hypergrid after training.

    Attributes:
        dimensions, height: its size.
        trajectories: trained on.
        error: L1 distance from the target, by exact flow pushing.
        log_z_error: learned minus exact.
    """

    dimensions: int
    height: int
    trajectories: int
    error: float
    log_z_error: float


class GridPolicy(PolicyNetwork):
    """A plain perceptron as trunk: one-hot coordinates, two hidden layers of rectified linear units, float32.

    With the trunk of crystals (LayerNorm, residual blocks that start as the identity) L1 on 8² ends near 3e-4, since
    neither Muon's steps nor those of Adam with a short memory shrink with the gradient.
    """

    def __init__(self, width: int, env: HyperGrid) -> None:
        super().__init__(PolicyConfig(width=width, blocks=0), env.vocabulary, env.heads)
        first = nn.Linear(env.vocabulary, width)
        self.embedding.weight.data, self.bias = first.weight.data.t().contiguous(), first.bias
        self.second = nn.Linear(width, width)
        for weights in self.heads.parameters():  # which start at 0 for crystals: slower here
            nn.init.uniform_(weights, -(width**-0.5), width**-0.5)

    def hidden(self, index: FeatureIndex, weight: FeatureWeight, condition: RowValues | None = None) -> Hidden:
        """Hidden vectors of sparse vectors; there are no conditions."""
        x = self.embedding(index, per_sample_weights=weight.to(self.embedding.weight.dtype)) + self.bias
        return self.second(x.relu()).relu()


def hypergrid(
    env: HyperGrid,
    objective: Objective,
    steps: int,
    batch_size: int = 16,
    width: int = 128,
    trainer: TrainerConfig | None = None,
) -> Grid:
    """Train on the hypergrid by a fixed recipe over a trainer's settings, and push the flow through all cells."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = GridPolicy(width, env)
    trainer = replace(
        trainer or TrainerConfig(), steps=steps, seconds=None, batch_size=batch_size, learning_rate=3e-3, epsilon=0.0,
        second_moment=0.999, gradient_clip=10.0, device=str(env.device), progress=False,
    )  # fmt: skip
    run = TrainingRun(env, network, env.log_reward, objective, trainer, seed=0)
    run.fit()
    target = env.log_reward(env.cells()).exp()
    error = (env.stop_probabilities(network) - target / target.sum()).abs().sum()
    return Grid(
        dimensions=env.dimensions,
        height=env.height,
        trajectories=steps * batch_size,
        error=float(error),
        log_z_error=float(run.log_z.detach()[0] - target.sum().log()),
    )


def hypergrids(steps: int | None = None, trainer: TrainerConfig | None = None) -> list[Grid]:
    """Both of `GRIDS`, plain trajectory balance; ``steps`` in place of theirs for a quick look."""
    return [
        hypergrid(HyperGrid(dimensions, 8), TrajectoryBalance(), steps or own, size, width=256, trainer=trainer)
        for dimensions, size, own in GRIDS
    ]


@dataclass(frozen=True)
class GridDensity:
    """The mass of an arbitrary policy's lattice density in one group."""

    space_group: int
    free: int
    points: int
    mass: float


def densities() -> list[GridDensity]:
    """Quadrature of the density of randomly disturbed policies, in groups with one to three free lengths."""
    policy = PolicyConfig(width=32, blocks=1, components=3)
    found = []
    for number, counts, free, log2_n in CASES:
        sampler = disturbed(Sampler.untrained(cell_space(number, counts), policy=policy), 0.05)
        found.append(GridDensity(number, free, 2**log2_n, density_mass(sampler, number, counts, free, log2_n)))
    return found


def disturbed(sampler: Sampler, scale: float, seed: int = 0) -> Sampler:
    """The sampler with noise added to all weights, in place: a policy with no symmetry that could hide an error."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in sampler.network.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return sampler


def exactness_tables(small: SmallSpace, grids: list[Grid], masses: list[GridDensity]) -> str:
    """All figures as Markdown."""
    first = markdown_table(
        ("pairs", "not drawn", "total variation", "of two targets", "ESS / N", "ln Z", "its error", "trained", "s"),
        [tuple(asdict(small).values())],
    )
    second = markdown_table(
        ("hypergrid", "trajectories", "L1", "ln Z error"),
        [(f"{g.height}^{g.dimensions}", g.trajectories, g.error, g.log_z_error) for g in grids],
    )
    third = markdown_table(
        ("space group", "free lengths", "points", "mass - 1"),
        [(d.space_group, d.free, d.points, d.mass - 1) for d in masses],
    )
    return (
        f"Small space: drawn against the target over (group, composition)\n\n{first}\n\nHypergrid\n\n{second}\n\n"
        f"Lattice densities, integrated\n\n{third}"
    )


LOW, HIGH = log(2.5), log(9.0)
#: The space that the density is integrated in, but for its group and number of atoms.
CELLS = {"elements": ["Na", "Cl"], "n_elements": (2, 2), "lengths": (2.5, 9.0), "volume_per_atom": (12.0, 30.0)}
#: Group, atoms, free parameters, log2 of the number of points.
CASES = (
    (225, {"Na": 1, "Cl": 1}, 1, 13),
    (194, {"Na": 2, "Cl": 2}, 2, 17),
    (123, {"Na": 1, "Cl": 1}, 2, 17),
    (62, {"Na": 4, "Cl": 4}, 3, 16),
    (61, {"Na": 8, "Cl": 8}, 3, 16),
)


def density_mass(sampler: Sampler, number: int, counts: dict[str, int], free: int, log2_n: int) -> float:
    """The integral of q over the lattices of one group and composition: 1, or the likelihoods are wrong.

    Nothing but `Sampler.log_prob` is used. Where an interval closes (an edge of the ratios' polygon) the density has an
    integrable spike, which sets the accuracy in two and three dimensions.

    The sampler is one in `cell_space` of the same group (orthorhombic or higher, with ``free`` free lengths) and counts
    of atoms in the primitive cell; ``2**log2_n`` points are taken.
    """
    points, size = _points(2**log2_n, number, counts, free)
    total = 0.0
    for part in points.split(100_000):
        found = grid_crystals(number, counts, _cell(number, part))
        inside = found[_within(found)]
        total += float(sampler.log_prob(inside).exp().sum()) * size
    return total


def cell_space(number: int, counts: dict[str, int]) -> CrystalSpace:
    """All cells of one group and number of atoms."""
    total = sum(counts.values())
    return CrystalSpace(**CELLS, space_groups=(number,), n_atoms=(total, total))


def grid_crystals(number: int, counts: dict[str, int], lattice: Lattices) -> Crystals:
    """Crystals of one group and composition with given lattices [B, 6]."""
    composition = torch.zeros(len(lattice), 118, dtype=torch.int64)
    for symbol, n in counts.items():
        composition[:, elements.NUMBER[symbol] - 1] = n
    return Crystals(torch.full((len(lattice),), number), composition, lattice)


def _points(n: int, number: int, counts: dict[str, int], free: int) -> tuple[Points, float]:
    """Low-discrepancy ln-lengths [n, free] that fill the allowed volumes, and the measure that each stands for.

    Drawn as axis ratios and ln of the cell volume, from which the ln-lengths follow linearly with Jacobian 1/3.
    """
    x = torch.quasirandom.SobolEngine(free, scramble=True, seed=0).draw(n, dtype=torch.float64)
    width = HIGH - LOW
    ratios = width * (2 * x[:, :-1] - 1)
    atoms = sum(counts.values()) * int(space_groups.CENTRING[number - 1])
    low, high = (log(v * atoms) for v in CELLS["volume_per_atom"])
    sigma = low + (high - low) * x[:, -1] - (log(0.75**0.5) if number in range(143, 195) else 0)
    if free == 1:
        lengths = sigma[:, None] / 3
    elif free == 2:  # a = b, v = ln(a / c)
        lengths = torch.stack([sigma + ratios[:, 0], sigma - 2 * ratios[:, 0]], 1) / 3
    else:
        u, v = ratios.unbind(1)
        lengths = torch.stack([sigma + 2 * u + v, sigma - u + v, sigma - u - 2 * v], 1) / 3
    return lengths, (2 * width) ** (free - 1) * (high - low) / 3 / n


def _cell(number: int, x: Points) -> Lattices:
    """Cells from ln-lengths [n, free]."""
    right = torch.full((len(x), 1), 90.0, dtype=torch.float64)
    length = x.exp()
    gamma = right + 30 if number in range(143, 195) else right
    if number >= 195:
        lengths = length.expand(-1, 3)
    elif number >= 75:
        lengths = torch.stack([length[:, 0], length[:, 0], length[:, 1]], 1)
    else:
        lengths = length
    return torch.cat([lengths, right, right, gamma], 1)


def _within(x: Crystals) -> Booleans:
    """The limits of `CELLS` without the tolerances of `contains`."""
    per_atom = x.volume_per_atom
    inside = (per_atom >= CELLS["volume_per_atom"][0]) & (per_atom <= CELLS["volume_per_atom"][1])
    inside &= (x.lattice[:, :3] >= CELLS["lengths"][0]).all(1) & (x.lattice[:, :3] <= CELLS["lengths"][1]).all(1)
    return inside & in_domain(x.space_group, x.lattice, 0.0, 1e-9)
