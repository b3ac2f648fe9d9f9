"""Names for the shapes that the package passes around (torchtyping); type checkers see `torch.Tensor`.

Axes: ``batch`` crystals or trajectories, ``rows`` the part of a batch that moves, ``actions`` what may be chosen,
``pooled`` what a row adds to a whole, ``width`` the hidden units of a network,
``pairs`` of a count and an element, ``elements`` of a space, ``pieces`` disjoint intervals of one continuous draw,
``fields`` sparse features of an observation, ``points`` of a quadrature over ``free`` parameters, ``orbits`` and
``atoms`` of crystals, filled up to the most of a batch, ``members`` of an ensemble, ``features`` of a model,
``components`` of an embedding or of a mixture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import torch

if TYPE_CHECKING:
    Integers: TypeAlias = torch.Tensor
    Floats: TypeAlias = torch.Tensor
    Booleans: TypeAlias = torch.Tensor
    Compositions: TypeAlias = torch.Tensor
    Lattices: TypeAlias = torch.Tensor
    Vectors: TypeAlias = torch.Tensor
    RowIndex: TypeAlias = torch.Tensor
    RowFloats: TypeAlias = torch.Tensor
    RowVectors: TypeAlias = torch.Tensor
    Pairs: TypeAlias = torch.Tensor
    Followers: TypeAlias = torch.Tensor
    Mask: TypeAlias = torch.Tensor
    Pieces: TypeAlias = torch.Tensor
    FeatureIndex: TypeAlias = torch.Tensor
    FeatureWeight: TypeAlias = torch.Tensor
    Points: TypeAlias = torch.Tensor
    Keys: TypeAlias = torch.Tensor
    LogMetrics: TypeAlias = torch.Tensor
    Cells: TypeAlias = torch.Tensor
    OfOrbits: TypeAlias = torch.Tensor
    OfAtoms: TypeAlias = torch.Tensor
    Slots: TypeAlias = torch.Tensor
    PairScores: TypeAlias = torch.Tensor
    PairMask: TypeAlias = torch.Tensor
    Doubles: TypeAlias = torch.Tensor
    Values: TypeAlias = torch.Tensor
    RowValues: TypeAlias = torch.Tensor
    Hidden: TypeAlias = torch.Tensor
    Centres: TypeAlias = torch.Tensor
    Fractions: TypeAlias = torch.Tensor
    RowFractions: TypeAlias = torch.Tensor
    PointsOfElements: TypeAlias = torch.Tensor
    RowPointsOfElements: TypeAlias = torch.Tensor
    OfElements: TypeAlias = torch.Tensor
    ElementTable: TypeAlias = torch.Tensor
    ElementShares: TypeAlias = torch.Tensor
    ElementComponents: TypeAlias = torch.Tensor
    FeatureRows: TypeAlias = torch.Tensor
    FeatureValues: TypeAlias = torch.Tensor
    Members: TypeAlias = torch.Tensor
    MemberValues: TypeAlias = torch.Tensor
else:
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
    Doubles = TensorType["batch", torch.float64]
    Values = TensorType["batch"]
    RowValues = TensorType["rows"]
    Hidden = TensorType["rows", "width"]
    Centres = TensorType["components", 118]
    Fractions = TensorType["batch", 118]
    RowFractions = TensorType["rows", 118]
    PointsOfElements = TensorType["batch", 119]
    RowPointsOfElements = TensorType["rows", 119]
    OfElements = TensorType[118]
    ElementTable = TensorType[118, "rows"]
    ElementShares = TensorType["batch", "elements"]
    ElementComponents = TensorType["batch", "elements", "components"]
    FeatureRows = TensorType["batch", "features"]
    FeatureValues = TensorType["features"]
    Members = TensorType["members", is_float]
    MemberValues = TensorType["members", "batch"]

DENSITY_UNIT = 1.66053906660
"""g/cm3 of 1 u/Å3 (CODATA 2018)."""
