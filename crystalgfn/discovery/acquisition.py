"""Which candidates to relax next: low predicted energy, where little is known, and not the same thing again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

Labels = Mapping[str, str]
"""Kind -> value, such as {"formula": "LiMnO2", "prototype": "ABC2_166_a_b_c"}: what candidates have in common."""


@runtime_checkable
class Acquisition(Protocol):
    """Chooses among candidates; it knows predictions and labels alone."""

    def choose(
        self, mean: np.ndarray, std: np.ndarray, labels: Sequence[Labels], n: int, taken: Sequence[Labels] = ()
    ) -> list[int]:
        """Positions of at most ``n`` candidates, the most wanted first.

        Args:
            mean: predicted energy above the hull, eV/atom [B].
            std: its standard error, eV/atom [B].
            labels: of each candidate, [B].
            n: how many.
            taken: labels of those that were chosen before.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class AcquisitionConfig:
    """Of `LowerConfidenceBound`, energies in eV/atom.

    Attributes:
        kappa: standard errors below the prediction that count; 0 minds no uncertainty.
        penalties: kind of label -> what each earlier choice with the same value adds to the score.
        most: times that a penalty is added, at most.
    """

    kappa: float = 0.2
    penalties: Mapping[str, float] = field(
        default_factory=lambda: {"formula": 0.02, "prototype": 0.005, "crystal": 0.05}
    )
    most: int = 10


class LowerConfidenceBound:
    """The lowest of mean - kappa · std plus a penalty for what was chosen before, one after the other.

    The score of a candidate is ``mean - kappa * std + Σ_k penalties[k] * min(n_k, most)``, where n_k is how many of
    those that were chosen before, in this call and earlier, have its label of the kind k. The lowest score is chosen,
    the counts are raised, and so on; of equal scores the first.

    Example:
        >>> choose = LowerConfidenceBound(AcquisitionConfig(kappa=0.0, penalties={"formula": 0.1})).choose
        >>> labels = [{"formula": "NaCl"}, {"formula": "NaCl"}, {"formula": "KCl"}]
        >>> choose(np.array([0.0, 0.01, 0.05]), np.zeros(3), labels, 2)
        [0, 2]
    """

    def __init__(self, config: AcquisitionConfig | None = None) -> None:
        self.config = config or AcquisitionConfig()

    def choose(
        self, mean: np.ndarray, std: np.ndarray, labels: Sequence[Labels], n: int, taken: Sequence[Labels] = ()
    ) -> list[int]:
        """See `Acquisition.choose`; candidates whose score is not finite are never chosen."""
        base = np.asarray(mean, dtype=np.float64) - self.config.kappa * np.asarray(std, dtype=np.float64)
        counts = Counter(pair for one in taken for pair in one.items())
        left = [i for i in range(len(base)) if np.isfinite(base[i])]
        chosen: list[int] = []
        while left and len(chosen) < n:
            best = min(left, key=lambda i: (base[i] + self._penalty(labels[i], counts), i))
            left.remove(best)
            chosen.append(best)
            counts.update(labels[best].items())
        return chosen

    def _penalty(self, labels: Labels, counts: Counter) -> float:
        found = self.config.penalties
        return sum(found.get(kind, 0.0) * min(counts[kind, one], self.config.most) for kind, one in labels.items())
