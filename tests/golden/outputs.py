"""The outputs that must stay as they are while the code around them is moved and renamed, for fixed seeds.

``python -m tests.golden.outputs`` writes them anew into ``golden.npz``; do so only where a change of figures is meant,
and name each changed figure in the change log. ``python -m tests.golden.outputs check`` compares.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

FILE = Path(__file__).with_name("golden.npz")
ITEMS: dict[str, Callable[[], dict[str, np.ndarray]]] = {}


def item(function: Callable[[], dict[str, np.ndarray]]) -> Callable[[], dict[str, np.ndarray]]:
    """Register a function that returns named arrays."""
    ITEMS[function.__name__] = function
    return function


def machine() -> str:
    """What decides about the last bits of a floating-point result."""
    flags = ""
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        flags = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{platform.machine()} {flags} torch {torch.__version__} numpy {np.__version__}"


def _crystals(prefix: str, crystals: Any) -> dict[str, np.ndarray]:
    return {
        f"{prefix}_space_group": crystals.space_group.numpy().astype(np.int16),
        f"{prefix}_formula": np.array(crystals.formulas()),
        f"{prefix}_lattice": crystals.lattice.numpy(),
    }


def _structures(prefix: str, structures: list[Any]) -> dict[str, np.ndarray]:
    return {
        f"{prefix}_lattice": np.array([structure.lattice.parameters for structure in structures]),
        f"{prefix}_numbers": np.concatenate([structure.atomic_numbers for structure in structures]).astype(np.int16),
        f"{prefix}_points": np.concatenate([structure.frac_coords for structure in structures]),
    }


@item
def sampling() -> dict[str, np.ndarray]:
    """Samples, likelihoods, rewards and diagnostics of shipped samplers, as they are and narrowed."""
    import crystalgfn as cg

    sampler = cg.Sampler.load("formation-energy")
    crystals = sampler.sample(100, seed=3)
    narrowed = {"elements": ["Li", "Mn", "O"], "crystal_systems": ["cubic"]}
    found = _crystals("all", crystals)
    found |= _crystals("narrowed", sampler.sample(30, space=narrowed, seed=4))
    found |= _crystals("resampled", sampler.sample(20, space={"n_atoms": (1, 10)}, resample=True, seed=5))
    found |= _crystals("untrained", cg.Sampler.untrained(cg.CrystalSpace(n_atoms=(1, 12)), seed=1).sample(50, seed=6))
    found["log_prob"] = sampler.log_prob(crystals).numpy()
    found["log_reward"] = sampler.log_reward(crystals).numpy()
    stable = cg.Sampler.load("stable")
    found |= _crystals("stable", stable.sample(50, seed=7))
    found["stable_log_reward"] = stable.log_reward(stable.sample(50, seed=7)).numpy()
    figures = sampler.diagnostics(500, seed=8)
    found["diagnostics"] = np.array([figures.ess, figures.log_z, figures.correlation, figures.log_weight_std])
    return found


@item
def proxies() -> dict[str, np.ndarray]:
    """Values and standard errors of the shipped properties."""
    import crystalgfn as cg

    crystals = cg.Sampler.load("formation-energy").sample(40, seed=9)
    found = {}
    for name in ("formation_energy", "band_gap", "ionic_conductivity", "energy_above_hull"):
        proxy = cg.load_proxy(name)
        found[name] = proxy(crystals).numpy()
    return found


@item
def placement() -> dict[str, np.ndarray]:
    """Structures of thirty crystals by the refiner, some at random, and predictions for three formulas."""
    import crystalgfn as cg

    crystals = cg.Sampler.load("formation-energy").sample(30, seed=10)
    built = cg.build_structures(crystals, n_candidates=2, seed=11)
    found = _structures("refined", [one.structure for one in built if one.structure is not None])
    found["refined_kept"] = np.array([len(one.candidates) for one in built])
    found["refined_letters"] = np.array([json.dumps(one.wyckoff, sort_keys=True) for one in built])
    aflow = cg.build_structures(crystals[:8], templates="aflow", seed=12, lattice="refine")
    found |= _structures("templates", [one.structure for one in aflow if one.structure is not None])
    random = cg.build_structures(crystals[:8], refiner=None, seed=13)
    found |= _structures("random", [one.structure for one in random if one.structure is not None])
    for formula in ("NaCl", "TiO2", "MgAl2O4"):
        predicted = cg.predict(formula, n=5, seed=14, templates="aflow")
        found |= _structures(f"predict_{formula}", [one.structure for one in predicted])
        found[f"predict_{formula}_probability"] = np.array([one.probability for one in predicted])
    return found


@item
def evaluation() -> dict[str, np.ndarray]:
    """The summary of an evaluation of twenty placed crystals against twelve others."""
    import crystalgfn as cg

    crystals = cg.Sampler.load("formation-energy").sample(32, seed=15)
    built = [one.structure for one in cg.build_structures(crystals, refiner=None, seed=16)]
    with tempfile.TemporaryDirectory() as folder:
        for i, structure in enumerate(built):
            if structure is not None:
                path = Path(folder, "samples" if i < 20 else "reference", f"{i}.cif")
                path.parent.mkdir(exist_ok=True)
                structure.to(str(path))
        _command("crystalgfn-evaluate", "samples=samples", "reference=reference", "out=out", "report=false", cwd=folder)
        summary = json.loads(Path(folder, "out", "summary.json").read_text(encoding="utf-8"))
    for name in ("command", "machine", "settings", "seconds", "report", "given", "read_seconds"):
        summary.pop(name, None)
    flat = dict(_flat("", summary))
    return {"names": np.array(list(flat)), "values": np.array([str(value) for value in flat.values()])}


def _flat(prefix: str, value: Any) -> Any:
    if isinstance(value, dict):
        for name, below in value.items():
            yield from _flat(f"{prefix}.{name}".lstrip("."), below)
    elif isinstance(value, list):
        for i, below in enumerate(value):
            yield from _flat(f"{prefix}[{i}]", below)
    elif "second" not in prefix:
        yield prefix, f"{value:.9g}" if isinstance(value, float) else value


@item
def training() -> dict[str, np.ndarray]:
    """Ten steps of a small sampler."""
    import crystalgfn as cg

    space = cg.CrystalSpace(elements=["Li", "Na", "Mg", "Fe", "O", "F", "Cl"], n_atoms=(1, 8), n_elements=(1, 3))
    reward = cg.rewards.boltzmann(cg.load_proxy("formation_energy"), beta=4.0)
    policy = cg.PolicyConfig(width=64, blocks=1)
    sampler = cg.train(
        space, reward, policy=policy, trainer=cg.Trainer(steps=10, batch_size=50, progress=False), seed=17
    )
    crystals = sampler.sample(40, seed=18)
    found = _crystals("drawn", crystals) | {"log_prob": sampler.log_prob(crystals).numpy()}
    weights = sampler.network.state_dict()
    found["norms"] = np.array([float(weights[name].double().norm()) for name in sorted(weights)])
    return found


@item
def fit() -> dict[str, np.ndarray]:
    """A short fit of a proxy to made-up salts."""
    import pandas as pd

    rng = np.random.default_rng(19)
    metals, anions = ("Li", "Na", "K", "Rb", "Cs", "Ag", "Cu", "Tl"), ("F", "Cl", "Br", "I", "H")
    rows = []
    for i in range(400):
        metal, anion = metals[rng.integers(len(metals))], anions[rng.integers(len(anions))]
        a = (6 if i % 2 else 3.8) + rng.random()
        rows.append((f"{metal}{anion}", 2, 225 if i % 2 else 221, a, a, a, 90.0, 90.0, 90.0, -a / 3))
    names = ("formula", "n_atoms", "spacegroup", "a", "b", "c", "alpha", "beta", "gamma", "formation_energy_per_atom")
    table = pd.DataFrame(rows, columns=names)
    with tempfile.TemporaryDirectory() as folder:
        table.iloc[:380].to_csv(Path(folder, "train.csv"), index=False)
        table.iloc[360:].to_csv(Path(folder, "val.csv"), index=False)
        settings = [f"settings.{k}={v}" for k, v in {"epochs": 3, "members": 2, "width": 16, "batch": 32}.items()]
        _command(
            "crystalgfn-train-proxy", "train=train.csv", "val=val.csv", "out=out", "setting=standard", "seed=20",
            "progress=false", *settings, cwd=folder,
        )  # fmt: skip
        metrics = json.loads(Path(folder, "out", "metrics.json").read_text(encoding="utf-8"))
    metrics.pop("command")  # names the module that fits
    flat = {name: value for name, value in _flat("", metrics) if isinstance(value, str | int) or value is None}
    return {"names": np.array(list(flat)), "values": np.array([str(value) for value in flat.values()])}


def _command(name: str, *arguments: str, cwd: str) -> None:
    program = (
        f"import sys; from crystalgfn.cli.app import {name.removeprefix('crystalgfn-').replace('-', '_')} as run; "
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program + "sys.exit(run())", *arguments],
        cwd=cwd, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def differences() -> list[str]:
    """Where outputs are not what they were: bit for bit on the machine that stored them, else to rounding."""
    stored = np.load(FILE)
    same_machine = str(stored["machine"]) == machine()
    wrong = []
    for name, make in ITEMS.items():
        if name == "evaluation" and find_spec("smact") is None:
            continue  # compositions are then judged by other tables
        found = make()
        keys = {key.partition("/")[2] for key in stored.files if key.startswith(f"{name}/")}
        wrong += [f"{name}/{key}: new or gone" for key in sorted(keys ^ set(found))]
        for key in sorted(keys & set(found)):
            value, before = found[key], stored[f"{name}/{key}"]
            if same_machine:
                good = np.array_equal(value, before)
            elif value.dtype.kind == "f" and value.shape == before.shape:
                good = np.allclose(value, before, rtol=1e-3, atol=1e-3)
            else:  # elsewhere rounding may turn one choice into another
                good = value.dtype.kind == before.dtype.kind
            if not good:
                wrong.append(f"{name}/{key}: {value.ravel()[:8]} is not {before.ravel()[:8]}")
    return wrong


def write() -> None:
    """All outputs into the file."""
    arrays = {f"{name}/{key}": value for name, make in ITEMS.items() for key, value in make().items()}
    np.savez_compressed(FILE, machine=np.array(machine()), **arrays)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1:] == ["check"]:
        sys.exit("\n".join(differences()) or 0)
    write()
