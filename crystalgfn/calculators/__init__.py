"""Energies and forces of structures, relaxation, energy references."""
