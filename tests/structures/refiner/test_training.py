"""Training: the loss falls, a few crystals are learned by heart, a killed run goes on as if nothing had been."""

import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest
import torch

from crystalgfn.crystallography.orbits import Orbit, OrbitStructure
from crystalgfn.errors import CheckpointError, TrainingError
from crystalgfn.structures.refiner import training
from crystalgfn.structures.refiner.refiner import DiffusionRefiner

SMALL = training.RefinerSettings(
    epochs=4, batch=8, warmup=5, width=16, layers=1, radial=6, waves=2, cutoff=4.0, seed=1, ema=0.9
)


def rutiles(n):
    """Rutile structures of several metals, whose free coordinate depends on the metal."""
    rng, metals = np.random.default_rng(0), [22, 25, 44, 50, 82]
    found = []
    for i in range(n):
        a, x = 4.5 + 0.01 * rng.standard_normal(), 0.24 + 0.03 * (i % 5)
        orbits = (Orbit("a", metals[i % 5]), Orbit("f", 8, (x, 0.0, 0.0)))
        found.append(OrbitStructure(136, (a, a, 0.65 * a, 90.0, 90.0, 90.0), orbits))
    return found


def weights(out):
    state = training.load_tensors(out / training.CHECKPOINT, training.KIND)
    return torch.cat([t.flatten() for t in state["average"].values()]), state


def test_a_training_that_is_resumed_ends_with_the_same_weights(tmp_path, random_orbits):
    data, val = random_orbits[::3], random_orbits[1::40]
    assert training.train_refiner(data, val, SMALL, tmp_path / "whole")
    steps, before = [], training._step

    class Stop(Exception):
        pass

    def stopping(*arguments):
        if len(steps) == 15:
            raise Stop
        steps.append(0)
        return before(*arguments)

    training._step = stopping
    try:
        with pytest.raises(Stop):
            training.train_refiner(data, val, SMALL, tmp_path / "parts", save_seconds=0)
    finally:
        training._step = before
    assert weights(tmp_path / "parts")[1]["step"] == 15
    assert training.train_refiner(data, val, SMALL, tmp_path / "parts")
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert torch.equal(whole[0], parts[0])
    assert whole[1]["history"][-1]["val_coordinates"] == parts[1]["history"][-1]["val_coordinates"]


def test_minutes_end_a_call_with_a_checkpoint(tmp_path, random_orbits):
    assert not training.train_refiner(random_orbits, random_orbits[:9], SMALL, tmp_path, minutes=1e-9)
    assert weights(tmp_path)[1]["step"] == 1


@pytest.mark.unchecked
def test_crystals_are_learned_by_heart(tmp_path):
    settings = replace(SMALL, epochs=250, batch=10, width=32, layers=2, lr=5e-3, ema=0.98, kept=1.0)
    data = rutiles(10)
    assert training.train_refiner(data, data, settings, tmp_path, save_seconds=1)
    state = training.load_state(tmp_path / training.CHECKPOINT, settings, len(data))
    history = [entry["val_coordinates"] for entry in state.history]
    assert history[-1] < 0.5  # 1 knows nothing
    made = DiffusionRefiner(state.average, settings.diffusion()).refine(data, steps=10)
    for wanted, found in zip(data, made, strict=True):
        x, y = wanted.orbits[1].parameters[0], found.orbits[1].parameters[0]
        # x, 1 - x, 1/2 - x and 1/2 + x are the same structure, or one with the other origin
        assert min(abs((y - s * x - o + 0.25) % 0.5 - 0.25) for s in (1, -1) for o in (0, 0.5)) < 0.03


def test_a_training_can_begin_with_the_weights_of_another(tmp_path):
    data = rutiles(10)
    assert training.train_refiner(data, data, SMALL, tmp_path / "one")
    first = training.load_state(tmp_path / "one" / training.CHECKPOINT, SMALL, len(data)).average
    DiffusionRefiner(first).save(tmp_path / "one")
    further = replace(SMALL, epochs=1, lr=1e-12, weight_decay=0.0, begin=str(tmp_path / "one"))
    assert training.train_refiner(data, data, further, tmp_path / "two")
    second = training.load_state(tmp_path / "two" / training.CHECKPOINT, further, len(data)).average
    for name, value in first.state_dict().items():
        torch.testing.assert_close(second.state_dict()[name], value)
    with pytest.raises(TrainingError, match="'width': 16.*not.*'width': 24"):
        training.train_refiner(data, data, replace(further, width=24), tmp_path / "three")


