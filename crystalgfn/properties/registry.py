"""Shipped proxies by name, and fitted ones by folder."""

from __future__ import annotations

from pathlib import Path

from crystalgfn.errors import LONGEST_NAME, NotAvailable, RewardError, check_kind
from crystalgfn.properties.base import Property
from crystalgfn.properties.ensemble import EnsembleProxy
from crystalgfn.properties.plausibility import CrystalPlausibility
from crystalgfn.properties.relaxed_energy import RelaxedEnergy
from crystalgfn.utils.files import data_folder

#: The proxies that go by a name, with what each predicts.
PROXIES = {
    "formation_energy": "formation energy, eV/atom",
    "band_gap": "PBE band gap, eV",
    "ionic_conductivity": "log10 of the Li-ion conductivity, S/cm",
    "energy_above_hull": "energy above the convex hull, eV/atom",
    "plausibility": "probability that a crystal like this is known rather than drawn",
    "synthesizability": "probability that a crystal like this has been made",
    "relaxed_energy": "energy above the convex hull after relaxation, of composition and space group, eV/atom",
}
CLASSIFIERS = ("plausibility", "synthesizability")


def load_proxy(name: str | Path) -> Property:
    """A fitted proxy: a shipped one by name, or a user's own by its folder.

    Args:
        name: one of ``PROXIES``, or a folder with ``weights.safetensors`` and ``metrics.json``.

    Raises:
        NotAvailable: a proxy whose name is known but which is not shipped yet.
        RewardError: neither a known name nor a folder.
        CheckpointError: weights that are missing, truncated, or of another kind.
    """
    check_kind("proxy", name, (str, Path), "a folder or the name of a shipped one", RewardError)
    if str(name) == "energy_above_hull":  # the formation energy's proxy with a fitted hull
        from crystalgfn.properties.hull import energy_above_hull

        return energy_above_hull()
    if str(name) in CLASSIFIERS:
        return CrystalPlausibility.load(data_folder("proxies") / str(name), source=str(name))
    if str(name) == "relaxed_energy":
        return RelaxedEnergy.load(data_folder("proxies") / str(name), source=str(name))
    if str(name) in PROXIES:
        folder = data_folder("proxies") / str(name)
        if not (folder / "weights.safetensors").is_file():
            raise NotAvailable(
                f"The proxy {str(name)!r} ({PROXIES[str(name)]}) is not shipped with this version. Fit one with "
                f"crystalgfn.fitting.proxy.fit(train_path, val_path, property=..., out=...) and load its folder."
            )
        return EnsembleProxy.load(folder, source=str(name), property=str(name))
    if len(Path(name).name) > LONGEST_NAME or not Path(name).is_dir():
        raise RewardError(f"There is no proxy {str(name)!r}: it is neither one of {', '.join(PROXIES)} nor a folder.")
    return EnsembleProxy.load(Path(name), source=str(name))
