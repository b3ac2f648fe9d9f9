"""How long, how fast and from what to train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from crystalgfn.errors import ConfigurationError

OPTIMIZERS = ("adam", "muon")
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """The settings of a training.

    Attributes:
        steps: optimiser steps; None with ``seconds``.
        seconds: wall-clock time instead of steps (the schedules follow the clock, so such a run is not repeatable).
        batch_size: trajectories a step, of all sources, processes and parts together.
        accumulate: parts that a process takes its share of a batch in, so that less memory is needed.
        learning_rate: of the network, with cosine decay to 0.
        log_z_learning_rate: of ln Z, likewise.
        optimizer: "muon" (Jordan et al. 2024) for the trunk's matrices and Adam (Kingma & Ba 2014) for all else, or
            "adam" for everything.
        muon_learning_rate: of the matrices under "muon".
        second_moment: what Adam keeps of the mean square of the gradient from one step to the next, from 0 to below 1.
            0.99 forgets in 100 steps; 0.999 lets steps shrink with the gradient where the target can be met exactly.
        precision: in what the trunk multiplies matrices while training, "bfloat16" or "float32". Samplers always
            multiply in float32.
        epsilon: share of uniform moves, decaying linearly to 0. A crystal has up to 20 moves, so one in twenty spoils
            most crystals; ``tempered_fraction`` is for what is drawn too seldom.
        tempered_fraction: share of the samples that come from a flattened policy: choices that it would hardly make.
        inverse_temperature: such samples take probabilities to a power between this and 1.
        replay_fraction: share of a batch that is replayed.
        replay_size: crystals kept for replay.
        replay_bound: replayed crystals are sampled by their weights R / (Z q), held to exp(+-bound); 0: all alike.
        real_fraction: share of a batch drawn from given real crystals.
        betas: range of the inverse temperatures of a conditioned sampler, in units of the reward's own; None: 1 alone.
        gradient_clip: largest L2 norm of the gradient, over all weights together (not ln Z).
        checkpoint_seconds: seconds between checkpoints.
        log_every: steps between records.
        device: where to train.
        progress: show a progress bar.

    Raises:
        ValueError: both steps and seconds, a number or share outside its limits, shares that leave nothing to draw, an
            unknown optimizer or precision, replay with ``betas``, or a batch that cannot be taken in ``accumulate``
            equal parts.
    """

    steps: int | None = None
    seconds: float | None = None
    batch_size: int = 500
    accumulate: int = 1
    learning_rate: float = 2e-3
    log_z_learning_rate: float = 0.1
    optimizer: str = "muon"
    muon_learning_rate: float = 0.03
    second_moment: float = 0.99
    precision: str = "bfloat16"
    epsilon: float = 0.0
    tempered_fraction: float = 0.05
    inverse_temperature: float = 0.2
    replay_fraction: float = 0.0
    replay_size: int = 20_000
    replay_bound: float = 2.0
    real_fraction: float = 0.0
    betas: tuple[float, float] | None = None
    gradient_clip: float = 1.0
    checkpoint_seconds: float = 60.0
    log_every: int = 10
    device: str = "cpu"
    progress: bool = True

    def __post_init__(self) -> None:
        if self.steps is None and self.seconds is None:
            object.__setattr__(self, "steps", 2000)
        if self.betas is not None:
            object.__setattr__(self, "betas", _checked_betas(self.betas))
        self._check_ranges()
        self._check_combinations()

    def _check_ranges(self) -> None:
        self._check_above_0()
        for name in ("second_moment", "epsilon", "tempered_fraction", "replay_fraction", "real_fraction"):
            if not _within(getattr(self, name), low=0, below=1):
                raise ConfigurationError(f"trainer {name}={getattr(self, name)}: give a share from 0 to below 1")
        for name in ("replay_bound", "checkpoint_seconds"):
            if not _within(getattr(self, name), low=0):
                raise ConfigurationError(f"trainer {name}={getattr(self, name)}: give a number of at least 0")
        power = self.inverse_temperature
        if not (_within(power, above=0) and power <= 1):
            raise ConfigurationError(f"trainer inverse_temperature={power}: give a power above 0 and at most 1")
        self._check_choices()

    def _check_above_0(self) -> None:
        given = {name: getattr(self, name) for name in _ABOVE_0 if getattr(self, name) is not None}
        for name, value in given.items():
            if not _within(value, above=0):
                raise ConfigurationError(f"trainer {name}={value}: give a number above 0")
            if name in _WHOLE and int(value) != value:
                raise ConfigurationError(f"trainer {name}={value}: give a whole number above 0")

    def _check_choices(self) -> None:
        for name, known in (("optimizer", OPTIMIZERS), ("precision", PRECISIONS)):
            if getattr(self, name) not in known:
                raise ConfigurationError(f"trainer {name}={getattr(self, name)!r}: choose one of {', '.join(known)}")

    def _check_combinations(self) -> None:
        if self.steps is not None and self.seconds is not None:
            raise ConfigurationError(f"steps={self.steps} and seconds={self.seconds}: give one of them")
        if self.replay_fraction + self.real_fraction >= 1:
            raise ConfigurationError(
                f"replay_fraction={self.replay_fraction} and real_fraction={self.real_fraction} leave nothing to sample"
            )
        if self.betas is not None and self.replay_fraction:
            raise ConfigurationError("replay_fraction and betas do not go together: set replay_fraction=0")
        if self.batch_size % self.accumulate:
            raise ConfigurationError(
                f"batch_size={self.batch_size} cannot be taken in accumulate={self.accumulate} equal parts; "
                f"give a multiple of {self.accumulate}"
            )


_ABOVE_0 = (
    "steps", "seconds", "batch_size", "accumulate", "learning_rate", "log_z_learning_rate", "muon_learning_rate",
    "log_every", "gradient_clip", "replay_size",
)  # fmt: skip
_WHOLE = ("steps", "batch_size", "accumulate", "log_every", "replay_size")


def _within(value: Any, above: float = float("-inf"), low: float = float("-inf"), below: float = float("inf")) -> bool:
    """Whether it is a number in the limits, no NaN."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and above < value < below and value >= low


def _checked_betas(betas: Sequence[float]) -> tuple[float, ...]:
    checked = tuple(float(b) for b in betas)
    if len(checked) != 2 or not 0 <= checked[0] < checked[1]:
        raise ConfigurationError(f"trainer betas={list(betas)}: give two rising numbers from 0, such as [0, 1]")
    return checked


Trainer = TrainerConfig
"""The short name, `crystalgfn.Trainer`."""
