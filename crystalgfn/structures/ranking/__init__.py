"""Models that rank Wyckoff assignments, candidates and polymorphs."""
