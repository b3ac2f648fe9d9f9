"""The policy network: a shared residual trunk over sparse features, and one small head for each kind of decision."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import nn

from crystalgfn.envs.base import Continuous, Discrete, Environment, Head, Observation, Options
from crystalgfn.errors import ConfigurationError
from crystalgfn.policy.distributions import MaskedCategorical, TruncatedMixture
from crystalgfn.typing import FeatureIndex, FeatureWeight, Hidden, RowValues

Distribution = MaskedCategorical | TruncatedMixture
COUNTS = 80
"""Atoms of an element that are told apart; more are seen as so many."""


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """Size of the network.

    Attributes:
        width: units of the trunk.
        blocks: residual blocks (two layers each).
        components: logistic densities in each continuous head.
        rank: inner size of the scores between counts and elements.
        conditioned: whether the network is told a condition (the inverse temperature, 1 for the reward itself).

    Raises:
        ConfigurationError: a size that is not a whole number of at least 1 (``blocks``: at least 0).
    """

    width: int = 256
    blocks: int = 2
    components: int = 8
    rank: int = 64
    conditioned: bool = False

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name == "conditioned":
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < (0 if name == "blocks" else 1):
                raise ConfigurationError(
                    f"policy {name}={value!r}: give a whole number of at least {int(name != 'blocks')}"
                )


class ResidualBlock(nn.Module):
    """x + W2 silu(W1 norm(x)), starting as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, width)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, x: torch.Tensor, scale: torch.Tensor | None = None) -> torch.Tensor:
        """[rows, width] -> [rows, width]; ``scale`` [rows, width] multiplies what the layers see."""
        seen = self.norm(x)
        return x + self.outer(nn.functional.silu(self.inner(seen if scale is None else seen * scale)))


