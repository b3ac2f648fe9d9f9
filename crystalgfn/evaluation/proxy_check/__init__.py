"""Comparison of a proxy's predictions with calculated energies."""
