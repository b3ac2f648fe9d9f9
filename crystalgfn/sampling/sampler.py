"""Samplers: sample under constraints, exact likelihoods, diagnostics."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.envs.crystal import CrystalEnvironment
from crystalgfn.errors import CheckpointError, InvalidSpace, RewardError, check_kind, check_seed
from crystalgfn.gfn.diagnostics import Diagnostics, diagnose
from crystalgfn.policy.network import PolicyConfig, PolicyNetwork
from crystalgfn.properties.base import moved
from crystalgfn.rewards.base import Reward, check_space, evaluate
from crystalgfn.sampling import proportions, sampler_files
from crystalgfn.sampling.display import SamplerDisplay
from crystalgfn.sampling.proportions import BATCH, Adaptation, Draws, Resampling, ResamplingWarning, keep
from crystalgfn.sampling.strata import interpolated, level_of, strata_weights
from crystalgfn.space.space import CrystalSpace
from crystalgfn.typing import Floats
from crystalgfn.utils.distributed import usable_device


class Sampler(SamplerDisplay):
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
        adaptation, adapted: what the last `sample(adapt="auto")` did; the samplers that were made so.
    """

    def __init__(
        self,
        space: CrystalSpace,
        network: PolicyNetwork,
        reward: Reward | None = None,
        *,
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
        self.adaptation: Adaptation | None = None
        self.adapted: dict[Any, tuple[Sampler, Adaptation]] = {}
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
        env = CrystalEnvironment(space)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(space, PolicyNetwork.for_environment(policy or PolicyConfig(), env), omega=omega)

    def to(self, device: torch.device | str) -> Sampler:
        """The same sampler on a device (ConfigurationError: there is none of the name)."""
        usable_device(device)
        reward, network = moved(self.reward, device), copy.deepcopy(self.network).to(device)
        return Sampler(self.space, network, reward, omega=self.omega, log_z=self.log_z.cpu(), betas=self.betas)

    # ---- drawing ------------------------------------------------------------------------------------------------

    def narrow(self, space: CrystalSpace | dict[str, Any] | None) -> CrystalSpace:
        """The sampler's space intersected with a further constraint (another space, or constraints by name).

        Raises:
            EmptySpace, InvalidSpace: the constraint leaves nothing, means nothing or cannot narrow the space.
            RewardError: a proxy of the reward knows nothing of what is left.
        """
        if space is None:
            return self.space
        if isinstance(space, CrystalSpace):
            space = {f.name: getattr(space, f.name) for f in fields(space) if getattr(space, f.name) != f.default}
        check_kind("space", space, Mapping, "a CrystalSpace, or constraints by name", InvalidSpace)
        narrowed = self.space.narrowed(**space)
        check_space(self.reward, narrowed)
        return narrowed

    def sample(
        self,
        n: int,
        space: CrystalSpace | dict[str, Any] | None = None,
        beta: float | None = None,
        resample: bool | str = False,
        seed: int = 0,
        tries: int = 1,
        adapt: bool | int | str = False,
    ) -> Crystals:
        """Draw crystals.

        Args:
            n: how many.
            space: a further constraint, intersected with the sampler's own; no retraining.
            beta: inverse temperature, for samplers conditioned on it: R to the power of beta over the reward's own
                beta (1 where it has none); None: the reward as it is.
            resample: correct by importance weights R / q what narrowing and imperfect training leave. True: keep n of
                8 n candidates, repeats among them. "auto": no repeats, of as many candidates as it takes until
                the kept ones are worth 90 % of their number (at most 64 n). See `resampling` for what it did.
            seed: of the draws.
            tries: lattices that are drawn for each composition; one is kept by its weight, see `proportions`.
            adapt: "auto", or a budget of steps (500) or seconds ("60s"): where the ESS in the space is below 30 %, a
                sampler that is fine-tuned there draws; it is kept for further calls. See `adaptation` for what it did.

        Raises:
            EmptySpace: the constraint leaves nothing.
            InvalidSpace: a constraint that means nothing or cannot narrow the space, or such an ``n`` or other number.
            RewardError: a ``beta`` that the sampler was not trained for, or resampling or tries without a reward.
        """
        check_seed(seed, InvalidSpace)
        check_kind("n", n, int, "a whole number", InvalidSpace)
        proportions.check_draws(n, tries, resample)
        if adapt is not False:
            from crystalgfn.sampling.adaptation import adapted_to

            chosen = adapted_to(self, space, adapt, beta)
            drawn = chosen.sample(n, space if chosen is self else None, beta, resample, seed, tries)
            self.resampling = chosen.resampling
            return drawn
        draws = self._draws(space, beta)
        generator = torch.Generator(device=self.device).manual_seed(seed)
        if not resample and tries == 1:
            return draws.draw(n, generator)

        def weighted(size: int) -> tuple[Crystals, torch.Tensor]:
            return draws.weighted(size, tries, generator)

        if not resample:
            return weighted(n)[0]
        crystals, self.resampling = keep(weighted, n, resample == "auto", generator)
        if n and self.resampling.poor(resample == "auto"):
            warnings.warn(str(self.resampling), ResamplingWarning, stacklevel=2)
        return crystals

    def _draws(self, space: CrystalSpace | dict[str, Any] | None, beta: float | None) -> Draws:
        return Draws(
            env=self.environment(self.narrow(space)),
            network=self.network,
            exact=self._exactly,
            omega=self.log_omega,
            level=self.level(beta),
            log_reward=lambda crystals: self.log_reward(crystals, beta),
        )

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
        return self._draws(space, beta).log_prob(crystals)

    def _exactly(self) -> PolicyNetwork:
        """The policy in float64, for likelihoods."""
        if self._exact is None:
            self._exact = copy.deepcopy(self.network).double()
        return self._exact

    def log_reward(self, crystals: Crystals, beta: float | None = None) -> Floats:
        """ln R, float64 [B]; with strata ln(omega_k R / Z_k), so that ln q - log_reward is constant when perfect."""
        level = self.level(beta)
        if self.reward is None:
            raise RewardError("this sampler has no reward (untrained, or its reward could not be described in a file)")
        parts = [torch.zeros(0, dtype=torch.float64, device=self.device)]
        crystals = crystals.to(self.device)
        for start in range(0, len(crystals), BATCH):
            parts.append(evaluate(self.reward, crystals[start : start + BATCH]).double())
        log_reward = torch.cat(parts) * (1.0 if level is None else level)
        if self.log_omega is not None:
            log_z = self.log_z
            if level is not None and self.betas is not None:
                log_z = interpolated(log_z, self.betas, level)
            k = crystals.n_elements
            log_reward = log_reward + (self.log_omega - log_z).to(self.device)[k]
        return log_reward

    def diagnostics(
        self,
        n: int = 2000,
        space: CrystalSpace | dict[str, Any] | None = None,
        seed: int = 0,
        beta: float | None = None,
        tries: int = 1,
    ) -> Diagnostics:
        """ESS, ln Z, correlation and spread of ln w over ``n`` own samples, also for each number of elements.

        With ``tries`` lattices a composition the weights are those of `sample` with as many; ln q of a kept crystal is
        then ln R less the ln of its weight.

        A rare crystal that the sampler draws far too seldom shows only in large samples, so ESS falls with ``n``.

        Raises:
            EmptySpace: the constraint leaves nothing.
            InvalidSpace: a constraint that means nothing or cannot narrow the space.
            RewardError: a sampler without a reward, or a ``beta`` that it was not trained for.
        """
        draws = self._draws(space, beta)
        generator = torch.Generator(device=self.device).manual_seed(seed)
        if tries == 1:
            crystals = draws.draw(n, generator)
            return diagnose(draws.log_prob(crystals), self.log_reward(crystals, beta), crystals.n_elements)
        crystals, log_weight = draws.weighted(n, tries, generator)
        log_reward = self.log_reward(crystals, beta)
        return diagnose(log_reward - log_weight, log_reward, crystals.n_elements)

    def adapt(
        self,
        space: CrystalSpace | dict[str, Any],
        seconds: float = 30,
        seed: int = 0,
        progress: bool = False,
        steps: int | None = None,
    ) -> Sampler:
        """A sampler for a narrowed space: a short fine-tuning from this one, which stays as it is.

        A number of steps takes the place of ``seconds``, and is repeatable.

        Raises:
            EmptySpace: the constraint leaves nothing.
            InvalidSpace: a constraint that means nothing or cannot narrow, or leaves only strata without a share.
            RewardError: a sampler without a reward.
            TrainingError: a loss that is not finite.
            ValueError: ``seconds`` or ``steps`` that are not above 0.
        """
        from crystalgfn.sampling.adaptation import adapt

        return adapt(self, space, seconds, seed, progress, steps)

    def environment(self, space: CrystalSpace) -> CrystalEnvironment:
        """The environment of a space on this sampler's device; the last four are kept, for their tables."""
        if space not in self._environments:
            if len(self._environments) >= 4:  # tables of large spaces take memory
                self._environments.pop(next(iter(self._environments)))
            self._environments[space] = CrystalEnvironment(space, self.device)
        return self._environments[space]

    @property
    def own_beta(self) -> float:
        """The reward's own inverse temperature; 1 where it has none."""
        return float(getattr(self.reward, "beta", 1.0))

    def level(self, beta: float | None) -> float | None:
        """An inverse temperature in units of the reward's own; None for a sampler that is not conditioned.

        Raises:
            RewardError: an inverse temperature that the sampler was not trained for.
        """
        return level_of(beta, self.betas, self.own_beta)

    # ---- files --------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write ``weights.safetensors`` and ``config.json`` into a folder (aside, then renamed).

        Raises:
            CheckpointError: they cannot be written.
        """
        config: Any = getattr(self.reward, "config", None)
        config = config() if callable(config) else None
        sampler_files.write_sampler(
            folder,
            sampler_files.SavedSampler(
                space=self.space,
                policy=self.network.config,
                omega=self.omega,
                betas=self.betas,
                reward=config,
                log_z=self.log_z,
                network=self.network.state_dict(),
            ),
        )

    @classmethod
    def load(
        cls,
        source: str | Path,
        device: torch.device | str = "cpu",
        reward: Reward | None = None,
        trust: Sequence[str] = (),
    ) -> Sampler:
        """A saved sampler from its folder, or a shipped one by name.

        No code that the folder names runs, but the package's own rewards, those of installed packages (entry points)
        and what ``trust`` names.

        Args:
            source: folder with ``config.json`` and ``weights.safetensors``, or a name such as "formation-energy".
            device: where it shall run.
            reward: in place of the saved one (needed for rewards that could not be described in a file).
            trust: modules ("my_rewards") or dotted names whose code the saved reward may run.

        Raises:
            CheckpointError: missing, damaged, foreign or of another version.
            NotTrusted: a reward with other code.
        """
        folder, saved = sampler_files.read_sampler(source)
        env = CrystalEnvironment(saved.space)
        try:
            network = PolicyNetwork.for_environment(saved.policy, env)
            network.load_state_dict(saved.network)
        except (RuntimeError, TypeError) as error:
            raise CheckpointError(f"the weights of {folder} are of another sampler; copy the folder anew") from error
        if reward is None and saved.reward is not None:
            reward = sampler_files.built_reward(saved.reward, folder, trust)
        own = cls(saved.space, network, reward, omega=saved.omega, log_z=saved.log_z, betas=saved.betas)
        return own if str(device) == "cpu" else own.to(device)
