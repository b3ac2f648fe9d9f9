"""Proxies: models fitted on real crystals that predict a property from group, composition and lattice."""

from __future__ import annotations

from typing import Any

_DATA = ("Rows", "exclude", "read", "split", "write")


def __getattr__(name: str) -> Any:
    # Rewards import the models below; pandas is imported when data are first asked for.
    if name in _DATA:
        from crystalgfn.proxies import data

        return getattr(data, name)
    if name == "stream":
        from crystalgfn.proxies import sources

        return sources.stream
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["Rows", "exclude", "read", "split", "stream", "write"]
