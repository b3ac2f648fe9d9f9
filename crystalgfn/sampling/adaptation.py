"""Fine-tuning of a sampler for a narrowed space, on demand or where its effective sample size asks for it."""

from __future__ import annotations

import copy
import re
import warnings
from dataclasses import dataclass
from typing import Any

from crystalgfn.envs.crystal import CrystalEnvironment
from crystalgfn.errors import InvalidSpace, RewardError
from crystalgfn.gfn.config import TrainerConfig
from crystalgfn.gfn.objectives import DEFAULT
from crystalgfn.gfn.training import TrainingRun
from crystalgfn.rewards.base import evaluate
from crystalgfn.sampling.proportions import LEAST_ESS, Adaptation, LowESSWarning
from crystalgfn.sampling.sampler import Sampler
from crystalgfn.sampling.strata import strata_weights
from crystalgfn.sampling.train import finished
from crystalgfn.space.space import CrystalSpace


@dataclass(frozen=True, kw_only=True)
class AdaptationConfig:
    """How a sampler is fine-tuned.

    Attributes:
        samples: that measure the ESS before and after.
        steps: of "auto".
        batch_size: trajectories a step.
        epsilon: share of uniform moves at the start.
    """

    samples: int = 1000
    steps: int = 300
    batch_size: int = 250
    epsilon: float = 0.02


CONFIG = AdaptationConfig()


def budget(given: bool | int | str) -> tuple[int | None, float | None, str]:
    """Steps or seconds of what a user asks for, and in words.

    Args:
        given: "auto", a number of steps, or seconds such as "60s".

    Raises:
        InvalidSpace: something else.

    Example:
        >>> budget("90s")
        (None, 90.0, '90 seconds')
        >>> budget(500)
        (500, None, '500 steps')
    """
    text = str(CONFIG.steps if given == "auto" or given is True else given)
    found = re.fullmatch(r"(\d+)|(\d+(?:\.\d+)?) ?s", text)
    if given is False or found is None or not float(found[1] or found[2]):
        raise InvalidSpace(f"adapt={given!r}: give auto, a number of steps such as 500, or seconds such as 60s")
    if found[1]:
        return int(text), None, f"{int(text)} steps"
    return None, float(found[2]), f"{float(found[2]):g} seconds"


def adapt(
    sampler: Sampler,
    space: CrystalSpace | dict[str, Any],
    seconds: float | None = 30,
    seed: int = 0,
    progress: bool = False,
    steps: int | None = None,
) -> Sampler:
    """A sampler for a narrowed space; see `crystalgfn.sampling.sampler.Sampler.adapt`."""
    reward = sampler.reward
    if reward is None:
        raise RewardError("a sampler without a reward cannot be adapted; train one with cg.train")
    narrowed = sampler.narrow(space)
    omega = None if sampler.omega is None else strata_weights(narrowed, sampler.omega).to(sampler.device)
    trainer = TrainerConfig(
        steps=steps, seconds=seconds if steps is None else None, batch_size=CONFIG.batch_size, epsilon=CONFIG.epsilon,
        tempered_fraction=0.0, betas=sampler.betas, progress=progress, device=str(sampler.device),
    )  # fmt: skip
    run = TrainingRun(
        CrystalEnvironment(narrowed, sampler.device),
        copy.deepcopy(sampler.network),
        lambda crystals: evaluate(reward, crystals),
        DEFAULT,
        trainer,
        stratum=lambda crystals: crystals.n_elements,
        log_omega=omega,
        seed=seed,
    )
    run.fit()
    return finished(narrowed, run, reward, sampler.omega)


def adapt_if_low(
    sampler: Sampler,
    space: CrystalSpace | dict[str, Any] | None,
    given: bool | int | str = "auto",
    beta: float | None = None,
    seed: int = 0,
    progress: bool = False,
) -> tuple[Sampler, Adaptation]:
    """The sampler itself where its ESS in a space is at least `LEAST_ESS`, else one adapted to it.

    Args:
        sampler: that is to sample.
        space: a further constraint.
        given: the budget, see `budget`.
        beta: inverse temperature, see `Sampler.sample`.
        seed: of the samples that measure the ESS, and of the training.
        progress: show the training.

    Raises:
        RewardError: a sampler without a reward, or a proxy that knows nothing of the space.
        EmptySpace: the constraint leaves nothing.
        InvalidSpace: a budget or constraint that means nothing.
    """
    steps, seconds, words = budget(given)
    before = sampler.diagnostics(CONFIG.samples, space, seed, beta).ess
    if before >= LEAST_ESS:
        return sampler, Adaptation(before=before)
    adapted = adapt(sampler, space or {}, seconds, seed, progress, steps)
    done = Adaptation(before=before, after=adapted.diagnostics(CONFIG.samples, None, seed, beta).ess, budget=words)
    if done.after is not None and done.after < LEAST_ESS:
        warnings.warn(str(done), LowESSWarning, stacklevel=3)
    return adapted, done


def adapted_to(
    sampler: Sampler, space: CrystalSpace | dict[str, Any] | None, given: bool | int | str, beta: float | None
) -> Sampler:
    """`adapt_if_low`, whose samplers are kept with the one that they were made of; it says what was done."""
    key = (sampler.narrow(space), given, beta)
    if key not in sampler.adapted:
        sampler.adapted[key] = adapt_if_low(sampler, space, given, beta)
    chosen, sampler.adaptation = sampler.adapted[key]
    return chosen
