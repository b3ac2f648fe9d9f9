"""Energies above the hull of candidates that are not yet relaxed, from all that is known so far."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any, Protocol

import numpy as np

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.discovery.correction import Correction
from crystalgfn.discovery.proposer import Representation, crystals_of_choices
from crystalgfn.properties.base import Property
from crystalgfn.properties.registry import load_proxy
from crystalgfn.typing import Floats

Record = Mapping[str, Any]
SMALLEST = 1e-6
"""Plausibility; a smaller one counts as this."""


class Hull(Protocol):
    """What energies are measured against."""

    def energy(self, crystals: Crystals) -> Floats:
        """Formation energy at which each crystal lies on the hull, eV/atom [B]."""
        ...


def implausibility(crystals: Crystals, weight: float) -> np.ndarray:
    """``-weight * ln p``, p the shipped plausibility: by how much crystals unlike known ones come later, eV/atom."""
    if not weight:
        return np.zeros(len(crystals))
    return -weight * load_proxy("plausibility")(crystals).double().clamp_min(SMALLEST).log().numpy()


class Predictor:
    """Predicted energies, corrected by what the calculator said of other crystals of the space.

    Two corrections of one kind are learned:

    - of screened energies: relaxed less screened energy, from what was relaxed;
    - of the proxy: the best known energy less the proxy's, from all that was screened or relaxed. The best known one is
      that after relaxing, else the screened one with its correction.

    Args:
        energy: the predicted formation energy, eV/atom.
        hull: of the known phases, on the same scale.
        correction: a model of a residual, not yet fitted.
        represent: crystals as it sees them.
    """

    def __init__(self, energy: Property, hull: Hull, correction: Correction, represent: Representation) -> None:
        self.energy, self.hull, self.represent = energy, hull, represent
        self.of_proxy, self.of_screen = correction, deepcopy(correction)
        self.learned = False

    def learn(self, candidates: Iterable[Record], relaxed: Mapping[str, float]) -> None:
        """Fit both corrections.

        Args:
            candidates: records of placed crystals, see `crystalgfn.discovery.campaign.Campaign`.
            relaxed: their keys -> formation energies after relaxing, eV/atom.
        """
        own = list(candidates)
        both = [one for one in own if one["key"] in relaxed and one["screened"] is not None]
        self.of_screen.fit(self._features(both), np.array([relaxed[one["key"]] - one["screened"] for one in both]))
        known = [one for one in own if one["key"] in relaxed or one["screened"] is not None]
        self.learned = bool(known)
        gaps = self._best(known, relaxed) - np.array([one["formation_energy"] for one in known])
        self.of_proxy.fit(self._features(known, bare=True), gaps)

    def _best(self, known: Sequence[Record], relaxed: Mapping[str, float]) -> np.ndarray:
        """The best known energies of crystals, eV/atom [B]."""
        if not known:
            return np.zeros(0)
        screened = np.array([np.nan if one["screened"] is None else one["screened"] for one in known])
        corrected = screened + self.of_screen.predict(self._features(known))[0]
        return np.array([relaxed.get(one["key"], value) for one, value in zip(known, corrected.tolist(), strict=True)])

    def predict(self, crystals: Crystals) -> dict[str, np.ndarray]:
        """Of crystals without atoms, eV/atom above the hull [B]: ``predicted``, ``corrected``, ``std`` of the latter.

        ``std`` is the proxy's standard error until something was learned, then that of the correction.
        """
        predicted = self.energy(crystals).double().numpy() - self.hull.energy(crystals).numpy()
        shift, error = self.of_proxy.predict(self.represent(crystals, [None] * len(crystals)))
        std = error if self.learned and np.any(error) else self.energy.std(crystals).double().numpy()
        return {"predicted": predicted, "corrected": predicted + shift, "std": std}

    def predict_screened(self, records: Sequence[Record]) -> dict[str, np.ndarray]:
        """The same of at least one placed crystal, from its screened energy where it has one."""
        crystals, prototypes = crystals_of_choices(records)
        found = self.predict(crystals)
        own = np.array([np.nan if one["screened"] is None else one["screened"] for one in records])
        shift, error = self.of_screen.predict(self.represent(crystals, prototypes))
        has, above = np.isfinite(own), own + shift - self.hull.energy(crystals).numpy()
        found["corrected"] = np.where(has, above, found["corrected"])
        found["std"] = np.where(has & (error > 0), error, found["std"])
        return found

    def shift(self, crystals: Crystals) -> np.ndarray:
        """What is added to the proxy's energies, eV/atom [B]."""
        return self.of_proxy.predict(self.represent(crystals, [None] * len(crystals)))[0]

    def _features(self, records: Sequence[Record], bare: bool = False) -> np.ndarray:
        """Of crystals with their prototypes, or without (``bare``)."""
        if not records:
            return np.zeros((0, 1))
        crystals, prototypes = crystals_of_choices(records)
        return self.represent(crystals, [None] * len(records) if bare else prototypes)
