"""Members of several fits in one ensemble: ``python -m scripts.maintain.merge_ensembles OUT FOLDER:0,1 OTHER:0,1,2,3``.

Fits that began elsewhere, or saw other labels, err in more different ways than the members of one. What comes out is
not calibrated: begin a fit with it (``fit(..., begin=OUT)``), or call `EnsembleProxy.calibrate`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from crystalgfn.errors import CheckpointError
from crystalgfn.fitting.ensemble_fit import SCALES
from crystalgfn.properties.ensemble import WEIGHTS, EnsembleProxy
from crystalgfn.properties.registry import load_proxy
from scripts.maintain.program import run

#: Parameters that hold the members one beside the other in their last dimension; the rest have them in their first.
BESIDE = ("first", "groups", "offset", "left", "right")


def join_members(parts: Sequence[tuple[str | Path, Sequence[int]]]) -> EnsembleProxy:
    """An ensemble of members of others, in the order given.

    Args:
        parts: folder of a proxy, or name of a shipped one, and which of its members to take, from 0.

    Returns:
        An ensemble whose intervals are not calibrated; the factor of its spread is that of the first part. Its means
        are held to the widest of the ranges, and an element is as unfamiliar as it is to the part that knows it least.

    Raises:
        CheckpointError: proxies of different properties, shapes or units of features, members that there are not or
            that are named twice, or fewer than two.
        RewardError: neither a folder nor a name.
    """
    proxies = [_proxy(folder) for folder, _ in parts]
    chosen = [list(members) for _, members in parts]
    if sum(map(len, chosen)) < 2:
        raise CheckpointError(f"{sum(map(len, chosen))} members make no ensemble; choose two or more")
    named = [(str(folder), m) for folder, members in parts for m in members]
    if twice := [one for one in named if named.count(one) > 1]:
        raise CheckpointError(f"member {twice[0][1]} of {twice[0][0]} is named twice; name each once")
    first = proxies[0]
    for proxy, members in zip(proxies, chosen, strict=True):
        size = proxy.shape["members"]
        if wrong := [m for m in members if not 0 <= m < size]:
            raise CheckpointError(f"{proxy.source} has no member {wrong[0]}; choose from 0 to {size - 1}")
        own, expected = ({"property": p.name, **p.shape, "members": None} for p in (proxy, first))
        if other := [name for name in own if own[name] != expected[name]]:
            raise CheckpointError(
                f"{proxy.source} has {other[0]}={own[other[0]]}, {first.source} {expected[other[0]]}; join fits of one "
                "property and shape"
            )
        if any(not torch.equal(getattr(proxy, name), getattr(first, name)) for name in SCALES):
            raise CheckpointError(
                f"{proxy.source} has other scales of features or labels than {first.source}; join fits on the same rows"
            )
    shape = {**first.shape, "members": sum(map(len, chosen))}
    joined = EnsembleProxy(first.name, first.unit, **shape)
    state = {**first.state_dict()}
    for name, _ in first.named_parameters():
        dim = -1 if name in BESIDE else 0
        own = [
            proxy.state_dict()[name].chunk(proxy.shape["members"], dim)[m]
            for proxy, members in zip(proxies, chosen, strict=True)
            for m in members
        ]
        state[name] = torch.cat(own, dim)
    state["low"] = torch.stack([proxy.low for proxy in proxies]).amin(0)
    state["high"] = torch.stack([proxy.high for proxy in proxies]).amax(0)
    state["unfamiliar"] = torch.stack([proxy.unfamiliar for proxy in proxies]).amax(0)
    state["quantiles"] = torch.full_like(first.quantiles, torch.nan)
    joined.load_state_dict(state)
    return joined.eval().requires_grad_(False)


def merge(parts: Mapping[str, Sequence[int]], out: str | Path) -> Path:
    """Members of the fits in several folders, {folder: numbers of members}, as one proxy in ``out``; its file.

    Raises:
        CheckpointError: see `join_members`.
    """
    return join_members(list(parts.items())).save(out)


def _proxy(folder: str | Path) -> EnsembleProxy:
    proxy = load_proxy(str(folder))
    if not isinstance(proxy, EnsembleProxy):
        raise CheckpointError(f"{folder} holds no ensemble of networks on features; choose one that crystalgfn fitted")
    return proxy


def _part(text: str) -> tuple[str, list[int]]:
    folder, _, members = text.rpartition(":")
    try:
        return folder or text, [int(number) for number in members.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}: give a folder or name, a colon and numbers of members, as fits/first:0,1"
        ) from None


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder of the new proxy")
    parser.add_argument("parts", type=_part, nargs="+", help="FOLDER:MEMBER,MEMBER")
    options = parser.parse_args()
    if re.search(r":[\d,]+$", str(options.out)) or str(options.out) in ("", "."):
        parser.error(f"OUT is {str(options.out)!r}: name the folder of the new proxy first")
    if (options.out / WEIGHTS).exists():
        parser.error(f"{options.out} already holds a proxy: choose another folder")
    proxy = join_members(options.parts)
    print(f"{proxy.shape['members']} members: {proxy.save(options.out)}")


if __name__ == "__main__":
    run(main)
