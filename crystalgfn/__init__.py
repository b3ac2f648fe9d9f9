"""Draws crystals with probability proportional to a reward."""
