"""Trains a refiner on prepared orbits; needs no materials library, so it can run wherever torch does."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from crystalgfn.crystallography.orbit_batch import OrbitBatch
from crystalgfn.crystallography.orbits import OrbitStructure
from crystalgfn.errors import TrainingError
from crystalgfn.gfn.checkpoint import load_tensors, save_tensors
from crystalgfn.structures.refiner.diffusion import Diffusion
from crystalgfn.structures.refiner.network import ScoreNetwork
from crystalgfn.structures.refiner.refiner import DiffusionRefiner
from crystalgfn.utils import distributed
from crystalgfn.utils.files import path_of
from crystalgfn.utils.progress import Bar

CHECKPOINT = "checkpoint.pt"
KIND = "refiner training"


@dataclass(frozen=True, kw_only=True)
class RefinerSettings:
    """How to train a refiner.

    Attributes:
        epochs: passes over the crystals.
        batch: crystals a step and process.
        lr: highest learning rate; it rises over ``warmup`` steps and falls as a cosine to nothing.
        warmup: steps.
        weight_decay: of AdamW.
        clip: largest norm of the gradient.
        ema: how slowly the averaged weights, which are the result, follow.
        lattice_weight: of the lattice's loss beside that of the coordinates.
        width: of the network.
        layers: rounds of messages.
        radial: radial functions of distances.
        waves: radial functions of reciprocal vectors.
        cutoff: of distances, Å.
        kept: share of the crystals trained with their lattice kept.
        seed: of weights, order and noise.
        begin: a refiner whose weights to begin with, shipped or in a folder; None: random ones.

    Raises:
        TrainingError: a number outside its limits.
    """

    epochs: int = 150
    batch: int = 64
    lr: float = 1e-3
    warmup: int = 500
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.999
    lattice_weight: float = 0.3
    width: int = 128
    layers: int = 4
    radial: int = 24
    waves: int = 8
    cutoff: float = 6.0
    kept: float = 0.6
    seed: int = 0
    begin: str | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "lr", "width", "layers", "radial", "waves", "cutoff"):
            if not getattr(self, name) > 0:
                raise TrainingError(f"{name}={getattr(self, name)}: give a number above 0")
        for name in ("kept", "ema"):
            if not 0 <= getattr(self, name) <= 1:
                raise TrainingError(f"{name}={getattr(self, name)}: give a number from 0 to 1")

    def network(self) -> ScoreNetwork:
        """A new network."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return ScoreNetwork(self.width, self.layers, self.radial, self.waves, self.cutoff)

    def diffusion(self) -> Diffusion:
        """Its noise levels."""
        return Diffusion(kept=self.kept)

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step."""
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        return self.lr * rise * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))


@dataclass(kw_only=True)
class State:
    """Where a training stands: all that a checkpoint holds."""

    network: ScoreNetwork
    average: ScoreNetwork
    optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)

    def save(self, path: Path, settings: RefinerSettings, crystals: int) -> None:
        """Write the checkpoint, aside and then renamed."""
        parts = {name: getattr(self, name).state_dict() for name in ("network", "average", "optimizer")}
        counts = {"step": self.step, "seconds": self.seconds, "history": self.history, "crystals": crystals}
        save_tensors(path, KIND, {"settings": asdict(settings), **counts, **parts})

    def load(self, path: Path, settings: RefinerSettings, crystals: int) -> None:
        """Go on from a checkpoint.

        Raises:
            CheckpointError: it cannot be read.
            TrainingError: it is of other settings or other crystals.
        """
        state = load_tensors(path, KIND)
        known, given = state["settings"] | {"crystals": state["crystals"]}, asdict(settings) | {"crystals": crystals}
        for name, value in given.items():
            if known.get(name) != value:
                raise TrainingError(
                    f"{path} is of a training with {name}={known.get(name)}, not {value}; give what it was begun with, "
                    "or choose another folder"
                )
        for name in ("network", "average", "optimizer"):
            getattr(self, name).load_state_dict(state[name])
        self.step, self.seconds, self.history = state["step"], state["seconds"], state["history"]


def train_refiner(
    structures: Sequence[OrbitStructure],
    val: Sequence[OrbitStructure],
    settings: RefinerSettings,
    out: str | Path,
    minutes: float | None = None,
    device: str = "cpu",
    save_seconds: float = 120.0,
    progress: bool = False,
) -> bool:
    """Train, or go on where ``out`` holds a checkpoint; returns whether all epochs are done.

    The same whether it is interrupted or not, on one kind of device and with one number of processes.

    A checkpoint goes to the folder ``out`` every ``save_seconds`` and after ``minutes`` in this call, when the training
    stops; the loss on ``val`` is reported at each.

    Raises:
        TrainingError: nothing to train on, the checkpoint of another training, or a loss that is not finite.
        CheckpointError: a checkpoint that cannot be read or written.
    """
    if not structures or not val:
        raise TrainingError(f"{len(structures)} crystals to train on, {len(val)} to report on: give at least one each")
    path, began, saved = path_of(out, "out") / CHECKPOINT, time.monotonic(), time.monotonic()
    data = OrbitBatch.of(structures).to(device)
    checks = _by_size(OrbitBatch.of(val[:2048]), settings.batch)
    state = _start(settings, data, device)
    if path.exists():
        state.load(path, settings, len(structures))
    per_epoch = max(1, len(data) // (settings.batch * distributed.world_size()))
    steps, before = settings.epochs * per_epoch, state.seconds
    diffusion, bar = settings.diffusion(), _bar(progress, steps, state.step)
    sizes = (data.n_atoms * data.orbit_mask.sum(1)).cpu()
    for rows in _rows_of_steps(sizes, settings, state.step, per_epoch):
        loss = _step(state, diffusion, data[rows.to(device)], settings, settings.rate(state.step, steps))
        state.step += 1
        state.seconds = before + time.monotonic() - began
        bar(loss, state)
        late = minutes is not None and time.monotonic() - began > 60 * minutes
        due = time.monotonic() - saved > save_seconds or late or state.step == steps
        if _agreed(due):
            _record(state, diffusion, checks, loss, device, state.step / per_epoch)
            if distributed.rank() == 0:
                state.save(path, settings, len(structures))
            saved = time.monotonic()
        if _agreed(late):
            break
    return state.step >= steps


def load_state(path: Path, settings: RefinerSettings, crystals: int) -> State:
    """The state in a checkpoint; errors as `State.load`."""
    network, average = settings.network(), settings.network()
    state = State(network=network, average=average, optimizer=torch.optim.AdamW(network.parameters()))
    state.load(path, settings, crystals)
    return state


def _start(settings: RefinerSettings, data: OrbitBatch, device: str) -> State:
    network = settings.network().to(device)
    if settings.begin is None:
        network.fit_lattices(data)
    else:
        network.load_state_dict(_weights(settings.begin, network))
    average = settings.network().to(device).requires_grad_(False)
    average.load_state_dict(network.state_dict())
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    return State(network=network, average=average, optimizer=optimizer)


def _weights(name: str, network: ScoreNetwork) -> dict[str, torch.Tensor]:
    """Those to begin with."""
    known = DiffusionRefiner.load(name).network
    if known.shape != network.shape:
        raise TrainingError(f"the refiner {name} has {known.shape}, not {network.shape}; give it these")
    return known.state_dict()


def _rows_of_steps(sizes: torch.Tensor, settings: RefinerSettings, done: int, per_epoch: int) -> Iterator[torch.Tensor]:
    """The crystals of this process in each step that is left."""
    for epoch in range(done // per_epoch, settings.epochs):
        order = _order(sizes, settings, epoch)
        for at in range(max(0, done - epoch * per_epoch), per_epoch):
            yield order[at * distributed.world_size() + distributed.rank()]


def _order(sizes: torch.Tensor, settings: RefinerSettings, epoch: int) -> list[torch.Tensor]:
    """The batches of an epoch: crystals of about one size together, in random order, each at most once."""
    generator = _generator(settings.seed, 1, epoch)
    rough = sizes.double().log() + 0.2 * torch.rand(len(sizes), generator=generator, dtype=torch.float64)
    ranked = rough.argsort()
    n = min(settings.batch, len(ranked))
    # the rest sits out, small ones in one epoch, large ones in another
    start = int(torch.randint(0, len(ranked) % n + 1, (), generator=generator))
    batches = list(ranked[start : start + len(ranked) // n * n].split(n))
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def _generator(*key: int) -> torch.Generator:
    """Random numbers that depend on the key alone, so that a training that is resumed draws the same."""
    seed = 0
    for part in key:
        seed = (seed * 1_000_003 + part + 1) % (2**63 - 1)
    return torch.Generator().manual_seed(seed)


def _step(state: State, diffusion: Diffusion, batch: OrbitBatch, settings: RefinerSettings, rate: float) -> float:
    """One step of AdamW on the mean loss over all processes, which is returned."""
    generator = _generator(settings.seed, 2, state.step, distributed.rank())
    coordinates, lattices = diffusion.loss(state.network, batch, generator)
    loss = coordinates.mean() + settings.lattice_weight * lattices.mean()
    state.optimizer.zero_grad(set_to_none=False)
    loss.backward()
    parameters = list(state.network.parameters())
    if distributed.active():
        flat = torch.cat([(p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in parameters])
        parts = distributed.mean(flat).split([p.numel() for p in parameters])
        for p, part in zip(parameters, parts, strict=True):
            p.grad = part.view_as(p)
    value = float(distributed.mean(loss.detach()))
    if not math.isfinite(value):
        raise TrainingError(f"the loss is {value} at step {state.step}; begin again with a lower lr in another folder")
    torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.optimizer.step()
    keep = min(settings.ema, (state.step + 1) / (state.step + 10))
    with torch.no_grad():
        for mean, new in zip(state.average.parameters(), parameters, strict=True):
            mean.lerp_(new, 1 - keep)
    return value


def _by_size(data: OrbitBatch, batch: int) -> list[OrbitBatch]:
    order = (data.n_atoms * data.orbit_mask.sum(1)).argsort()
    return [data[rows] for rows in order.split(batch)]


@torch.no_grad()
def _record(
    state: State, diffusion: Diffusion, checks: list[OrbitBatch], loss: float, device: str, epoch: float
) -> None:  # fmt: skip
    """The averaged network's losses on crystals held out, always at the same noise."""
    totals, n, free = torch.zeros(2), 0, 0
    for i, batch in enumerate(checks):
        coordinates, lattices = diffusion.loss(state.average, batch.to(device), _generator(7, 3, i))
        totals += torch.stack([coordinates.sum(), lattices.sum()]).cpu()
        n, free = n + len(batch), free + int(batch.free_mask.any(2).any(1).sum())
    figures = {"val_coordinates": totals[0].item() / max(1, free), "val_lattice": totals[1].item() / n}
    state.history.append({"epoch": round(epoch, 3), "seconds": round(state.seconds), "loss": loss, **figures})


def _agreed(yes: bool) -> bool:
    """The first process's word, so that all do the same."""
    return bool(distributed.from_first(torch.tensor(float(yes)))) if distributed.active() else yes


def _bar(progress: bool, steps: int, done: int) -> Callable[[float, State], None]:
    """What shows how it goes: the mean loss of the last hundred steps."""
    if not progress or distributed.rank():
        return lambda loss, state: None
    bar, losses = Bar(total=steps, initial=done, unit="steps", description="training", file=sys.stderr), []

    def show(loss: float, state: State) -> None:
        losses.append(loss)
        del losses[:-100]
        val = f", val {state.history[-1]['val_coordinates']:.3f}" if state.history else ""
        bar.note(f"loss {sum(losses) / len(losses):.3f}{val}")
        bar.update()

    return show
