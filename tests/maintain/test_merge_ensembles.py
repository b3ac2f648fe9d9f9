"""Members of several fits in one ensemble: each says what it said."""

import sys

import pytest
import torch

import crystalgfn as cg
from crystalgfn.errors import CheckpointError, RewardError
from crystalgfn.properties.ensemble import EnsembleProxy
from scripts.maintain import merge_ensembles
from scripts.maintain.merge_ensembles import join_members

SPACE = cg.CrystalSpace(elements=["Na", "K", "Cl", "F"], n_atoms=(2, 6))


def saved(path, seed, **shape):
    torch.manual_seed(seed)
    proxy = EnsembleProxy("formation_energy", "eV/atom", **{"members": 3, "width": 8, "depth": 2, "rank": 4, **shape})
    proxy.low.fill_(-3.0 - seed)
    proxy.high.fill_(3.0 + seed)
    proxy.unfamiliar[10 + seed] = 1.0
    proxy.save(path)
    return proxy


def test_each_member_says_what_it_said(tmp_path):
    one, two = (saved(tmp_path / str(i), i) for i in (0, 1))
    joined = join_members([(tmp_path / "0", [2]), (tmp_path / "1", [0, 1]), (tmp_path / "0", [0])])
    crystals = cg.Sampler.untrained(SPACE).sample(50, seed=1)
    expected = torch.stack([one.members(crystals)[2], *two.members(crystals)[:2], one.members(crystals)[0]])
    assert torch.allclose(joined.members(crystals), expected, atol=1e-5)
    assert (float(joined.low), float(joined.high)) == (-4.0, 4.0)
    assert joined.unfamiliar.nonzero().flatten().tolist() == [10, 11]
    with pytest.raises(RewardError, match="not calibrated"):
        joined.interval(crystals)


def test_what_does_not_belong_together_is_refused(tmp_path):
    saved(tmp_path / "0", 0)
    saved(tmp_path / "wider", 1, width=9)
    shifted = saved(tmp_path / "shifted", 2)
    shifted.shift += 1
    shifted.save(tmp_path / "shifted")
    for parts, message in (
        ([("0", [0, 3])], "0 has no member 3; choose from 0 to 2"),
        ([("0", [1])], "1 members make no ensemble"),
        ([("0", [1]), ("wider", [0])], "wider has width=9, .*0 8; join fits of one"),
        ([("0", [1, 2]), ("0", [1])], "member 1 of .*0 is named twice"),
        ([("0", [1]), ("shifted", [0])], "shifted has other scales"),
    ):
        with pytest.raises(CheckpointError, match=message):
            join_members([(tmp_path / folder, members) for folder, members in parts])
    with pytest.raises(CheckpointError, match="no ensemble of networks on features"):
        join_members([("energy_above_hull", [0, 1])])
    with pytest.raises(RewardError, match="nowhere"):
        join_members([(tmp_path / "nowhere", [0, 1])])


def test_the_command_writes_a_proxy_that_can_be_read(tmp_path, monkeypatch, capsys):
    saved(tmp_path / "0", 0)
    words = ["join_members", str(tmp_path / "out"), f"{tmp_path / '0'}:0,2"]
    monkeypatch.setattr(sys, "argv", words)
    merge_ensembles.main()
    assert capsys.readouterr().out.startswith("2 members: ")
    assert EnsembleProxy.load(tmp_path / "out").shape["members"] == 2
    monkeypatch.setattr(sys, "argv", [*words[:2], str(tmp_path / "0")])
    with pytest.raises(SystemExit):
        merge_ensembles.main()
    assert "give a folder or name, a colon and numbers of members" in capsys.readouterr().err
    part = f"{tmp_path / '0'}:0,1"
    for out, message in ((tmp_path / "out", "already holds a proxy"), (part, "name the folder of the new proxy first")):
        monkeypatch.setattr(sys, "argv", ["join_members", str(out), part])
        with pytest.raises(SystemExit):
            merge_ensembles.main()
        assert message in capsys.readouterr().err
