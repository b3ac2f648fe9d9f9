"""What relaxations say of the predictions in one space: the residual, relaxed less predicted energy, by regression.

Two models of the residual r (eV/atom) of crystals with features x:

- `GaussianProcess`: r = b + f(x) + e, with b ~ N(0, bias²), f a Gaussian process with the covariance
  amplitude² exp(-|x - x'|² / (2 length²)), and e ~ N(0, noise²) (Rasmussen and Williams 2006, chapter 2);
- `BayesianLinear`: the same with f(x) = w·x and w ~ N(0, amplitude² / F) of F features, which for the activations of a
  network's last hidden layer is its Bayesian last layer (Snoek et al. 2015).

Hyperparameters are those of the largest posterior on a grid: marginal likelihood times a log-normal prior.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

FEWEST = 3
"""Residuals below which hyperparameters stay at the middle of their priors."""


@runtime_checkable
class Correction(Protocol):
    """A model of the residual of a prediction; it knows features alone, not what they are of."""

    name: str

    def fit(self, features: np.ndarray, residuals: np.ndarray) -> None:
        """Take all residuals that are known so far, eV/atom [N], with their features [N, F]; N may be 0."""

    def predict(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard error of the residuals of further crystals, eV/atom, each [B]; noise is included."""
        ...


@dataclass(frozen=True, kw_only=True)
class CorrectionConfig:
    """The grid and the priors of the hyperparameters, energies in eV/atom.

    Attributes:
        bias: standard deviation of a constant residual in the space.
        amplitudes: of the part that depends on the features.
        lengths: of the covariance, in units of the features.
        noises: of what no feature says.
        width: standard deviation of the logarithm of each in its prior; the median is the middle of the grid.
    """

    bias: float = 0.2
    amplitudes: tuple[float, ...] = (0.03, 0.06, 0.12, 0.25, 0.5)
    lengths: tuple[float, ...] = (0.35, 0.7, 1.4)
    noises: tuple[float, ...] = (0.01, 0.03, 0.06, 0.12, 0.25)
    width: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """Of the covariance bias² + amplitude² k(x, x' / length) + noise² [x is x']."""

    bias: float
    amplitude: float
    length: float
    noise: float


