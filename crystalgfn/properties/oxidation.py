"""Which charges the elements of a composition carry: probabilities over neutral assignments of oxidation states.

An element with n atoms carries a total charge Q. Its prior p(Q) is how often known crystals have it at Q / n (table
``weights/tables/oxidation_states.json``, counts of the ICSD as pymatgen ships them), interpolated between known states,
where the atoms are split over two of them, at a price. Elements are independent but for neutrality, so

    p(Q_1 .. Q_k | neutral) = p_1(Q_1) ... p_k(Q_k) [Q_1 + ... + Q_k = 0] / Z,

and with Fourier transforms P_i of p_i, Z = 1/L sum_f prod_i P_i(f), and the mean of any function u of Q_i is
1/(L Z) sum_f (u p_i)^(f) prod_{j != i} P_j(f).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.properties.hull_entries import compositions
from crystalgfn.typing import Doubles, ElementShares, Fractions
from crystalgfn.utils import files

TABLE = files.SHIPPED / "tables" / "oxidation_states.json"

RAREST = -6.0
"""Lowest log prior of a state that occurs at all: what is rarer is more often an error of a record than a charge."""
SPLIT = {False: -3.0, True: -1.0}
"""Log price of a split over two states, of an element that is metallic (False) or an anion in some crystals (True)."""
UNASSIGNED = 1e-12
"""Below this evidence (also that of rounding) a composition has no neutral assignment."""
FULL = {"H": 1, "N": 3, "O": 2, "F": 1, "P": 3, "S": 2, "Cl": 1, "As": 3, "Se": 2, "Br": 1, "Sb": 3, "Te": 2, "I": 1}
"""Charge of an anion with a full shell."""
FINEST = 24
"""Amounts that are not whole are rounded to these parts of an atom."""
CHUNK = 1024


@dataclass(frozen=True, kw_only=True)
class Charges:
    """Charges in compositions; elements of each in ascending order of atomic numbers, filled up with 0.

    Attributes:
        numbers: atomic numbers, int64 [B, k].
        amounts: atoms a formula unit, float64 [B, k].
        evidence: ln Z, the log probability that elements with independent charges are neutral, [B]; -inf where no
            assignment is neutral (then all that follows is 0).
        mean: mean charge of an atom, [B, k].
        positive: mean of its positive part, [B, k].
        anionic: probability that the charge is not positive, [B, k].
        missing: mean share of a full shell's charge (`FULL`) that an anion lacks, 0 for cations, [B, k].
    """

    numbers: torch.Tensor
    amounts: ElementShares
    evidence: Doubles
    mean: ElementShares
    positive: ElementShares
    anionic: ElementShares
    missing: ElementShares


def charges(crystals: Crystals | Sequence[str] | Fractions) -> Charges:
    """Charges of the elements in each composition.

    Args:
        crystals: crystals, compositions (counts or fractions, [B, 118]) or formulas.

    Raises:
        DataError: a formula that cannot be read.
        InvalidCrystal: a composition without atoms or with a negative amount.

    Example:
        >>> found = charges(["FeS2", "K2SO4"])
        >>> [round(q, 1) for q in found.mean[1].tolist()]  # O, S, K: sulfur is a cation here
        [-1.9, 5.7, 1.0]
    """
    rows, device = compositions(crystals)
    rows = _whole(rows)
    known, found = _last.get("", (None, None))  # a reward asks twice of each batch: its energy and its plausibility
    if known is None or not torch.equal(known, rows):
        found = _of_rows(rows)
        _last[""] = rows, found
    return Charges(**{name: getattr(found, name).to(device) for name in Charges.__dataclass_fields__})


_last: dict[str, tuple[torch.Tensor, Charges]] = {}


def _of_rows(rows: torch.Tensor) -> Charges:
    """Charges at counts of formula units, [B, 118], on the CPU."""
    most = max(1, int((rows > 0).sum(1).max())) if len(rows) else 1
    order = rows.sum(1).argsort(stable=True)  # those of a chunk need transforms of much the same length
    parts = [_charges(part, most) for part in rows[order].split(CHUNK)]  # an empty batch has one empty part
    back = order.argsort()
    columns = {name: torch.cat([getattr(part, name) for part in parts])[back] for name in Charges.__dataclass_fields__}
    return Charges(**columns)


def _whole(rows: torch.Tensor) -> torch.Tensor:
    """Counts of the smallest formula units, int64 [B, 118]."""
    whole = (rows == rows.round()).all(1, keepdim=True)
    parts = torch.where(rows > 0, (rows / rows.sum(1, keepdim=True) * FINEST).round().clamp_min(1), rows)
    counts = torch.where(whole, rows, parts).long()
    return counts // torch.from_numpy(np.gcd.reduce(counts.numpy(), axis=1)).clamp_min(1)[:, None]


def _charges(rows: torch.Tensor, most: int) -> Charges:
    amounts, order = torch.sort(rows, dim=1, descending=True, stable=True)
    numbers = torch.where(amounts > 0, order + 1, 999)[:, :most]
    numbers, order = numbers.sort(1)
    amounts = amounts[:, :most].gather(1, order)
    numbers = torch.where(amounts > 0, numbers, 0)
    pairs, place = torch.unique(torch.stack([numbers.flatten(), amounts.flatten()], 1), dim=0, return_inverse=True)
    place = place.view(numbers.shape)
    length = 1 << (8 * int(rows.sum(1).max()) if len(rows) else 1).bit_length()  # no state is above 8
    # [pairs, functions, frequencies]: of the prior times 1, the charge, its positive part, ...
    spectra = torch.zeros(len(pairs), 5, length // 2 + 1, dtype=torch.complex128)
    for row, (z, n) in enumerate(pairs.tolist()):
        spectra[row] = _spectra(z, n, length)
    weight = torch.full((length // 2 + 1,), 2.0, dtype=torch.float64)
    weight[0] = weight[-1] = 1  # of a real signal's half spectrum
    own = spectra[place]  # [B, k, functions, frequencies]
    plain = own[:, :, 0]
    total = (plain.prod(1).real @ weight) / length
    means = []
    for i in range(most):
        others = torch.cat([plain[:, :i], plain[:, i + 1 :]], 1).prod(1)
        means.append(((own[:, i, 1:] * others[:, None]).real @ weight) / length)
    assigned = total > UNASSIGNED
    found = torch.stack(means, 1)
    found = torch.where(assigned[:, None, None], found / total.clamp_min(UNASSIGNED)[:, None, None], 0.0)
    found = found * (amounts > 0)[:, :, None]
    return Charges(
        numbers=numbers,
        amounts=amounts.double(),
        evidence=torch.where(assigned, total.clamp_min(UNASSIGNED).log(), -torch.inf),
        mean=found[:, :, 0],
        positive=found[:, :, 1].clamp_min(0),
        anionic=found[:, :, 2].clamp(0, 1),
        missing=found[:, :, 3].clamp(0, 1),
    )


@lru_cache(maxsize=8192)
def _spectra(z: int, n: int, length: int) -> torch.Tensor:
    """Fourier transforms of the prior of n atoms of element z, and of it times four functions of the charge."""
    at, prior = total_charges(z, n)
    x = at / max(n, 1)
    full = FULL.get(elements.SYMBOLS[z - 1], 0) if z else 0
    lacking = np.where(x <= 0, np.clip(1 + x / full, 0, 1), 0) if full else np.zeros(len(x))
    signals = torch.zeros(5, length, dtype=torch.float64)
    for row, values in enumerate((np.ones(len(x)), x, np.clip(x, 0, None), (x <= 0) * 1.0, lacking)):
        signals[row, at % length] = torch.from_numpy(values * prior)
    return torch.fft.rfft(signals)


def total_charges(z: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The total charges that ``n`` atoms of element ``z`` can carry, and the prior of each, both [Q].

    An element without known states, like no element (z = 0), carries none.
    """
    states, logs = _states()[z] if z else (np.zeros(1, dtype=int), np.zeros(1))
    at = np.arange(states[0] * n, states[-1] * n + 1)
    log = np.interp(at / max(n, 1), states, logs)
    split = SPLIT[bool(z) and elements.SYMBOLS[z - 1] in ANIONIC]
    return at, np.exp(np.where(np.isin(at, states * n), log, log + split))


ANIONIC = frozenset("H B C N O F Si P S Cl Ge As Se Br Sb Te I At".split())
"""Elements that are anions in some crystals."""


@lru_cache(maxsize=1)
def _states() -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Of each atomic number the known states, ascending, and their log priors."""
    raw = json.loads(TABLE.read_text(encoding="utf-8"))["counts"]
    found = {}
    for z, symbol in enumerate(elements.SYMBOLS, start=1):
        counts = sorted((int(state), weight) for state, weight in raw.get(symbol, {"0": 1}).items())
        weights = np.array([weight for _, weight in counts], dtype=np.float64)
        found[z] = np.array([state for state, _ in counts]), np.log(weights / weights.sum()).clip(RAREST)
    return found
