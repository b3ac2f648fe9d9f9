"""Units that do not fit each other."""

DENSITY_UNIT = 1.66053906660
"""g/cm3 of 1 u/Å3 (CODATA 2018)."""
