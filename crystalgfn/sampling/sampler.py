"""Samplers: load, sample under constraints, exact likelihoods, diagnostics, save."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.envs.crystal import CrystalEnvironment
from crystalgfn.errors import CheckpointError, InvalidSpace, RewardError
from crystalgfn.gfn.config import TrainerConfig
from crystalgfn.gfn.diagnostics import Diagnostics, diagnose, log_mean_exp_of
from crystalgfn.gfn.objectives import DEFAULT
from crystalgfn.gfn.rollout import rollout, teacher_forced
from crystalgfn.gfn.scoring import log_forward
from crystalgfn.gfn.training import TrainingRun
from crystalgfn.policy.network import PolicyConfig, PolicyNetwork
from crystalgfn.rewards.base import Reward, evaluate
from crystalgfn.space.space import CrystalSpace
from crystalgfn.typing import Floats
from crystalgfn.utils import files
from crystalgfn.utils.files import write_aside

SHIPPED = files.SHIPPED / "samplers"
KIND = "crystalgfn sampler"
VERSION = 2  # 2: volumes are drawn relative to the typical one
BATCH = 4096  # crystals walked at a time
OVERSAMPLING = 8  # candidates for each crystal kept by importance resampling
LOW_ESS = 0.1
LOG_Z_POINTS = 33  # inverse temperatures at which a conditioned sampler knows its ln Z
LOG_Z_DRAWS = 4000  # crystals from which ln Z is estimated at the end of a training


class ResamplingWarning(UserWarning):
    """Importance resampling kept few distinct crystals."""


@dataclass(frozen=True)
class Resampling:
    """What importance resampling did: candidates drawn, their ESS / N, share of distinct crystals kept."""

    candidates: int
    ess: float
    distinct: float


class Sampler:
    """A policy in a space, with the reward that it was trained for.

    Args:
        space: what may be drawn.
        network: the policy.
        reward: ln R of crystals; None for an untrained sampler.
        omega: marginal of the number of elements, one share each from 1; None: the policy draws it.
        log_z: ln Z of each number of elements [K + 1], or of the whole [1]; of a conditioned sampler at evenly spaced
            inverse temperatures over ``betas``, [G, K + 1] or [G, 1].
        betas: range of the inverse temperatures of a conditioned sampler, in units of the reward's own; None: 1 alone.

    Attributes:
        resampling: what the last `sample(resample=True)` did.
    """

    def __init__(
        self,
        space: CrystalSpace,
        network: PolicyNetwork,
        reward: Reward | None = None,
        omega: tuple[float, ...] | None = None,
        log_z: torch.Tensor | None = None,
        betas: tuple[float, float] | None = None,
    ) -> None:
        self.space, self.network, self.reward, self.betas = space, network.eval(), reward, betas
        self.network.matrix_dtype = torch.float32  # whatever it was trained in: ln q is that of what is drawn
        self.omega = omega
        self.log_omega = None if omega is None else strata_weights(space, omega)
        self.log_z = torch.zeros(1, dtype=torch.float64) if log_z is None else log_z.detach().double()
        self.device = next(network.parameters()).device
        self.resampling: Resampling | None = None
        self._environments: dict[CrystalSpace, CrystalEnvironment] = {}
        self._exact: PolicyNetwork | None = None

    # ---- construction -------------------------------------------------------------------------------------------

    @classmethod
    def untrained(
        cls,
        space: CrystalSpace | None = None,
        seed: int = 0,
        omega: tuple[float, ...] | None = None,
        policy: PolicyConfig | None = None,
    ) -> Sampler:
        """A sampler whose choices are uniform among what the masks allow.

        Raises:
            InvalidSpace: shares that are negative, or none for the numbers of elements of the space.
        """
        space = space or CrystalSpace()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = PolicyNetwork.for_environment(policy or PolicyConfig(), CrystalEnvironment(space))
        return cls(space, network, omega=omega)

    def to(self, device: torch.device | str) -> Sampler:
        """The same sampler on a device."""
        reward = self.reward
        if hasattr(reward, "to"):
            reward = reward.to(device)
        return Sampler(
            self.space, copy.deepcopy(self.network).to(device), reward, self.omega, self.log_z.cpu(), self.betas
        )

    # ---- drawing ------------------------------------------------------------------------------------------------

    def narrow(self, space: CrystalSpace | dict[str, Any] | None) -> CrystalSpace:
        """The sampler's space intersected with a further constraint (another space, or constraints by name)."""
        if space is None:
            return self.space
        if isinstance(space, CrystalSpace):
            space = {f.name: getattr(space, f.name) for f in fields(space) if getattr(space, f.name) != f.default}
        return self.space.narrowed(**space)

    def sample(
        self,
        n: int,
        space: CrystalSpace | dict[str, Any] | None = None,
        beta: float | None = None,
        resample: bool = False,
        seed: int = 0,
    ) -> Crystals:
        """Draw crystals.

        Args:
            n: how many.
            space: a further constraint, intersected with the sampler's own; no retraining.
            beta: inverse temperature, for samplers conditioned on it: R to the power of beta over the reward's own
                beta (1 where it has none); None: the reward as it is.
            resample: draw 8 n candidates and keep n by importance weights R / q, which corrects what narrowing
                and imperfect training leave; see `resampling` for the ESS.
            seed: of the draws.

        Raises:
            EmptySpace: the constraint leaves nothing.
            InvalidSpace: a constraint that means nothing or cannot narrow the space, or a negative ``n``.
            RewardError: a ``beta`` that the sampler was not trained for, or resampling without a reward.
        """
        level = self._level(beta)
        if n < 0:
            raise InvalidSpace(f"n={n}: give a number of crystals of at least 0")
        generator = torch.Generator(device=self.device).manual_seed(seed)
        env = self._environment(self.narrow(space))
        if not resample:
            return self._draw(env, n, generator, level)
        candidates = self._draw(env, OVERSAMPLING * n, generator, level)
        log_weight = self.log_reward(candidates, beta) - self._log_prob(env, candidates, level)
        weight = torch.softmax(log_weight, 0)
        ess = float(1 / (weight.square().sum() * len(weight)))
        # systematic resampling: one draw, n evenly spaced positions on the cumulative weights
        positions = (torch.arange(n, device=self.device) + torch.rand(1, generator=generator, device=self.device)) / n
        kept = torch.searchsorted(weight.cumsum(0), positions.double()).clamp_max(len(weight) - 1)
        distinct = len(kept.unique()) / max(n, 1)
        self.resampling = Resampling(len(candidates), ess, distinct)
        if ess < LOW_ESS or distinct < 0.5:
            warnings.warn(
                f"resampling kept {distinct:.0%} distinct crystals (ESS/N {ess:.3f}): the sampler is far from its "
                "target in this space; fine-tune it there first, sampler.adapt(space, seconds=30)",
                ResamplingWarning,
                stacklevel=2,
            )
        order = torch.randperm(n, generator=generator, device=self.device)
        return candidates[kept[order]]

    def _draw(self, env: CrystalEnvironment, n: int, generator: torch.Generator, level: float | None) -> Crystals:
        parts = []
        for start in range(0, max(n, 1), BATCH):
            size = min(BATCH, n - start)
            condition = self._condition(size, level)
            parts.append(rollout(env, self.network, size, 0.0, self.log_omega, generator, False, condition).objects)
        return Crystals.cat(parts)

    # ---- likelihoods --------------------------------------------------------------------------------------------

    def log_prob(
        self, crystals: Crystals, space: CrystalSpace | dict[str, Any] | None = None, beta: float | None = None
    ) -> Floats:
        """Exact ln q under the reference measure, float64 [B]; -inf outside the (narrowed) space.

        The measure counts (space group, composition) and is Lebesgue's on the free lattice parameters, lengths as
        ln(length / Å), angles in units of 60 degrees.

        Raises:
            EmptySpace: the constraint leaves nothing.
            InvalidSpace: a constraint that means nothing or cannot narrow the space.
            RewardError: a ``beta`` that the sampler was not trained for.
        """
        level = self._level(beta)
        return self._log_prob(self._environment(self.narrow(space)), crystals, level)

    @torch.no_grad()
    def _log_prob(self, env: CrystalEnvironment, crystals: Crystals, level: float | None) -> torch.Tensor:
        if self._exact is None:
            self._exact = copy.deepcopy(self.network).double()
        crystals = crystals.to(self.device)
        parts = [torch.zeros(0, dtype=torch.float64, device=self.device)]
        omega = None if self.log_omega is None else self.log_omega.to(self.device)
        for start in range(0, len(crystals), BATCH):
            batch = crystals[start : start + BATCH]
            walked = teacher_forced(env, batch, len(batch), self._condition(len(batch), level))
            parts.append(log_forward(env, self._exact, walked, omega) - walked.log_backward)
        return torch.cat(parts)

    def log_reward(self, crystals: Crystals, beta: float | None = None) -> Floats:
        """ln R, float64 [B]; with strata ln(omega_k R / Z_k), so that ln q - log_reward is constant when perfect."""
        level = self._level(beta)
        if self.reward is None:
            raise RewardError("this sampler has no reward (untrained, or its reward could not be described in a file)")
        parts = [torch.zeros(0, dtype=torch.float64, device=self.device)]
        crystals = crystals.to(self.device)
        for start in range(0, len(crystals), BATCH):
            parts.append(evaluate(self.reward, crystals[start : start + BATCH]).double())
        log_reward = torch.cat(parts)
        if level is not None:
            log_reward = log_reward * level
        if self.log_omega is not None:
            k = crystals.n_elements
            log_reward = log_reward + (self.log_omega - self._log_z(level)).to(self.device)[k]
        return log_reward

    def diagnostics(
        self,
        n: int = 2000,
        space: CrystalSpace | dict[str, Any] | None = None,
        seed: int = 0,
        beta: float | None = None,
    ) -> Diagnostics:
        """ESS, ln Z, correlation and spread of ln w over ``n`` own samples, also for each number of elements.

        A rare crystal that the sampler draws far too seldom shows only in large samples, so ESS falls with ``n``.

        Raises:
            EmptySpace: the constraint leaves nothing.
            InvalidSpace: a constraint that means nothing or cannot narrow the space.
            RewardError: a sampler without a reward, or a ``beta`` that it was not trained for.
        """
        level = self._level(beta)
        env = self._environment(self.narrow(space))
        crystals = self._draw(env, n, torch.Generator(device=self.device).manual_seed(seed), level)
        return diagnose(self._log_prob(env, crystals, level), self.log_reward(crystals, beta), crystals.n_elements)

    def adapt(
        self, space: CrystalSpace | dict[str, Any], seconds: float = 30, seed: int = 0, progress: bool = False
    ) -> Sampler:
        """A sampler for a narrowed space: a short fine-tuning from this one, which stays as it is.

        Raises:
            EmptySpace: the constraint leaves nothing.
            InvalidSpace: a constraint that means nothing or cannot narrow the space, or that leaves only numbers of
                elements without a share.
            RewardError: a sampler without a reward.
            TrainingError: a loss that is not finite.
            ValueError: ``seconds`` that are not above 0.
        """
        if self.reward is None:
            raise RewardError("a sampler without a reward cannot be adapted; train one with cg.train")
        narrowed = self.narrow(space)
        env = self._environment(narrowed)
        omega = None if self.omega is None else strata_weights(narrowed, self.omega).to(self.device)
        trainer = TrainerConfig(
            seconds=seconds, batch_size=250, epsilon=0.02, tempered_fraction=0.0, betas=self.betas, progress=progress,
            device=str(self.device),
        )  # fmt: skip
        run = TrainingRun(
            env, copy.deepcopy(self.network), lambda c: evaluate(self.reward, c), DEFAULT,
            trainer, lambda c: c.n_elements, omega, seed,
        )  # fmt: skip
        run.fit()
        return Sampler.trained(narrowed, run, self.reward, self.omega)

    @classmethod
    def trained(
        cls, space: CrystalSpace, run: TrainingRun, reward: Reward | None, omega: tuple[float, ...] | None
    ) -> Sampler:
        """The sampler of a finished training; ln Z of its inverse temperatures are estimated from its own draws."""
        betas = run.trainer.betas
        sampler = cls(space, run.network, reward, omega, run.log_z.detach().cpu(), betas)
        if sampler.log_omega is None:
            return sampler
        if betas is None:
            sampler.log_z = sampler._estimated_log_z(None, sampler.log_z)
            return sampler
        start = torch.zeros(len(sampler.log_omega), dtype=torch.float64)
        grid = torch.linspace(*betas, LOG_Z_POINTS, dtype=torch.float64)
        sampler.log_z = torch.stack([sampler._estimated_log_z(float(level), start) for level in grid])
        return sampler

    def _estimated_log_z(self, level: float | None, start: torch.Tensor) -> torch.Tensor:
        """ln Z of each number of elements, from importance weights of ``LOG_Z_DRAWS`` draws, [K + 1].

        ``start`` stays where a number of elements was not drawn. What training knows of ln Z lags behind, and is a mean
        of ln w, not the ln of the mean.
        """
        env = self._environment(self.space)
        crystals = self._draw(env, LOG_Z_DRAWS, torch.Generator(device=self.device).manual_seed(0), level)
        log_reward = evaluate(self.reward, crystals).double() * (1.0 if level is None else level)
        log_weight = log_reward + self.log_omega.to(self.device)[crystals.n_elements]
        log_weight = log_weight - self._log_prob(env, crystals, level)
        out = start.clone()
        for k, value in log_mean_exp_of(log_weight, crystals.n_elements).items():
            out[k] = value
        return out

    def _environment(self, space: CrystalSpace) -> CrystalEnvironment:
        if space not in self._environments:
            if len(self._environments) >= 4:  # tables of large spaces take memory
                self._environments.pop(next(iter(self._environments)))
            self._environments[space] = CrystalEnvironment(space, self.device)
        return self._environments[space]

    @property
    def own_beta(self) -> float:
        """The reward's own inverse temperature; 1 where it has none."""
        return float(getattr(self.reward, "beta", 1.0))

    def check_beta(self, beta: float | None) -> None:
        """Refuse what `sample` would refuse.

        Raises:
            RewardError: an inverse temperature that the sampler was not trained for.
        """
        self._level(beta)

    def _level(self, beta: float | None) -> float | None:
        """An inverse temperature in units of the reward's own; None for a sampler that is not conditioned."""
        if self.betas is None:
            if beta is not None and beta != self.own_beta:
                raise RewardError(
                    f"beta={beta}: this sampler was trained at beta {self.own_beta:g} alone; train one for a range of "
                    "them, TrainerConfig(betas=(0, 1)) in units of the reward's own"
                )
            return None
        level = 1.0 if beta is None else beta / self.own_beta
        low, high = self.betas
        if not low - 1e-9 <= level <= high + 1e-9:
            raise RewardError(
                f"beta={beta}: this sampler was trained for beta from {low * self.own_beta:g} to "
                f"{high * self.own_beta:g}; choose one in between"
            )
        return level

    def _condition(self, n: int, level: float | None) -> torch.Tensor | None:
        if level is None:
            return None
        return torch.full((n,), level, dtype=torch.float64, device=self.device)

    def _log_z(self, level: float | None) -> torch.Tensor:
        """ln Z of each number of elements [K + 1], between the points of the grid by straight lines."""
        if level is None or self.betas is None:
            return self.log_z
        low, high = self.betas
        position = (level - low) / (high - low) * (len(self.log_z) - 1)
        left = min(int(position), len(self.log_z) - 2)
        return torch.lerp(self.log_z[left], self.log_z[left + 1], position - left)

    # ---- files --------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write ``weights.safetensors`` and ``config.json`` into a folder (aside, then renamed)."""
        folder = Path(folder)
        reward = None
        if self.reward is not None and hasattr(self.reward, "config"):
            reward = self.reward.config()
        tensors = {f"network.{k}": v.detach().cpu().contiguous() for k, v in self.network.state_dict().items()}
        tensors["log_z"] = self.log_z.cpu()
        config = {
            "kind": KIND,
            "version": VERSION,
            "space": self.space.to_dict(),
            "policy": asdict(self.network.config),
            "omega": self.omega,
            "betas": self.betas,
            "reward": reward,
        }
        write_aside(folder / "weights.safetensors", lambda path: save_file(tensors, path))
        write_aside(folder / "config.json", lambda path: path.write_text(json.dumps(config, indent=2) + "\n"))

    @classmethod
    def load(cls, source: str | Path, device: torch.device | str = "cpu", reward: Reward | None = None) -> Sampler:
        """A saved sampler from its folder, or a shipped one by name.

        Args:
            source: folder with ``config.json`` and ``weights.safetensors``, or a name such as "formation-energy".
            device: where it shall run.
            reward: in place of the saved one (needed for rewards that could not be described in a file).

        Raises:
            CheckpointError: missing, truncated, foreign or of another version.
        """
        folder = Path(source)
        # a folder of that name that holds no sampler (a run's, say) does not hide the shipped one
        if not (folder / "config.json").exists() and (SHIPPED / str(source)).is_dir():
            folder = SHIPPED / str(source)
        if not (folder / "config.json").exists():
            names = ", ".join(sorted(p.name for p in SHIPPED.glob("*") if p.is_dir())) if SHIPPED.exists() else ""
            raise CheckpointError(
                f"there is no sampler {source!s}: give a folder with config.json and weights.safetensors"
                + (f", or a shipped name ({names})" if names else "")
            )
        try:
            config = json.loads((folder / "config.json").read_text())
            kind, version = config["kind"], config["version"]
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{folder / 'config.json'} is not the config of a crystalgfn sampler") from error
        if kind != KIND or version != VERSION:
            raise CheckpointError(f"{folder} holds a {kind} of version {version}; this is {KIND} version {VERSION}")
        space = CrystalSpace(**config["space"])
        network = PolicyNetwork.for_environment(PolicyConfig(**config["policy"]), CrystalEnvironment(space))
        try:
            tensors = load_file(folder / "weights.safetensors")
            log_z = tensors.pop("log_z")
            network.load_state_dict({k.removeprefix("network."): v for k, v in tensors.items()})
        except Exception as error:
            raise CheckpointError(
                f"{folder / 'weights.safetensors'} is missing, truncated or of another sampler; copy the folder anew"
            ) from error
        if reward is None and config["reward"] is not None:
            from hydra.utils import instantiate

            reward = instantiate(config["reward"], _convert_="all")
        omega = None if config["omega"] is None else tuple(config["omega"])
        betas = None if config.get("betas") is None else tuple(config["betas"])
        sampler = cls(space, network, reward, omega, log_z, betas)
        return sampler if torch.device(device).type == "cpu" else sampler.to(device)


