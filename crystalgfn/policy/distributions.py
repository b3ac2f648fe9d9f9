"""The distributions of single moves: exact densities on exactly the set that the options leave open."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

SLACK = 1e-9  # rounding at the ends of an interval


@dataclass(frozen=True)
class MaskedCategorical:
    """A choice among the actions that the mask leaves.

    Attributes:
        logits: [rows, actions], -inf where the mask is False.
    """

    logits: torch.Tensor

    @classmethod
    def of(cls, logits: torch.Tensor, mask: torch.Tensor) -> MaskedCategorical:
        """Logits with the mask applied."""
        return cls(torch.where(mask, logits, -torch.inf))

    def tempered(self, exponent: torch.Tensor) -> MaskedCategorical:
        """Probabilities to the power of an exponent above 0, [rows], renormalised."""
        return MaskedCategorical(self.logits * exponent.to(self.logits.dtype)[:, None])

    def sample(self, epsilon: float = 0.0, generator: torch.Generator | None = None) -> torch.Tensor:
        """One action a row; with probability ``epsilon`` uniform among the allowed."""
        probabilities = torch.softmax(self.logits, 1)
        if epsilon > 0:
            allowed = (self.logits > -torch.inf).to(probabilities.dtype)
            probabilities = (1 - epsilon) * probabilities + epsilon * allowed / allowed.sum(1, keepdim=True)
        # inverse of the cumulative sum: much faster than multinomial, and exact about zeros
        cumulative = probabilities.double().cumsum(1)
        draw = torch.rand(len(cumulative), 1, dtype=torch.float64, device=cumulative.device, generator=generator)
        action = (cumulative <= draw * cumulative[:, -1:]).sum(1)
        return action.clamp_max(self.logits.shape[1] - 1)

    def log_prob(self, action: torch.Tensor) -> torch.Tensor:
        """ln of the probability of given actions, [rows]; -inf for those that are masked."""
        return torch.log_softmax(self.logits, 1).gather(1, action[:, None]).squeeze(1)


@dataclass(frozen=True)
class TruncatedMixture:
    """A mixture of logistic densities cut to a union of intervals, plus a uniform density on it.

    With S the set, f_i the logistic densities of weight pi_i, F_i(S) their mass on S and pi_0 the uniform's weight,
    q(x) = (sum_i pi_i f_i(x) + pi_0 / |S|) / (sum_i pi_i F_i(S) + pi_0): the mixture renormalised on S.

    Attributes:
        log_weight: ln pi_1 ... pi_n, ln pi_0 (any normalisation), [rows, n + 1].
        location, log_scale: [rows, n].
        pieces: the intervals of S, [rows, pieces, 2]; empty where the second end is not above the first.
    """

    log_weight: torch.Tensor
    location: torch.Tensor
    log_scale: torch.Tensor
    pieces: torch.Tensor

    def tempered(self, exponent: torch.Tensor) -> TruncatedMixture:
        """Weights to the power of an exponent above 0, [rows], and scales divided by it."""
        exponent = exponent.to(self.location.dtype)[:, None]
        return TruncatedMixture(self.log_weight * exponent, self.location, self.log_scale - exponent.log(), self.pieces)

    def _masses(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """ln F_i of each piece [rows, n, pieces], lengths of pieces [rows, pieces] and ln of their sum [rows]."""
        ends = self.pieces.to(self.location.dtype)
        length64 = (self.pieces[..., 1] - self.pieces[..., 0]).clamp_min(0)
        length = length64.to(ends.dtype)
        scale = self.log_scale.exp()[..., None]
        low = (ends[:, None, :, 0] - self.location[..., None]) / scale
        open_ = length[:, None] > 0
        width = torch.where(open_, length[:, None], 1.0) / scale  # not high - low, which may round to 0
        high = low + width
        mass = F.logsigmoid(high) + F.logsigmoid(-low) + torch.log(-torch.expm1(-width))
        return torch.where(open_, mass, -torch.inf), length, length64.sum(1).log().to(ends.dtype)

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """ln density of given values, [rows]; values just outside S (within `SLACK`) count as on its edge."""
        inside = self._nearest(value)
        x = inside.to(self.location.dtype)
        mass, _, log_length = self._masses()
        z = (x[:, None] - self.location) / self.log_scale.exp()
        density = F.logsigmoid(z) + F.logsigmoid(-z) - self.log_scale
        above = torch.cat([density, -log_length[:, None]], 1) + self.log_weight
        below = torch.cat([mass.logsumexp(2), torch.zeros_like(log_length)[:, None]], 1) + self.log_weight
        log_prob = above.logsumexp(1) - below.logsumexp(1)
        return torch.where((value - inside).abs() <= SLACK, log_prob, -torch.inf)

    def _nearest(self, value: torch.Tensor) -> torch.Tensor:
        ends = self.pieces
        clipped = torch.minimum(torch.maximum(value[:, None], ends[..., 0]), ends[..., 1])
        distance = torch.where(ends[..., 1] > ends[..., 0], (clipped - value[:, None]).abs(), torch.inf)
        return clipped.gather(1, distance.argmin(1, keepdim=True)).squeeze(1)

    def sample(self, epsilon: float = 0.0, generator: torch.Generator | None = None) -> torch.Tensor:
        """One value a row in float64; with probability ``epsilon`` uniform on S."""
        mass, length, _ = self._masses()
        n = mass.shape[1]
        uniform = torch.where(length > 0, length.log() - length.sum(1, keepdim=True).log(), -torch.inf)
        logits = torch.cat([mass, uniform[:, None]], 1) + self.log_weight[..., None]
        probabilities = torch.softmax(logits.double().flatten(1), 1).view(logits.shape)
        if epsilon > 0:
            probabilities = probabilities * (1 - epsilon)
            probabilities[:, n] += epsilon * uniform.double().exp()
        cumulative = probabilities.flatten(1).cumsum(1)
        draws = torch.rand(2, len(cumulative), dtype=torch.float64, device=cumulative.device, generator=generator)
        choice = (cumulative <= draws[0, :, None] * cumulative[:, -1:]).sum(1).clamp_max(cumulative.shape[1] - 1)
        component, piece = choice // mass.shape[2], choice % mass.shape[2]
        ends = self.pieces.gather(1, piece[:, None, None].expand(-1, 1, 2)).squeeze(1).double()
        at = component.clamp_max(n - 1)[:, None]
        location = self.location.gather(1, at).squeeze(1).double()
        scale = self.log_scale.gather(1, at).squeeze(1).double().exp()
        low, high = ((ends - location[:, None]) / scale[:, None]).sigmoid().unbind(1)
        level = (low + draws[1] * (high - low)).clamp(1e-15, 1 - 1e-15)
        logistic = location + scale * (level.log() - torch.log1p(-level))
        flat = ends[:, 0] + draws[1] * (ends[:, 1] - ends[:, 0])
        value = torch.where((component == n) | (high - low < 1e-9), flat, logistic)
        return torch.minimum(torch.maximum(value, ends[:, 0]), ends[:, 1])
