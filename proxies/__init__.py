"""Proxies: models fitted on real crystals that predict a property from group, composition and lattice."""
