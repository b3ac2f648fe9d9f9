"""Weights that cannot be used are refused by the one reader of them all, whatever model they are of."""

import shutil
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from crystalgfn.errors import CheckpointError
from crystalgfn.properties.ensemble import EnsembleProxy
from crystalgfn.properties.hull import HullModel
from crystalgfn.properties.plausibility import CrystalPlausibility
from crystalgfn.properties.training_distance import NearestCentre
from crystalgfn.structures.ranking.polymorphs import PolymorphModel
from crystalgfn.structures.ranking.reranker import CandidateRanker, Plausibility
from crystalgfn.structures.ranking.wyckoff import WyckoffModel
from crystalgfn.structures.refiner.refiner import DiffusionRefiner
from crystalgfn.structures.sources.template_distance import Ranking
from crystalgfn.utils.files import SHIPPED, data_folder

PROXIES, RANKERS = data_folder("proxies"), SHIPPED / "rankers"
FOLDERS = {
    PROXIES / "band_gap" / "weights.safetensors": EnsembleProxy.load,
    PROXIES / "hull" / "weights.safetensors": HullModel.load,
    PROXIES / "plausibility" / "weights.safetensors": CrystalPlausibility.load,
    PROXIES / "ionic_conductivity" / "centres.safetensors": NearestCentre.load,
    SHIPPED / "refiners" / "default" / "weights.safetensors": DiffusionRefiner.load,
}
ALONE = {
    RANKERS / "wyckoff.safetensors": WyckoffModel.load,
    RANKERS / "polymorphs.safetensors": PolymorphModel.load,
    RANKERS / "plausibility.safetensors": Plausibility.load,
    RANKERS / "choice.safetensors": CandidateRanker.load,
    RANKERS / "templates.safetensors": Ranking.load,
}


@pytest.mark.parametrize("source", [*FOLDERS, *ALONE], ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_number_that_is_not_finite(source, tmp_path):
    """Found by its name, in a copy that is whole otherwise."""
    load = {**FOLDERS, **ALONE}[source]
    copy = tmp_path / source.name
    shutil.copy(source, copy)
    given: Path = copy if source in ALONE else tmp_path
    load(given)
    with safe_open(source, framework="pt") as file:
        header, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point())
    tensors[name].view(-1)[0] = float("inf")
    save_file(tensors, copy, metadata=header)
    with pytest.raises(CheckpointError, match=f"not finite .{name}.*;"):
        load(given)