def strata_weights(space: CrystalSpace, omega: tuple[float, ...]) -> torch.Tensor:
    """ln of the marginal of each number of elements, float64 [K + 1], over those that the space has.

    Raises:
        InvalidSpace: shares that are negative, or none for the numbers of elements of the space.
    """
    k_max = space.n_elements[1]
    if len(omega) < k_max or any(not w >= 0 for w in omega):
        raise InvalidSpace(f"strata={list(omega)}: give one share of at least 0 for each of 1 to {k_max} elements")
    possible = np.zeros(k_max + 1, dtype=bool)
    table = space.tables
    possible[np.unique(table.composition.n_elements[table.allowed.any(0)])] = True
    weights = np.concatenate([[0.0], omega[:k_max]]) * possible
    if weights.sum() <= 0:
        raise InvalidSpace(f"strata={list(omega)} give no share to the numbers of elements that the space has")
    with np.errstate(divide="ignore"):
        return torch.from_numpy(np.log(weights / weights.sum()))


def given_strata(strata: Sequence[float] | str | None) -> tuple[float, ...] | None:
    """Shares as they may be given: numbers, "default" for those of the shipped samplers, or None.

    Raises:
        InvalidSpace: another word.
    """
    if isinstance(strata, str):
        if strata != "default":
            raise InvalidSpace(f"strata={strata!r}: give shares, 'default' or null")
        return shipped_strata()
    return None if strata is None else tuple(float(share) for share in strata)


def shipped_strata() -> tuple[float, ...]:
    """The marginal of 1 to 5 elements in the shipped samplers (about that of real crystals)."""
    return (0.02, 0.23, 0.40, 0.25, 0.10)
