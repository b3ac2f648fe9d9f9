"""What ``crystalgfn train-refiner`` does: prepare crystals, train a refiner on them, write its weights and card."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from crystalgfn.cli.console import note, tell
from crystalgfn.cli.options.compose import OptionError
from crystalgfn.cli.options.objects import listed, plain_config
from crystalgfn.crystallography.orbits import OrbitStructure
from crystalgfn.structures.refiner import dataset
from crystalgfn.structures.refiner.refiner import DiffusionRefiner
from crystalgfn.structures.refiner.training import CHECKPOINT, RefinerSettings, State, load_state, train_refiner
from crystalgfn.utils import distributed
from crystalgfn.utils.distributed import usable_device
from crystalgfn.utils.files import write_aside
from crystalgfn.utils.run_folder import RunFolder

METRICS, CARD = "metrics.json", "README.md"
#: May differ between the calls that a training is made in.
FREE = ("minutes", "device", "progress", "out", "json")


def run(config: DictConfig, command: str, folder: RunFolder) -> dict[str, Any]:
    """Train; the folder of a training that was interrupted goes on.

    Raises:
        OptionError: values that cannot be, or a folder that holds another training.
        DataError: data that cannot be used.
        TrainingError: a loss that is not finite.
    """
    out, device = folder.path, usable_device(distributed.own_device(config.device))
    settings = RefinerSettings(**{field.name: config[field.name] for field in fields(RefinerSettings)})
    _check(config, out)
    if distributed.first():
        folder.agree(plain_config(config), FREE)
    distributed.of_first(lambda: _prepare(config, out))
    crystals, val, about = _read(config, out)
    try:
        done = train_refiner(crystals, val, settings, out, config.minutes, device, progress=config.progress)
    except KeyboardInterrupt:
        if distributed.first() and any((out / name).exists() for name in (CHECKPOINT, *folder.parts)):
            note(f"\nWhat is done is kept; go on with the same command and out={out}")
        raise
    if not distributed.first():
        return {}
    figures = export(out, settings, len(crystals), about, device)
    state = "all epochs are done" if done else f"go on with the same command and out={out}"
    loss = figures["val_coordinates"]
    tell(f"epoch {figures['epoch']:.1f} of {settings.epochs}, loss on val {loss:.4f}: {state}")
    tell(f"The refiner is in {out}: build_structures(..., refiner={str(out)!r})")
    return {"files": ["weights.safetensors", METRICS, CARD], "counts": {"crystals": len(crystals)}}


def export(
    out: str | Path, settings: RefinerSettings, crystals: int, about: dict[str, Any], device: str
) -> dict[str, Any]:
    """Write weights, metrics and card of the checkpoint in a folder; returns the metrics.

    Raises:
        CheckpointError: no checkpoint there.
    """
    out = Path(out)
    state: State = load_state(out / CHECKPOINT, settings, crystals)
    refiner = DiffusionRefiner(state.average, settings.diffusion())
    refiner.save(out)
    kind = torch.cuda.get_device_name() if torch.device(device).type == "cuda" else f"CPU ({platform.machine()})"
    figures = {
        **state.history[-1],
        "seconds": round(state.seconds),
        "steps": state.step,
        "crystals": crystals,
        "parameters": sum(p.numel() for p in refiner.network.parameters()),
        "device": kind,
        "settings": asdict(settings),
        "data": about,
        "history": state.history,
    }
    write_aside(out / METRICS, lambda path: path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8"))
    write_aside(out / CARD, lambda path: path.write_text(_card(figures), encoding="utf-8"))
    return figures


def _card(figures: dict[str, Any]) -> str:
    """What a user should know of the weights, from the metrics alone."""
    data = figures["data"]
    left_out = f"{data['held_out']} that share (reduced formula, group) with val, {data['too_large']} too large"
    rows = {
        "makes": "the free coordinates of orbits with known Wyckoff letters, and the lattice where asked for",
        "trained on": f"{figures['crystals']} crystals of {', '.join(data['sources'])}, without {left_out}, "
        f"{data['bad']} that could not be used",
        "network": f"{figures['parameters']:,} parameters, see `crystalgfn/structures/refiner/network.py`",
        "training": f"epoch {figures['epoch']:.1f} of {figures['settings']['epochs']}, {figures['steps']:,} steps, "
        f"{figures['seconds'] / 3600:.2f} h on {figures['device']}",
        "loss on val": f"{figures['val_coordinates']:.4f} for the normalised score of the coordinates (1 knows "
        f"nothing), {figures['val_lattice']:.4f} for the lattice",
    }
    if figures["settings"]["begin"] is not None:
        rows["begun with"] = f"the weights of the refiner {figures['settings']['begin']}"
    table = "\n".join(f"| {name} | {words} |" for name, words in rows.items())
    return f"# A refiner\n\n| | |\n| --- | --- |\n{table}\n\nAll settings and the course of training: `{METRICS}`.\n"


def _check(config: DictConfig, out: Path) -> None:
    """Refuse what cannot be, before the work."""
    for name in ("train", "val"):
        if config[name] is None:
            raise OptionError(f"{name} has no default; give {name}=<file or folder>.")
    if config.begin is not None and not (out / CHECKPOINT).exists():
        DiffusionRefiner.load(config.begin)  # better found out before the data are standardised


def _prepare(config: DictConfig, out: Path) -> None:
    """Standardise what is not standardised yet."""
    for name, held_out in (("val", None), ("train", listed(config.val))):
        sources = listed(config[name])
        if _prepared(sources) or (out / f"{name}.npz").exists():
            continue
        how = {"symprec": config.symprec, "max_atoms": config.max_atoms, "skip_bad": config.skip_bad}
        dataset.prepare(sources, out / f"{name}.npz", held_out, **how, progress=config.progress)


def _prepared(sources: Sequence[str]) -> bool:
    return all(Path(source).suffix == ".npz" for source in sources)


def _read(config: DictConfig, out: Path) -> tuple[list[OrbitStructure], list[OrbitStructure], dict[str, Any]]:
    """Crystals to train on and to report on, and what is known of the former."""
    found = {}
    for name in ("train", "val"):
        sources = listed(config[name])
        files = [dataset.load_prepared(path) for path in (sources if _prepared(sources) else [out / f"{name}.npz"])]
        counts = {key: sum(about[key] for _, about in files) for key in ("held_out", "too_large", "bad")}
        names = [source for _, about in files for source in about["sources"]]
        found[name] = [s for part, _ in files for s in part], {**counts, "sources": names}
    return found["train"][0], found["val"][0], found["train"][1]
