"""Names for the shapes that the package passes around (torchtyping).

Axes: ``batch`` crystals or trajectories, ``rows`` the part of a batch that moves, ``actions`` what may be chosen,
``pooled`` what a row adds to a whole,
``pairs`` of a count and an element, ``elements`` of a space, ``pieces`` disjoint intervals of one continuous draw,
``fields`` sparse features of an observation, ``points`` of a quadrature over ``free`` parameters, ``orbits`` and
``atoms`` of crystals, filled up to the most of a batch.
"""

from __future__ import annotations

import torch
from torchtyping import TensorType, is_float

Integers = TensorType["batch", torch.int64]

Floats = TensorType["batch", is_float]

Booleans = TensorType["batch", torch.bool]

Compositions = TensorType["batch", 118, torch.int64]

Lattices = TensorType["batch", 6, is_float]

Vectors = TensorType["batch", 3, is_float]

RowIndex = TensorType["rows", torch.int64]

RowFloats = TensorType["rows", is_float]

RowVectors = TensorType["rows", "pooled", is_float]

Pairs = TensorType["pairs", torch.int64]

Followers = TensorType["pairs", "elements", torch.bool]

Mask = TensorType["rows", "actions", torch.bool]

Pieces = TensorType["rows", "pieces", 2]

FeatureIndex = TensorType["rows", "fields", torch.int64]

FeatureWeight = TensorType["rows", "fields"]

Points = TensorType["points", "free", torch.float64]

Keys = TensorType["batch", "key", torch.int64]

LogMetrics = TensorType["batch", 6, is_float]

Cells = TensorType["batch", 3, 3, is_float]

OfOrbits = TensorType["batch", "orbits", 3, is_float]

OfAtoms = TensorType["batch", "atoms", 3, is_float]

Slots = TensorType["batch", "slots", torch.int64]

PairScores = TensorType["batch", 230, "units", is_float]

PairMask = TensorType["batch", 230, "units", torch.bool]

DENSITY_UNIT = 1.66053906660
"""g/cm3 of 1 u/Å3 (CODATA 2018)."""