class Modulation(nn.Module):
    """What a condition does to the trunk: a shift of its input, a factor for each block and for what the heads see.

    After the adaptive layer norms of Peebles & Xie 2023; starts without effect.
    """

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.parts = blocks + 2
        self.hidden = nn.Linear(3, 64)
        self.out = nn.Linear(64, self.parts * width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, condition: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Conditions [rows] -> shift and factors, each [rows, width]."""
        features = torch.stack([condition, condition.square(), condition.sqrt()], 1).to(self.hidden.weight.dtype)
        shift, *factors = self.out(nn.functional.silu(self.hidden(features))).chunk(self.parts, 1)
        return (shift, *(1 + factor for factor in factors))


class PolicyNetwork(nn.Module):
    """Distributions of all moves of an environment.

    Heads that differ only in a trailing number (count0, count1, ...) share their weights. The network starts with
    uniform choices. It does not depend on the space's tables: a head's logits are cut to the columns that the
    environment asks for, so a trained network serves every narrowed space.

    Args:
        config: the size.
        vocabulary: features of the environment.
        heads: largest size of each kind of head, and its typical values if continuous: {kind: Head}.
    """

    def __init__(self, config: PolicyConfig, vocabulary: int, heads: dict[str, Head]) -> None:
        super().__init__()
        self.config = config
        #: in what the trunk multiplies matrices; below float32 only while training, so that ln q stays exact
        self.matrix_dtype = torch.float32
        self.embedding = nn.EmbeddingBag(vocabulary, config.width, mode="sum")
        nn.init.normal_(self.embedding.weight, std=0.3)
        self.blocks = nn.ModuleList(ResidualBlock(config.width) for _ in range(config.blocks))
        self.modulation = Modulation(config.width, config.blocks) if config.conditioned else None
        self.norm = nn.LayerNorm(config.width)
        self.heads = nn.ModuleDict({kind: _head(config, head) for kind, head in heads.items()})
        self.register_load_state_dict_pre_hook(_blind_to_new_features)

    @staticmethod
    def for_environment(config: PolicyConfig, env: Environment) -> PolicyNetwork:
        """A network with the heads of an environment."""
        kinds: dict[str, Head] = {}
        for name, head in env.heads.items():
            kinds[kind_of(name)] = head
        return PolicyNetwork(config, env.vocabulary, kinds)

    def trunk(self, observation: Observation) -> torch.Tensor:
        """Hidden vectors [rows, width]."""
        x = self.hidden(observation.index, observation.weight, observation.condition)
        return x if observation.inverse is None else x.index_select(0, observation.inverse)

    def hidden(self, index: FeatureIndex, weight: FeatureWeight, condition: RowValues | None = None) -> Hidden:
        """Hidden vectors of sparse vectors under conditions.

        Raises:
            ValueError: a conditioned network without conditions, or conditions for one that takes none.
        """
        if (condition is None) != (self.modulation is None):
            raise ValueError("a conditioned policy needs conditions, any other takes none (PolicyConfig.conditioned)")
        x = self.embedding(index, per_sample_weights=weight.to(self.embedding.weight.dtype))
        factors: tuple[torch.Tensor | None, ...] = (None,) * (len(self.blocks) + 1)
        if self.modulation is not None:
            shift, *rest = self.modulation(condition)
            factors = tuple(rest)
            x = x + shift
        low = x.dtype == torch.float32 and self.matrix_dtype != torch.float32
        with torch.autocast(x.device.type, dtype=self.matrix_dtype, enabled=low):
            for block, factor in zip(self.blocks, factors[:-1], strict=True):
                x = block(x, factor)
            x = self.norm(x)
        return x if factors[-1] is None else x * factors[-1]

    def distribution(self, head: Head, hidden: torch.Tensor, options: Options) -> Distribution:
        """What the network would do with hidden vectors [rows, width] under the options."""
        module = self.heads[kind_of(head.name)]
        if isinstance(options, Continuous):
            return module(hidden, options)
        return MaskedCategorical.of(module(hidden, head, options), options.mask)


def _blind_to_new_features(network: PolicyNetwork, state: dict[str, torch.Tensor], prefix: str, *_: object) -> None:
    """Weights from before the environment's last features were added do not see these: zeros in the embedding."""
    known, size = state.get(f"{prefix}embedding.weight"), network.embedding.num_embeddings
    if known is not None and len(known) < size:
        state[f"{prefix}embedding.weight"] = nn.functional.pad(known, (0, 0, 0, size - len(known)))


def kind_of(name: str) -> str:
    """The name of a head without its trailing number."""
    return name.rstrip("0123456789")


def _head(config: PolicyConfig, head: Head) -> nn.Module:
    if head.size == 0:
        return MixtureHead(config, head)
    return PairHead(config) if head.elements else ChoiceHead(config, head.size)


class ChoiceHead(nn.Module):
    """Logits of a plain choice."""

    def __init__(self, config: PolicyConfig, size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(config.width, size)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, hidden: torch.Tensor, head: Head, options: Discrete) -> torch.Tensor:
        """[rows, width] -> logits [rows, actions]."""
        n = options.mask.shape[1]
        return nn.functional.linear(hidden, self.linear.weight[:n], self.linear.bias[:n])


class PairScore(nn.Module):
    """Scores of (count, element) pairs: bilinear in hidden vector and element, gated by the count."""

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        self.query = nn.Linear(config.width, config.rank)
        self.gate = nn.Embedding(COUNTS + 1, config.rank)
        self.element = nn.Parameter(torch.randn(118, config.rank) * config.rank**-0.5)
        self.bias = nn.Parameter(torch.zeros(118))
        nn.init.zeros_(self.query.weight)
        nn.init.zeros_(self.query.bias)
        nn.init.normal_(self.gate.weight, std=0.5)

    def forward(self, hidden: torch.Tensor, counts: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
        """[rows, width], counts [rows, slots], elements' columns [elements] -> [rows, slots, elements]."""
        query = self.query(hidden)[:, None] * (1 + self.gate(counts.clamp_max(COUNTS)))
        return query @ self.element[column].T + self.bias[column]


class PairHead(nn.Module):
    """Logits of (count, element) pairs.

    Where two counts are left, charge decides who may take the last one, and that decides what a pair is worth. So ln of
    the sum of exp(score) over these elements, with scores of their own, is added: the exact form of what is to come if
    elements did not act on each other.
    """

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        self.next, self.last = PairScore(config), PairScore(config)
        self.count_bias = nn.Embedding(COUNTS + 1, 1)
        nn.init.zeros_(self.count_bias.weight)

    def forward(self, hidden: torch.Tensor, head: Head, options: Discrete) -> torch.Tensor:
        """[rows, width] -> logits [rows, slots * elements]."""
        column = torch.tensor(head.elements, device=hidden.device) - 1
        counts = options.counts
        if counts is None:
            raise ValueError(f"{head.name}: a choice of counts and elements needs the counts")
        logits = self.next(hidden, counts, column) + self.count_bias(counts.clamp_max(COUNTS))
        if options.last is None:
            return logits.flatten(1)
        # what the other slot holds is left after a slot's count is taken; two equal counts share a slot
        left = torch.where(counts[:, 1:2] > 0, counts[:, :2].flip(1), counts[:, :1])
        score = self.last(hidden, left, column)
        ahead = options.last
        top = score.detach().amax(2, keepdim=True)
        place = 2 * ahead.row + ahead.action // len(column)
        weight = (score - top).exp().flatten(0, 1).index_select(0, place)
        worth = torch.linalg.vecdot(weight, ahead.may.to(weight.dtype)).log() + top.flatten().index_select(0, place)
        return logits.flatten(1).index_put((ahead.row, ahead.action), worth, accumulate=True)


class MixtureHead(nn.Module):
    """Parameters of a truncated mixture; starts uniform with the components spread over the typical values."""

    def __init__(self, config: PolicyConfig, head: Head) -> None:
        super().__init__()
        n = self.n = config.components
        self.centre, self.width = head.centre, head.width
        self.linear = nn.Linear(config.width, 3 * n + 1)
        nn.init.zeros_(self.linear.weight)
        with torch.no_grad():
            bias = self.linear.bias
            bias.zero_()
            bias[n + 1 : 2 * n + 1] = torch.linspace(-1.5, 1.5, n)
            bias[2 * n + 1 :] = -0.7

    def forward(self, hidden: torch.Tensor, options: Continuous) -> TruncatedMixture:
        """[rows, width] -> a distribution on the open set."""
        n = self.n
        out = self.linear(hidden)
        location = self.centre + self.width * out[:, n + 1 : 2 * n + 1]
        log_scale = out[:, 2 * n + 1 :].clamp(-7.0, 3.0) + torch.log(torch.tensor(self.width, dtype=out.dtype)).item()
        return TruncatedMixture(torch.log_softmax(out[:, : n + 1], 1), location, log_scale, options.pieces)