class _Regression:
    """Regression of residuals in closed form, for a kernel that a subclass gives."""

    def __init__(self, config: CorrectionConfig | None = None) -> None:
        self.config = config or CorrectionConfig()
        self.chosen = self._middle()
        self._x = np.zeros((0, 0))
        self._factor, self._weights = np.zeros((0, 0)), np.zeros(0)

    def kernel(self, x: np.ndarray, y: np.ndarray, length: float) -> np.ndarray:
        """Covariance of two sets of features at amplitude 1, [N, M]."""
        raise NotImplementedError

    def _lengths(self) -> tuple[float, ...]:
        return self.config.lengths

    def fit(self, features: np.ndarray, residuals: np.ndarray) -> None:
        """Hyperparameters and posterior of all residuals.

        Args:
            features: [N, F].
            residuals: eV/atom, finite, [N].
        """
        self._x, y = np.asarray(features, dtype=np.float64), np.asarray(residuals, dtype=np.float64)
        self.chosen = self._middle()
        if len(y) >= FEWEST:
            grid = itertools.product(self.config.amplitudes, self._lengths(), self.config.noises)
            own = [Hyperparameters(bias=self.config.bias, amplitude=a, length=s, noise=e) for a, s, e in grid]
            self.chosen = max(own, key=lambda one: self.log_evidence(one, self._x, y) + self._log_prior(one))
        if len(y):
            covariance = self._covariance(self.chosen, self._x, self._x) + self.chosen.noise**2 * np.eye(len(y))
            self._factor = np.linalg.cholesky(covariance)
            self._weights = np.linalg.solve(self._factor.T, np.linalg.solve(self._factor, y))
        else:
            self._factor, self._weights = np.zeros((0, 0)), np.zeros(0)

    def predict(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Posterior mean and standard error with noise, eV/atom, each [B]; those of the prior where nothing is known.

        Args:
            features: [B, F].
        """
        x, one = np.asarray(features, dtype=np.float64), self.chosen
        prior = one.bias**2 + one.noise**2 + one.amplitude**2 * self._diagonal(x)
        if not len(self._weights):
            return np.zeros(len(x)), np.sqrt(prior)
        across = self._covariance(one, x, self._x)
        known = np.linalg.solve(self._factor, across.T)
        return across @ self._weights, np.sqrt(np.maximum(prior - (known**2).sum(0), one.noise**2))

    def log_evidence(self, chosen: Hyperparameters, features: np.ndarray, residuals: np.ndarray) -> float:
        """Log marginal likelihood of residuals under given hyperparameters."""
        covariance = self._covariance(chosen, features, features) + chosen.noise**2 * np.eye(len(residuals))
        factor = np.linalg.cholesky(covariance)
        scaled = np.linalg.solve(factor, residuals)
        half_log_determinant = np.log(np.diag(factor)).sum()
        return float(-scaled @ scaled / 2 - half_log_determinant - len(residuals) * math.log(2 * math.pi) / 2)

    def _covariance(self, one: Hyperparameters, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return one.bias**2 + one.amplitude**2 * self.kernel(x, y, one.length)

    def _diagonal(self, x: np.ndarray) -> np.ndarray:
        """The kernel of each row with itself, [B]."""
        raise NotImplementedError

    def _middle(self) -> Hyperparameters:
        amplitude, length, noise = (
            own[len(own) // 2] for own in (self.config.amplitudes, self._lengths(), self.config.noises)
        )
        return Hyperparameters(bias=self.config.bias, amplitude=amplitude, length=length, noise=noise)

    def _log_prior(self, one: Hyperparameters) -> float:
        middle = self._middle()
        pairs = ((getattr(one, name), getattr(middle, name)) for name in ("amplitude", "length", "noise"))
        return -sum((math.log(value / median) / self.config.width) ** 2 for value, median in pairs) / 2


class GaussianProcess(_Regression):
    """A Gaussian process with a squared-exponential covariance.

    Example:
        >>> model = GaussianProcess()
        >>> model.fit(np.array([[0.0], [0.1], [5.0], [5.1]]), np.array([0.1, 0.1, -0.1, -0.1]))
        >>> mean, std = model.predict(np.array([[0.05], [5.05], [40.0]]))
        >>> bool(mean[0] > 0.05 and mean[1] < -0.05 and std[2] > std[0])
        True
    """

    name = "gaussian_process"

    def kernel(self, x: np.ndarray, y: np.ndarray, length: float) -> np.ndarray:
        """exp(-|x - y|² / (2 length²)), [N, M]."""
        squares = (x**2).sum(1)[:, None] + (y**2).sum(1)[None] - 2 * x @ y.T
        return np.exp(-np.maximum(squares, 0) / (2 * length**2))

    def _diagonal(self, x: np.ndarray) -> np.ndarray:
        return np.ones(len(x))


class BayesianLinear(_Regression):
    """Bayesian linear regression; of a network's last hidden layer where the features are its activations."""

    name = "last_layer"

    def kernel(self, x: np.ndarray, y: np.ndarray, length: float) -> np.ndarray:
        """x·y / F, [N, M]: the covariance of w·x with w ~ N(0, 1 / F)."""
        return x @ y.T / x.shape[1]

    def _diagonal(self, x: np.ndarray) -> np.ndarray:
        return (x**2).mean(1)

    def _lengths(self) -> tuple[float, ...]:
        return (1.0,)


@dataclass
class NoCorrection:
    """The predictions as they are; what a correction is compared with."""

    name: str = field(default="none", init=False)

    def fit(self, features: np.ndarray, residuals: np.ndarray) -> None:
        """Nothing is learned."""

    def predict(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Zeros."""
        return np.zeros(len(features)), np.zeros(len(features))
