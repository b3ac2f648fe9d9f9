"""Environments: states, moves and masks that trajectories follow."""
