"""How a proxy is fitted."""

from __future__ import annotations

from dataclasses import dataclass

from crystalgfn.errors import DataError


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How a proxy is fitted.

    Attributes:
        property: a key of ``crystalgfn.data.labelled.COLUMNS``.
        seed: of the split, the initial weights and the order of the rows.
        epochs: passes over the training rows.
        batch: rows a step.
        lr: largest learning rate (AdamW; warm-up for one epoch, then a cosine to 0).
        weight_decay: of AdamW.
        members: networks in the ensemble.
        width: units a hidden layer.
        depth: hidden layers.
        rank: of the term that is bilinear in the elements' fractions.
        residual: whether hidden layers add to what they are given.
        translations: whether it sees the shortest translations of the lattice.
        wyckoff: whether it sees what each element may do on the group's Wyckoff positions.
        holdout: share of the training formulas that choose the epoch and the standard error's factor, and fit nothing.
        left_out: share of the formulas that each member does not see.
        labels_left_out: share of the labels' formulas that each member does not see; more of it makes members differ
            where only labels tell.
        strained: weight of the strained copies against the real rows; 0 for none. For energies only.
        labelled: weight of labels off equilibrium against the real rows; 0 for none. For energies only.
        balance: share of the labels in a step that are no strained real crystals, but swapped, placed and proposed.
        jitter: by which cells of labels are moved each time that they are seen (ln lengths, radians); 0 for not.
        begin: folder of a proxy of the same shape, or name of a shipped one, whose weights to begin with; none: random
            ones. Fitted on the same rows with the same seed, so that what was held out stays so.

    Raises:
        DataError: a share or a number outside its limits.
    """

    property: str = "formation_energy"
    seed: int = 0
    epochs: int = 48
    batch: int = 128
    lr: float = 3e-3
    weight_decay: float = 0.1
    members: int = 6
    width: int = 256
    depth: int = 4
    rank: int = 64
    residual: bool = True
    translations: bool = True
    wyckoff: bool = False
    holdout: float = 0.03
    left_out: float = 0.02
    labels_left_out: float = 0.02
    strained: float = 0.15
    labelled: float = 0.1
    balance: float = 0.5
    jitter: float = 0.0
    begin: str = ""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "members", "width", "depth", "lr"):
            if not getattr(self, name) > 0:
                raise DataError(f"settings.{name}={getattr(self, name)}: give a number above 0")
        for name in ("holdout", "left_out", "labels_left_out"):
            if not 0 <= getattr(self, name) < 1:
                raise DataError(f"{name}={getattr(self, name)}: give a share from 0 to below 1")
        if not 0 <= self.balance <= 1:
            raise DataError(f"balance={self.balance}: give a share from 0 to 1")
        for name in ("jitter", "strained", "labelled", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise DataError(f"{name}={getattr(self, name)}: give a number of at least 0")
        if self.members < 2:
            raise DataError(f"members={self.members}: give at least 2; their disagreement is the standard error")
        if self.property != "formation_energy":
            for name in ("strained", "labelled"):
                object.__setattr__(self, name, 0.0)
