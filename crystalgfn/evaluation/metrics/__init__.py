"""Metrics of sets of crystals, one file each."""
