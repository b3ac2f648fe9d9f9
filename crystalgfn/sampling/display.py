"""How a sampler shows itself in a terminal and in a notebook."""

from __future__ import annotations

from dataclasses import fields
from html import escape
from typing import TYPE_CHECKING, Any

from crystalgfn.rewards.base import properties

if TYPE_CHECKING:
    import pandas as pd

    from crystalgfn.policy.network import PolicyNetwork
    from crystalgfn.rewards.base import Reward
    from crystalgfn.space.space import CrystalSpace


class SamplerDisplay:
    """What `Sampler` says of itself.

    Attributes:
        history: the figures of the training by step (`crystalgfn.train`); None for one that was loaded or not trained.
    """

    space: CrystalSpace
    reward: Reward | None
    network: PolicyNetwork
    omega: tuple[float, ...] | None
    betas: tuple[float, float] | None
    history: pd.DataFrame | None = None

    def summary(self) -> dict[str, str]:
        """What it is, in words, by name."""
        space = {one.name: getattr(self.space, one.name) for one in fields(self.space)}
        narrowed = [f"{one.name}={space[one.name]}" for one in fields(self.space) if space[one.name] != one.default]
        said = {"space": ", ".join(narrowed) or "the default space", "reward": _reward_in_words(self.reward)}
        if self.betas is not None:
            said["inverse temperatures"] = "{:g} to {:g} times the reward's own".format(*self.betas)
        if self.omega is not None:
            said["shares of 1, 2, ... elements"] = ", ".join(f"{share:.3g}" for share in self.omega)
        said["network"] = f"{sum(one.numel() for one in self.network.parameters()):,} parameters"
        if self.history is not None and len(self.history):
            said["training"] = f"{int(self.history['step'].iloc[-1])} steps, see .history"
        return said

    def __repr__(self) -> str:
        said = self.summary()
        return f"Sampler({said['reward']}; {said['space']}; {said['network']})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><th style="text-align:left">{escape(name)}</th><td style="text-align:left">{escape(text)}</td></tr>'
            for name, text in self.summary().items()
        )
        return f"<p>Sampler</p><table>{rows}</table>"


def _reward_in_words(reward: Any) -> str:
    if reward is None:
        return "no reward (untrained)"
    name = getattr(reward, "__qualname__", None) or type(reward).__qualname__
    of = ", ".join(one.name for one in properties(reward))
    return f"{name} of {of}" if of else name
