"""The diffusion model of free coordinates and lattices."""
