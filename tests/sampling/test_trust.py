"""Kind 6: the folder of a sampler from a stranger runs no code of its own choosing, and damage is one sentence."""

import json
import pickle
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import crystalgfn as cg
from crystalgfn.errors import CheckpointError, NotTrusted
from crystalgfn.policy.network import PolicyConfig
from crystalgfn.sampling.sampler import Sampler
from crystalgfn.sampling.sampler_files import checksum
from crystalgfn.utils.instantiate import instantiate

SMALL = PolicyConfig(width=8, blocks=0, components=2, rank=4)
PAYLOAD = "from pathlib import Path\nPath({ran!r}).write_text('ran')\ndef Reward():\n    return lambda c: c.density\n"


class Bomb:
    """What unpickling it does is seen."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.fixture
def folder(tmp_path):
    sampler = Sampler.untrained(
        cg.CrystalSpace(elements=["Na", "Cl"], n_atoms=(1, 4), space_groups=[225]), policy=SMALL
    )
    sampler.save(tmp_path / "sampler")
    return tmp_path / "sampler"


def rewarded(folder, reward):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "reward": reward}))
    return folder


def attacks(tmp_path, ran):
    bomb = tmp_path / "bomb.pkl"
    bomb.write_bytes(pickle.dumps(Bomb(ran)))
    torch.save(Bomb(ran), tmp_path / "bomb.pt")
    np.save(tmp_path / "bomb.npy", np.array([Bomb(ran)], dtype=object), allow_pickle=True)
    run = f"from pathlib import Path; Path({ran!r}).write_text('ran')"
    density = {"_target_": "crystalgfn.rewards.Density"}
    return {
        "payload.Reward": {"_target_": "payload.Reward"},
        "joblib.load": {"_target_": "joblib.load", "filename": str(bomb)},
        "pandas.read_pickle": {"_target_": "pandas.read_pickle", "filepath_or_buffer": str(bomb)},
        "torch.load": {"_target_": "torch.load", "f": str(tmp_path / "bomb.pt"), "weights_only": False},
        "numpy.load": {"_target_": "numpy.load", "file": str(tmp_path / "bomb.npy"), "allow_pickle": True},
        "pathlib.Path": {
            "_target_": "pathlib.Path.write_text",
            "_args_": [{"_target_": "pathlib.Path", "_args_": [ran]}, "ran"],
        },
        "os.system": {"_target_": "os.system", "command": f"touch {ran}"},
        "builtins.exec": {"_target_": "builtins.exec", "_args_": [run]},
        "runpy.run_path": {"_target_": "runpy.run_path", "_args_": [str(tmp_path / "payload.py")]},
        "hydra.utils.instantiate": {"_target_": "hydra.utils.instantiate", "_args_": [{"_target_": "os.system"}]},
        "crystalgfn.rewards.program": {"_target_": "crystalgfn.rewards.program", "command": f"touch {ran}"},
        "crystalgfn.rewards.Program": {
            "_target_": "crystalgfn.rewards.slow",
            "fn": {"_target_": "crystalgfn.rewards.Program", "command": ["touch", ran]},
        },
        "crystalgfn.rewards.slow": {"_target_": "crystalgfn.rewards.slow", "fn": density, "cache": ran},
        # inside others, and as dotted names
        "os": {"_target_": "crystalgfn.rewards.function", "fn": "os.system", "name": "x"},
        "math": {"_target_": "crystalgfn.rewards.slow", "fn": "math.fsum"},
        "payload": {
            "_target_": "crystalgfn.rewards.product",
            "_args_": [
                {"_target_": "crystalgfn.rewards.floor", "reward": {"_target_": "payload.Reward"}, "log_r_min": 0}
            ],
        },
        # the package's own, but no rewards
        "crystalgfn.train": {"_target_": "crystalgfn.train", "out": ran},
        "crystalgfn.utils.files.write_aside": {"_target_": "crystalgfn.utils.files.write_aside", "path": ran},
        "crystalgfn.rewards.os.system": {"_target_": "crystalgfn.rewards.os.system", "command": f"touch {ran}"},
        "crystalgfn.rewards.external.sqlite3.connect": {
            "_target_": "crystalgfn.rewards.external.sqlite3.connect",
            "database": ran,
        },
        # code that an import runs, and targets deep in lists and dictionaries
        "crystalgfn.cli.__main__.FACTORIES": {"_target_": "crystalgfn.cli.__main__.FACTORIES"},
        "posix.system": {
            "_target_": "crystalgfn.rewards.product",
            "_args_": [[{"a": [{"_target_": "posix.system", "command": f"touch {ran}"}]}]],
        },
        "Density.__init__": {"_target_": "crystalgfn.rewards.Density.__init__"},
        "os:system": {"_target_": "os:system", "command": f"touch {ran}"},
    }


def test_no_code_of_a_strangers_choosing(folder, tmp_path, monkeypatch):
    ran = str(tmp_path / "ran")
    (tmp_path / "payload.py").write_text(PAYLOAD.format(ran=ran))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name, reward in attacks(tmp_path, ran).items():
        with pytest.raises(NotTrusted, match=r"trust=\[") as caught:
            Sampler.load(rewarded(folder, reward))
        assert name in str(caught.value) and str(folder) in str(caught.value)
        assert not (tmp_path / "ran").exists(), name
    assert "payload" not in sys.modules


def test_trusted_modules_run(folder, tmp_path, monkeypatch):
    (tmp_path / "my_rewards.py").write_text("def Light(strength):\n    return lambda c: -strength * c.density\n")
    monkeypatch.syspath_prepend(tmp_path)
    rewarded(folder, {"_target_": "my_rewards.Light", "strength": 2})
    for trust in (["my_rewards"], ["other", "my_rewards.Light"], "my_rewards"):
        sampler = Sampler.load(folder, trust=trust)
        crystals = sampler.sample(3)
        torch.testing.assert_close(sampler.log_reward(crystals), -2 * crystals.density)
    for trust in (["my_reward"], ["my_rewards.Lig"], ["rewards"], [""]):
        with pytest.raises(NotTrusted, match=r'trust=\["my_rewards"\]'):
            Sampler.load(folder, trust=trust)
    sys.modules.pop("my_rewards")
    with pytest.raises(CheckpointError, match="strength.*reward=") as caught:
        Sampler.load(rewarded(folder, {"_target_": "my_rewards.Light"}), trust=["my_rewards"])
    assert "\n" not in str(caught.value)


def test_trust_ends_with_the_load(folder):
    with pytest.raises(NotTrusted):
        Sampler.load(rewarded(folder, {"_target_": "os.getcwd"}))
    assert cg.rewards.function("math.fsum", "sum").fn([1.0, 2.0]) == 3.0  # the user's own program may name anything


def test_what_the_package_writes_loads(folder):
    density = cg.rewards.Density()
    reward = cg.rewards.product(cg.rewards.boltzmann(density, 0.5), cg.rewards.target(density, 5.0, 1.0))
    sampler = Sampler.load(folder)
    sampler.reward = reward
    sampler.save(folder)
    crystals = sampler.sample(5)
    assert torch.equal(Sampler.load(folder).log_reward(crystals), sampler.log_reward(crystals))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("space", {"elements": ["Xx"]}, "'space'"),
        ("space", {"elephants": 1}, "'space'"),
        ("space", 3, "'space'"),
        ("space", {"n_atoms": "many"}, "'space'"),
        ("policy", {"width": "wide"}, "'policy'"),
        ("policy", {"depth": 3}, "'policy'"),
        ("policy", None, "'policy'"),
        ("omega", "much", "'omega'"),
        ("omega", [0.5, -0.5], "'omega'"),
        ("omega", [0.5, 0.5, 0, 0, 0], "ln Z"),
        ("betas", [1], "'betas'"),
        ("betas", [1, 0], "'betas'"),
        ("reward", "rm", "'reward'"),
        ("reward", {"_target_": 3}, "_target_=3"),
        ("reward", {"_target_": "crystalgfn.rewards.Density", "__init__": 1}, "__init__"),
        ("reward", {"_target_": "crystalgfn.rewards.boltzmann", "beta": 1}, "prop"),
        ("version", 1, "version 1"),
        ("version", 3, "version 3"),
        ("checksum", "0" * 64, "damaged"),
    ],
)
def test_a_damaged_config_is_one_sentence(folder, key, value, said):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(CheckpointError, match="copy|train|version|give one") as caught:
        Sampler.load(folder)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["kind", "version", "space", "policy", "omega", "reward"])
def test_a_config_without_a_key(folder, key):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    del config[key]
    path.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="not the config|has no"):
        Sampler.load(folder)


@pytest.mark.parametrize("content", [b"[1, 2]", b"3", b"\xff\xfe", b"", b"{"])
def test_a_config_that_is_none(folder, content):
    (folder / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match="not the config"):
        Sampler.load(folder)


def test_a_flipped_bit_and_nan_in_the_weights(folder):
    path = folder / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 64
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        Sampler.load(folder)
    content[-5] ^= 64
    path.write_bytes(content)
    tensors = load_file(path)
    tensors["network.norm.bias"][0] = float("nan")
    save_file(tensors, path)
    config = json.loads((folder / "config.json").read_text())
    for wrong in ({"checksum": None}, {"checksum": 3}, {}):
        rest = {name: value for name, value in config.items() if name != "checksum"}
        (folder / "config.json").write_text(json.dumps({**rest, **wrong}))
        with pytest.raises(CheckpointError, match="checksum"):
            Sampler.load(folder)
    config["checksum"] = checksum(tensors)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="norm.bias.*not finite|not finite.*norm.bias"):
        Sampler.load(folder)


def test_nested_values_stay_as_they_are():
    plain = {"a": [1, {"b": None}], "c": "os.system"}
    assert instantiate(plain) == plain


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"policy": {"width": 10**9}}, "width=1000000000"),
        ({"policy": {"width": 8, "blocks": 10**7, "components": 2, "rank": 4}}, "blocks=10000000"),
        ({"policy": {"width": True, "blocks": 0, "components": 2, "rank": 4}}, "width=True"),
        ({"betas": [0, float("inf")]}, "two rising numbers"),
        ({"betas": [0, 1]}, "conditioned=False"),
    ],
)
def test_sizes_and_ranges_that_the_weights_do_not_have(folder, change, words):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CheckpointError, match=words):
        Sampler.load(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda w: {"network.embedding.weight": w["network.embedding.weight"].to(torch.complex64)},
        lambda w: {"network.embedding.weight": w["network.embedding.weight"] > 0},
        lambda w: {"network.embedding.weight": w["network.embedding.weight"].to(torch.float8_e4m3fn)},
        lambda w: {"network.embedding.weight": torch.tensor(1.0)},
        lambda w: {"log_z": w["log_z"] * float("nan")},
    ],
)
def test_weights_of_another_kind(folder, change):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "checksum": None}))
    weights = load_file(folder / "weights.safetensors")
    save_file({**weights, **change(weights)}, folder / "weights.safetensors")
    with pytest.raises(CheckpointError, match=str(folder)):
        Sampler.load(folder)


@pytest.mark.parametrize("text", ["[" * 200_000, '{"kind": ' * 100_000])
def test_a_config_nested_without_end(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match="is not the config"):
        Sampler.load(folder)