def test_one_crystal_is_enough(tmp_path):
    data = rutiles(1)
    assert training.train_refiner(data, data, SMALL, tmp_path)
    assert all(np.isfinite(list(entry.values())).all() for entry in weights(tmp_path)[1]["history"])


def test_every_epoch_has_each_crystal_at_most_once():
    sizes = torch.randint(1, 100, (83,))
    for epoch in range(3):
        rows = torch.cat(training._order(sizes, SMALL, epoch))
        assert len(rows.unique()) == len(rows) == 80
    assert not torch.equal(torch.cat(training._order(sizes, SMALL, 0)), torch.cat(training._order(sizes, SMALL, 1)))
    batches = training._order(torch.arange(800), SMALL, 0)
    assert max(float(b.max() / b.min().clamp_min(50)) for b in batches) < 2  # about one size together


def test_learning_rate():
    settings = training.RefinerSettings(lr=1.0, warmup=10)
    rates = [settings.rate(step, 1000) for step in range(1001)]
    assert rates[0] == pytest.approx(0.1, rel=1e-3) and max(rates) == pytest.approx(1.0, abs=1e-3)
    assert rates[1000] == pytest.approx(0) and rates[500] == pytest.approx(0.5, abs=0.01)


def test_another_training_in_the_folder(tmp_path, random_orbits):
    training.train_refiner(random_orbits[:20], random_orbits[:9], SMALL, tmp_path, minutes=1e-9)
    with pytest.raises(TrainingError, match="width=16, not 32"):
        training.train_refiner(random_orbits[:20], random_orbits[:9], replace(SMALL, width=32), tmp_path)
    with pytest.raises(TrainingError, match="crystals=20, not 30"):
        training.train_refiner(random_orbits[:30], random_orbits[:9], SMALL, tmp_path)
    (tmp_path / training.CHECKPOINT).write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="truncated"):
        training.train_refiner(random_orbits[:20], random_orbits[:9], SMALL, tmp_path)


def test_nothing_to_train_on(tmp_path, random_orbits):
    with pytest.raises(TrainingError, match="0 crystals to train on, 5 to report on"):
        training.train_refiner([], random_orbits[:5], SMALL, tmp_path)


def test_a_loss_that_is_not_finite(tmp_path, random_orbits):
    with pytest.raises(TrainingError, match="the loss is nan at step"):
        training.train_refiner(random_orbits, random_orbits[:5], replace(SMALL, lr=1e30), tmp_path)


CHILD = """
import sys
for name in ("spglib", "pymatgen", "pyxtal", "ase"):
    sys.modules[name] = None  # importing it fails
import torch
torch.set_num_threads(1)
from pathlib import Path
from crystalgfn.structures.refiner.dataset import load_prepared
from crystalgfn.structures.refiner.training import RefinerSettings, train_refiner
out = Path(sys.argv[1])
crystals, _ = load_prepared(out / "crystals.npz")
small = dict(epochs=int(sys.argv[2]), batch=8, warmup=5, width=16, layers=1, radial=6, waves=2, cutoff=4.0)
print(train_refiner(crystals, crystals[:5], RefinerSettings(**small), out, save_seconds=0))
"""


def test_killed_without_a_word_and_without_materials_libraries(tmp_path):
    from crystalgfn.structures.refiner.dataset import save

    save(tmp_path / "crystals.npz", rutiles(40), {})
    (tmp_path / "child.py").write_text(textwrap.dedent(CHILD))
    call = [sys.executable, str(tmp_path / "child.py"), str(tmp_path)]
    with subprocess.Popen([*call, "100000"], stdout=subprocess.PIPE) as child:
        while not (tmp_path / training.CHECKPOINT).exists():
            assert child.poll() is None
        os.kill(child.pid, signal.SIGKILL)
    step = weights(tmp_path)[1]["step"]
    assert step >= 1
    (tmp_path / training.CHECKPOINT).unlink()
    done = subprocess.run([*call, "1"], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True", done.stderr
